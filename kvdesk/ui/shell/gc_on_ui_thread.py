"""Python's garbage collector, on the UI thread only: it frees widgets, and Qt's may be freed nowhere else. UI thread."""

from __future__ import annotations

import gc

from PySide6.QtCore import QObject, QTimer

LOOK_MS = 1000


class Collector(QObject):
    """From its making to ``close`` no other thread collects; this one does when Python itself would have."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        gc.disable()
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._collect)
        self._timer.start(LOOK_MS)

    def close(self) -> None:
        """Give garbage collection back to Python."""
        self._timer.stop()
        gc.enable()

    def _collect(self) -> None:
        due = [
            n for n, (count, most) in enumerate(zip(gc.get_count(), gc.get_threshold(), strict=True)) if count > most
        ]
        if due:
            gc.collect(max(due))
