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
    total; ``worse`` when it rose. ``is_slow``: over the line, but what must be held is not: weights are read again."""

    domain: str
    level: str
    worse: bool
    room_bytes: int
    is_slow: bool = False


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
            must_hold = sample.must_hold(domain.name)
            rooms = line - predicted, line - (predicted if must_hold is None else must_hold)
            before = self._levels.get(domain.name, "")
            level = _level(*rooms, domain.capacity_bytes)
            if _LEVELS.index(level) < _LEVELS.index(before):
                margin = short_room(domain.capacity_bytes) // HYSTERESIS_SHARE
                level = _level(rooms[0] - margin, rooms[1] - margin, domain.capacity_bytes)
                level = min(level, before, key=_LEVELS.index)
            if level != before:
                self._levels[domain.name] = level
                worse, is_slow = _LEVELS.index(level) > _LEVELS.index(before), rooms[0] < 0 <= rooms[1]
                changes.append(RoomChanged(domain.name, level, worse, rooms[0], is_slow))
        return changes


def _level(room_bytes: int, must_hold_room_bytes: int, capacity_bytes: int | None) -> str:
    """As verdict.alarm: mapped weights beyond the line make it slow, which is amber; red is for what must be held."""
    level = alarm(room_bytes, capacity_bytes)
    return "amber" if level == "red" and alarm(must_hold_room_bytes, capacity_bytes) != "red" else level
