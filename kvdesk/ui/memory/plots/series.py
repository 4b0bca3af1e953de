"""The rows of numbers that a memory chart is drawn from, and where they are known. Pure, numpy."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

import numpy as np

from kvdesk.backend.system.samples import DomainReading
from kvdesk.ui.memory.composition import KV_LAYERS, LAYERS, Parts
from kvdesk.ui.memory.plots.chart_history import Columns

SERIES = (*LAYERS, "others", "ceiling", "oom_line", "predicted", "capacity")
"""What a row holds: for each layer the height of its top edge (all below included), then single values."""


def row_of(
    reading: DomainReading, parts: Parts | None, predicted_bytes: int | None, margin_bytes: int
) -> list[float | None]:
    """A row of SERIES for one reading."""
    tops: list[float | None] = [None] * len(LAYERS)
    if parts is not None:
        tops = list(accumulate(getattr(parts, name) for name in LAYERS))
    return [
        *tops,
        reading.others_bytes,
        reading.ceiling_bytes,
        reading.oom_line(margin_bytes),
        predicted_bytes,
        reading.capacity_bytes,
    ]


def known_runs(values: np.ndarray) -> list[slice]:
    """The index ranges in which no value is NaN."""
    unknown = np.isnan(values)
    if not unknown.any():
        return [slice(None)]
    known = np.concatenate([[False], ~unknown, [False]])
    edges = np.flatnonzero(known[1:] != known[:-1])
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def without(columns: Columns, hidden: frozenset[str], full_kv_bytes: float | None) -> Columns:
    """``columns`` without the layers ``hidden``: what stood on them comes down, and so do the lines, so that room stays room.

    Other programs hang from the capacity, which then has no place. Where only the KV cache is left, the predicted total
    is that of a full cache, ``full_kv_bytes``.
    """
    if not hidden:
        return columns
    only_kv = hidden == frozenset(LAYERS) - KV_LAYERS
    low, high = _lowered(columns.low, hidden), _lowered(columns.high, hidden)
    if only_kv and full_kv_bytes is not None:
        low["predicted"] = high["predicted"] = np.full(len(columns.x), full_kv_bytes, np.float32)
    return Columns(columns.x, low, high)


def _lowered(edges: Mapping[str, np.ndarray], hidden: frozenset[str]) -> dict[str, np.ndarray]:
    below = shown = gone = np.zeros_like(edges[LAYERS[0]])
    result = dict(edges)
    for name in LAYERS:
        thickness = edges[name] - below
        below = edges[name]
        if name in hidden:
            gone = gone + thickness
        else:
            shown = shown + thickness
        result[name] = shown
    for line in ("ceiling", "oom_line", "predicted"):
        result[line] = edges[line] - np.nan_to_num(gone)
    result["others"] = np.full_like(below, np.nan)
    return result
