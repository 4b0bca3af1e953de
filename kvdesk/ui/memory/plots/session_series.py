"""A recorded session's columns as the rows a DomainPlot draws: composition.py's rule for whole arrays. Pure, numpy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kvdesk.ui.memory.composition import LAYERS
from kvdesk.ui.memory.plots.chart_event import ChartEvent

if TYPE_CHECKING:
    from kvdesk.backend.session_log.columns import Columns, DomainColumns
    from kvdesk.backend.session_log.reader import SessionEvent

UNDRAWN = frozenset({"start", "exit", "predicted"})
"""Kinds of events without a mark: the ends of the chart, and what its dotted line shows."""


def rows_of(columns: Columns, domain: DomainColumns, events: Iterable[SessionEvent]) -> np.ndarray:
    """SERIES x n for one domain.

    How it splits comes from the events that list ``components`` (predicted and actual, as calibration.Comparison has them), each for the samples after
    it, and the KV bytes from the samples. Before the first such event all is overhead: measured, but not told apart.
    """
    count = len(columns.time_s)
    sizes = {name: np.zeros(count) for name in ("weights", "compute", "kv")}
    for since_s, known in _known_sizes(events, domain.name):
        later = columns.monotonic_s >= since_s
        for name, size in known.items():
            sizes[name][later] = size
    engine = domain.engine_bytes
    mapped = np.minimum(np.minimum(sizes["weights"], np.nan_to_num(domain.engine_file_bytes)), engine)
    rest = engine - mapped
    weights = np.minimum(sizes["weights"] - mapped, rest)
    kv = np.minimum(np.nan_to_num(columns.kv_bytes_allocated) * sizes["kv"], rest - weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        occupied = np.nan_to_num(np.clip(columns.kv_bytes_used / columns.kv_bytes_allocated, 0, 1))
    compute = np.minimum(sizes["compute"], rest - weights - kv)
    parts = {
        "weights_mapped": mapped,
        "weights": weights,
        "overhead": rest - weights - kv - compute,
        "compute": compute,
        "kv_used": kv * occupied,
        "kv_free": kv * (1 - occupied),
    }
    tops = np.cumsum(np.vstack([parts[name] for name in LAYERS]), axis=0)
    lines = [
        domain.others_bytes,
        domain.ceiling_bytes,
        domain.oom_line_bytes,
        domain.predicted_bytes,
        domain.capacity_bytes,
    ]
    return np.vstack([tops, *lines])


def marks_of(events: Iterable[SessionEvent]) -> list[ChartEvent]:
    """The events that are drawn."""
    return [ChartEvent(event.time_s, event.kind, event.text) for event in events if event.kind not in UNDRAWN]


def _known_sizes(events: Iterable[SessionEvent], domain: str) -> Iterable[tuple[float, dict[str, float]]]:
    """(from when on, bytes by part; "kv" is this domain's share of all KV bytes), one for each event that says."""
    for event in events:
        if event.kind == "unload":
            yield event.monotonic_s, dict.fromkeys(("weights", "compute", "kv"), 0.0)
        components = event.values.get("components")
        if components:
            yield event.monotonic_s, _sizes_in(components, domain)


def _sizes_in(components: Iterable[Mapping[str, Any]], domain: str) -> dict[str, float]:
    def total(names: tuple[str, ...], only: str | None = domain) -> float:
        sizes = (
            one.get("actual_bytes") if one.get("actual_bytes") is not None else one.get("predicted_bytes")
            for one in components
            if one.get("name") in names and (only is None or one.get("domain") == only)
        )
        return float(sum(size for size in sizes if size))

    kv = ("kv", "recurrent")
    everywhere = total(kv, None)
    return {
        "weights": total(("weights",)),
        "compute": total(("compute", "output")),
        "kv": total(kv) / everywhere if everywhere else 0.0,
    }
