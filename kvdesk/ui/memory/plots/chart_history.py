"""The numbers behind a chart: rows over time, kept for a session, thinned to pixel columns with peaks kept. Pure.

No Qt. numpy is imported with this module, so import it after the first paint only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SESSION_ROWS = 2 * 86_400
"""Rows kept: a day at two a second. When full the oldest eighth goes."""


@dataclass(frozen=True)
class Columns:
    """A stretch of history, one entry per pixel column that holds a row.

    ``x`` is the time of each column (seconds), ``low`` and ``high`` the least and the greatest value in it, by series
    name; NaN where nothing was known. With fewer rows than columns, ``low`` and ``high`` are the rows themselves.
    """

    x: np.ndarray
    low: dict[str, np.ndarray]
    high: dict[str, np.ndarray]


class ChartHistory:
    """Rows of float32 values under float64 times that never go back.

    ``names`` are the series. Memory grows by doubling up to ``capacity`` rows, so a short session stays small.
    """

    def __init__(self, names: Sequence[str], capacity: int = SESSION_ROWS) -> None:
        self._names = {name: i for i, name in enumerate(names)}
        self._capacity = capacity
        self._count = 0
        rows = min(1024, capacity)
        self._times = np.empty(rows, np.float64)
        self._rows = np.empty((len(self._names), rows), np.float32)

    def __len__(self) -> int:
        return self._count

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the series, in the order of the columns."""
        return tuple(self._names)

    @property
    def times(self) -> np.ndarray:
        """The time of every row, a view."""
        return self._times[: self._count]

    def series(self, name: str) -> np.ndarray:
        """All values of one series, a view."""
        return self._rows[self._names[name], : self._count]

    def append(self, time_s: float, values: Sequence[float | None]) -> None:
        """Add a row; None is unknown. A time before the last one is taken as the last one's."""
        if self._count == len(self._times):
            self._make_room()
        if self._count:
            time_s = max(time_s, float(self._times[self._count - 1]))
        self._times[self._count] = time_s
        self._rows[:, self._count] = [np.nan if value is None else value for value in values]
        self._count += 1

    def extend(self, times: np.ndarray, values: np.ndarray) -> None:
        """Add many rows at once: ``times`` (n), ``values`` (series x n, NaN is unknown)."""
        keep = min(len(times), self._capacity)
        times, values = times[len(times) - keep :], values[:, values.shape[1] - keep :]
        start = min(self._count, self._capacity - keep)
        total = start + keep
        old_times, old_rows = (
            self._times[self._count - start : self._count],
            self._rows[:, self._count - start : self._count],
        )
        self._times, self._rows = np.concatenate([old_times, times]), np.hstack([old_rows, values.astype(np.float32)])
        np.maximum.accumulate(self._times, out=self._times)
        self._count = total

    def clear(self) -> None:
        """Drop all rows."""
        self._count = 0

    def at(self, time_s: float) -> tuple[float, dict[str, float | None]] | None:
        """Time and values of the row nearest to ``time_s``; None when there is no row."""
        if not self._count:
            return None
        times = self.times
        right = min(int(np.searchsorted(times, time_s)), self._count - 1)
        left = max(0, right - 1)
        index = left if abs(times[left] - time_s) <= abs(times[right] - time_s) else right
        column = self._rows[:, index]
        values = {name: None if np.isnan(column[i]) else float(column[i]) for name, i in self._names.items()}
        return float(times[index]), values

    def columns(self, start_s: float, end_s: float, n_columns: int) -> Columns:
        """What to draw between two times on ``n_columns`` pixels; one row beyond either edge is included.

        Columns lie on a grid fixed in time, so a scrolling chart does not shimmer.
        """
        times = self.times
        first = max(0, int(np.searchsorted(times, start_s, "left")) - 1)
        last = min(self._count, int(np.searchsorted(times, end_s, "right")) + 1)
        times, rows = times[first:last], self._rows[:, first:last]
        if len(times) <= 2 * max(1, n_columns):
            same = {name: rows[i] for name, i in self._names.items()}
            return Columns(times, same, same)
        width_s = (end_s - start_s) / max(1, n_columns)
        column = np.floor(times / width_s).astype(np.int64)
        starts = np.flatnonzero(np.diff(column, prepend=column[0] - 1))
        low, high = np.fmin.reduceat(rows, starts, axis=1), np.fmax.reduceat(rows, starts, axis=1)
        x = times[starts]
        x = np.append(x, times[-1])  # so that the newest moment is drawn where it is
        low, high = np.column_stack([low, rows[:, -1]]), np.column_stack([high, rows[:, -1]])
        return Columns(
            x, {name: low[i] for name, i in self._names.items()}, {name: high[i] for name, i in self._names.items()}
        )

    def _make_room(self) -> None:
        rows = len(self._times)
        if rows < self._capacity:
            more = min(rows, self._capacity - rows)
            self._times = np.concatenate([self._times, np.empty(more, np.float64)])
            self._rows = np.hstack([self._rows, np.empty((len(self._names), more), np.float32)])
            return
        drop = max(1, rows // 8)
        self._times[:-drop] = self._times[drop:].copy()
        self._rows[:, :-drop] = self._rows[:, drop:].copy()
        self._count -= drop
