"""A mark on a chart's time axis: what happened when. A value; the session log's events become these to be drawn."""

from __future__ import annotations

from dataclasses import dataclass

ALARMING = frozenset({"crash", "hang", "oom"})
WARNING = frozenset({"warning", "overflow", "cancel"})


@dataclass(frozen=True)
class ChartEvent:
    """``time_s`` is Unix time. ``kind`` is one word ("load", "ready", "grow", "settings", "warning", "crash", ...),
    ``label`` what a person reads on hovering the mark."""

    time_s: float
    kind: str
    label: str

    @property
    def tone(self) -> str:
        """How the mark is coloured: "red", "amber" or "" (neutral)."""
        if self.kind in ALARMING:
            return "red"
        return "amber" if self.kind in WARNING else ""
