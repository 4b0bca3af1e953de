"""The rows of numbers that a memory chart is drawn from, and where they are known. Pure, numpy."""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from kvdesk.backend.system.samples import DomainReading
from kvdesk.ui.memory.composition import LAYERS, Parts

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
    """The stretches without NaN."""
    unknown = np.isnan(values)
    if not unknown.any():
        return [slice(None)]
    known = np.concatenate([[False], ~unknown, [False]])
    edges = np.flatnonzero(known[1:] != known[:-1])
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
