"""To how many cells a context grows next. Pure."""

from __future__ import annotations

from kvdesk.backend.settings import pad256

REPLY_TOKENS = 1024
"""Cells that a prompt's growth leaves for the reply at most, so that it need not grow again at once."""
PAUSE_S = 1.0
"""How long a step may take, where the machine's speed is known and a shorter step is faster."""
MEASURED_BYTES = 64 << 20
"""Steps of less take as long as llama.cpp needs for its graphs, not for bytes."""
LEAST_STEP = 1.25
"""Steps are at least that: with smaller ones a long reply would mostly be moved."""


class MoveSpeed:
    """How long steps take: making the new cells and moving those that are occupied, as the last step measured it."""

    def __init__(self) -> None:
        self._s_per_byte: float | None = None

    def note(self, n_bytes: float, seconds: float) -> None:
        """A step that made and moved ``n_bytes`` together took that long; small ones say little."""
        if n_bytes >= MEASURED_BYTES:
            self._s_per_byte = seconds / n_bytes

    def next_cells(self, now: int, needed: int, limit: int, kv_bytes: int) -> int:
        """Cells for ``needed`` tokens where there are ``now`` of ``kv_bytes``: twice as many, or as many more as can be made and moved
        within PAUSE_S, or what is needed where that is more; ``limit`` at most."""
        step = 2.0 * now
        if self._s_per_byte and kv_bytes:
            affordable = PAUSE_S / self._s_per_byte * now / kv_bytes
            step = min(step, max(LEAST_STEP * now, affordable - now))
        return min(limit, max(pad256(int(step)), pad256(needed)))
