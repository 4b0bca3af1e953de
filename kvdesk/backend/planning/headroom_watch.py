"""Says once when the room under the OOM line gets short, and once when it is well again. Pure; one instance a session."""

from __future__ import annotations

from dataclasses import dataclass

from kvdesk.backend.planning.verdict import alarm
from kvdesk.backend.settings import short_room
from kvdesk.backend.system.samples import Sample

HYSTERESIS_SHARE = 8
"""Room must exceed a threshold by this part of what is little room (128 MiB of 1 GiB) before its alarm ends: a reading
that trembles warns once."""

_LEVELS = ("", "amber", "red")


@dataclass(frozen=True)
class RoomChanged:
    """The alarm of ``domain`` is now ``level`` ("", "amber", "red") with ``room_bytes`` under its line for the predicted
    total; ``worse`` when it rose."""

    domain: str
    level: str
    worse: bool
    room_bytes: int


class HeadroomWatch:
    """Feed it every sample; it answers with the crossings."""

    def __init__(self) -> None:
        self._levels: dict[str, str] = {}

    def feed(self, sample: Sample) -> list[RoomChanged]:
        """The crossings of this sample; domains without a prediction or a line are passed over."""
        changes: list[RoomChanged] = []
        for domain in sample.domains:
            line, predicted = domain.oom_line(sample.margin_bytes), sample.predicted(domain.name)
            if line is None or not predicted:
                self._levels.pop(domain.name, None)
                continue
            room = line - predicted
            before = self._levels.get(domain.name, "")
            level = alarm(room, domain.capacity_bytes)
            if _LEVELS.index(level) < _LEVELS.index(before):
                margin = short_room(domain.capacity_bytes) // HYSTERESIS_SHARE
                level = alarm(room - margin, domain.capacity_bytes)
                level = min(level, before, key=_LEVELS.index)
            if level != before:
                self._levels[domain.name] = level
                changes.append(RoomChanged(domain.name, level, _LEVELS.index(level) > _LEVELS.index(before), room))
        return changes
