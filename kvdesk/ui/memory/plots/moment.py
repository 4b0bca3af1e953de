"""What a memory chart shows at one time. A value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kvdesk.ui.memory.composition import LAYERS
from kvdesk.ui.memory.plots.chart_event import ChartEvent


@dataclass(frozen=True)
class Moment:
    """Bytes by layer and line, None where unknown; the event whose mark is near, if any."""

    time_s: float
    values: dict[str, float | None]
    event: ChartEvent | None = None


def moment_of(time_s: float, row: Mapping[str, float | None], event: ChartEvent | None) -> Moment:
    """The moment of a chart's ``row`` (edges of layers, then lines): single values instead of edges."""
    below: float | None = 0.0
    values: dict[str, float | None] = {}
    for name in LAYERS:
        top = row[name]
        values[name] = None if top is None or below is None else top - below
        below = top
    values["total"] = below
    values.update({name: value for name, value in row.items() if name not in LAYERS})
    return Moment(time_s, values, event)
