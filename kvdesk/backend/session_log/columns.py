"""A session's samples as numpy arrays, one float64 per sample and figure, NaN where unknown: what a chart draws.

Sizes are bytes. Made once for a session that is read, never while one is recorded. Any thread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvdesk.backend.session_log.rows import HEAD, KIB, UNKNOWN, frame_seq_of, sample_size
from kvdesk.backend.settings import kept_free

Floats = NDArray[np.float64]

_BODY_NAMES = (
    "time_s", "monotonic_s", "tokens_per_second",
    "kv_bytes_used", "kv_bytes_allocated", "kv_cells_used", "kv_cells_allocated",
    "swap_used_bytes", "engine_swap_bytes", "engine_peak_bytes", "cgroup_peak_bytes",
)  # fmt: skip
"""The numbers of a packed sample in their order (session_rows.BODY)."""


@dataclass(frozen=True)
class DomainColumns:
    """One domain over the session; the figures are those of samples.DomainReading, which says what each means."""

    name: str
    kind: str
    capacity_bytes: Floats
    available_bytes: Floats
    engine_bytes: Floats
    engine_anonymous_bytes: Floats
    engine_file_bytes: Floats
    predicted_bytes: Floats
    margin_bytes: Floats

    @property
    def engine_unevictable_bytes(self) -> Floats:
        """The engine's share of what is used."""
        return self.engine_anonymous_bytes if self.kind == "ram" else self.engine_bytes

    @property
    def others_bytes(self) -> Floats:
        """What other programs and the system hold."""
        used = np.maximum(0.0, self.capacity_bytes - self.available_bytes)
        return np.maximum(0.0, used - self.engine_unevictable_bytes)

    @property
    def ceiling_bytes(self) -> Floats:
        """What the engine could have held in all."""
        ceiling = self.engine_unevictable_bytes + self.available_bytes
        return np.where(np.isnan(ceiling), ceiling, np.fmin(ceiling, self.capacity_bytes))

    @property
    def oom_line_bytes(self) -> Floats:
        """The ceiling less the margin."""
        return np.maximum(0.0, self.ceiling_bytes - self.margin_bytes)


@dataclass(frozen=True)
class Columns:
    """All samples of a session, oldest first; every array has one entry per sample.

    ``state`` indexes ``states``. ``domains`` are in order of first appearance; one that is absent from some samples is
    NaN there.
    """

    time_s: Floats
    monotonic_s: Floats
    tokens_per_second: Floats
    kv_cells_used: Floats
    kv_cells_allocated: Floats
    kv_bytes_used: Floats
    kv_bytes_allocated: Floats
    swap_used_bytes: Floats
    engine_swap_bytes: Floats
    engine_peak_bytes: Floats
    cgroup_peak_bytes: Floats
    state: NDArray[np.intp]
    states: tuple[str, ...]
    domains: tuple[DomainColumns, ...]

    def domain(self, name: str) -> DomainColumns | None:
        """The domain of that name, if any sample has it."""
        return next((domain for domain in self.domains if domain.name == name), None)


def make_columns(rows: Sequence[bytes], frames: Mapping[int, Mapping[str, Any]]) -> Columns:
    """The columns of intact packed samples (session_log/rows.py) and the frames they refer to."""
    n = len(rows)
    seqs = sorted(frames)
    at = np.searchsorted(seqs, np.fromiter(map(frame_seq_of, rows), dtype=np.int64, count=n)).astype(np.intp)
    layouts = [tuple(domain[0] for domain in frames[seq]["domains"]) for seq in seqs]
    body = np.full((len(_BODY_NAMES), n), np.nan)
    readings: dict[str, Floats] = {}
    for layout in dict.fromkeys(layouts):
        mine = np.array([one == layout for one in layouts], dtype=np.bool_)
        where = np.flatnonzero(mine[at])
        table = np.frombuffer(b"".join([rows[int(index)] for index in where]), dtype=_row_type(len(layout)))
        body[:3, where] = table["floats"].T
        body[3:5, where] = np.where(table["counts"][:, :1] == UNKNOWN, np.nan, table["bytes"]).T
        body[5:7, where] = _known(table["counts"][:, :2]).T
        body[7:, where] = _known(table["counts"][:, 2:]).T * KIB
        for place, name in enumerate(layout):
            figures = readings.setdefault(name, np.full((4, n), np.nan))
            figures[:, where] = _known(table["domains"][:, place]).T * KIB

    def per_frame(value_of: Callable[[Mapping[str, Any]], float | None]) -> Floats:
        values = [value_of(frames[seq]) for seq in seqs]
        return np.array([_or_nan(value) for value in values], dtype=np.float64)[at]

    states = tuple(dict.fromkeys(frames[seq]["state"] for seq in seqs))
    codes = np.array([states.index(frames[seq]["state"]) for seq in seqs], dtype=np.intp)
    domains: list[DomainColumns] = []
    for name, figures in readings.items():
        known = {seq: domain for seq in seqs for domain in frames[seq]["domains"] if domain[0] == name}
        capacity = np.array([_or_nan(known[seq][2]) if seq in known else np.nan for seq in seqs])[at]
        predicted = per_frame(functools.partial(_predicted, name))
        margin = per_frame(functools.partial(_margin, name))
        kind = next(iter(known.values()))[1]
        domains.append(
            DomainColumns(name, kind, capacity, figures[0], figures[1], figures[2], figures[3], predicted, margin)
        )
    numbers = dict(zip(_BODY_NAMES, body, strict=True))
    return Columns(**numbers, state=codes[at], states=states, domains=tuple(domains))


def _predicted(name: str, frame: Mapping[str, Any]) -> float | None:
    predicted: Mapping[str, int] | None = frame["predicted_bytes"]
    return None if predicted is None else predicted.get(name)


def _margin(name: str, frame: Mapping[str, Any]) -> float:
    capacity = next((domain[2] for domain in frame["domains"] if domain[0] == name), None)
    return float(kept_free(frame["margin_bytes"], capacity))


def _row_type(n_domains: int) -> np.dtype[Any]:
    """A packed sample as numpy sees it; HEAD, BODY, DOMAIN and CHECK of session_log/rows.py."""
    row = np.dtype(
        [
            ("head", f"V{HEAD.size}"),
            ("floats", "<f8", 3),
            ("bytes", "<i8", 2),
            ("counts", "<u4", 6),
            ("domains", "<u4", (n_domains, 4)),
            ("check", "V4"),
        ]
    )
    assert row.itemsize == sample_size(n_domains)
    return row


def _known(values: Any) -> Floats:
    return np.where(values == UNKNOWN, np.nan, values).astype(np.float64)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
