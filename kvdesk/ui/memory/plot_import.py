"""Imports what the plots need (numpy, pyqtgraph: about a second) on a thread of its own, after the first paint."""

from __future__ import annotations

import contextlib
import importlib
import threading

from PySide6.QtCore import QObject, Signal

MODULES = ("kvdesk.ui.memory.domain_plot", "kvdesk.ui.memory.curve_plot")


class PlotImport(QObject):
    """Starts once; ``finished`` comes on the thread that this object lives on, also when an import failed: the next
    import of the same module then says why, where it can be shown."""

    finished = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; harmless when begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="plot import", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        for name in MODULES:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        with contextlib.suppress(RuntimeError):  # the window is gone already
            self.finished.emit()
