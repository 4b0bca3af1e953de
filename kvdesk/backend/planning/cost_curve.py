"""Bytes per domain as a function of the context length, asked for only where it bends. Pure, over a price function.

Caches, masks and graphs grow in straight pieces: a handful of dry runs draw 128 points. Every stretch is confirmed at
its middle; what fits is confirmed by the caller with a dry run of its own.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping

Price = Mapping[str, int]
"""Domain name -> bytes."""

TOLERANCE_BYTES = 64 * 1024
"""A stretch whose middle is this near the straight line is taken for straight; around one bend it is then nowhere off by
more than twice as much."""


class CostLine:
    """``price`` sampled from ``lowest`` to ``highest`` cells, all multiples of ``step``."""

    def __init__(
        self, price: Callable[[int], Price], lowest: int, highest: int, step: int = 256, bends: Iterable[int] = ()
    ) -> None:
        """``bends`` are lengths where a kink is to be expected; knowing them saves dry runs, missing them costs none
        of the exactness. ``price`` may raise; nothing is caught."""
        self._price = price
        self._step = step
        self.lowest = max(step, -(-lowest // step) * step)
        self.highest = max(self.lowest, highest // step * step)
        known = {-(-bend // step) * step for bend in bends}
        corners = sorted({self.lowest, self.highest, *(n for n in known if self.lowest < n < self.highest)})
        self._known: dict[int, Price] = {n: price(n) for n in corners}
        for start, end in itertools.pairwise(corners):
            self._refine(start, end)
        self._lengths = sorted(self._known)

    def at(self, n_ctx: int) -> dict[str, int]:
        """Bytes per domain at ``n_ctx`` cells, within ``lowest`` and ``highest``."""
        n = min(max(n_ctx, self.lowest), self.highest)
        right = bisect_left(self._lengths, n)
        end = self._lengths[right]
        if end == n:
            return dict(self._known[end])
        return _between(self._known, self._lengths[right - 1], end, n)

    def longest_within(self, limits: Mapping[str, int | None]) -> int | None:
        """The longest context that keeps every domain within its limit (None: no limit known); None when none does."""
        low, high = self.lowest // self._step, self.highest // self._step
        if not self._is_within(low, limits):
            return None
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._is_within(middle, limits) else (low, middle - 1)
        return low * self._step

    def _is_within(self, steps: int, limits: Mapping[str, int | None]) -> bool:
        return all(
            (limit := limits.get(name)) is None or size <= limit for name, size in self.at(steps * self._step).items()
        )

    def _refine(self, start: int, end: int) -> None:
        middle = (start + end) // 2 // self._step * self._step
        if middle <= start:
            return
        straight = _between(self._known, start, end, middle)
        asked = self._known[middle] = self._price(middle)
        if any(abs(size - straight.get(name, 0)) > TOLERANCE_BYTES for name, size in asked.items()):
            self._refine(start, middle)
            self._refine(middle, end)


def _between(known: Mapping[int, Price], start: int, end: int, n: int) -> dict[str, int]:
    low, high = known[start], known[end]
    share = (n - start) / (end - start)
    return {name: round(low.get(name, 0) + (size - low.get(name, 0)) * share) for name, size in high.items()}
