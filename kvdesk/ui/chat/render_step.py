"""How much of a table is laid out before the window answers again: Qt takes about 50 microseconds a cell. UI thread."""

from __future__ import annotations

CELLS_A_STEP = 400
"""About 20 ms; a segment of a message that has more (up to segments.HARD_LIMIT of them) is a step of its own."""


class RenderStep:
    """Counts the cells of what is laid out in one go."""

    def __init__(self) -> None:
        self._cells = 0
        self.is_full = False
        """Whether something had to wait for the next step."""

    def takes(self, text: str) -> bool:
        """Whether ``text`` may be laid out now; the first always."""
        cells = text.count("|")
        if self._cells and self._cells + cells > CELLS_A_STEP:
            self.is_full = True
            return False
        self._cells += cells
        return True
