"""Imports what the plots need (numpy, pyqtgraph: about a second) after the first paint.

What has nothing to do with Qt is imported on a thread of its own. The rest is not: PySide keeps its types in a table that
the UI thread reads without the interpreter lock, so that a thread which brings new types in can crash it.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from collections.abc import Iterator

from PySide6.QtCore import QObject, QTimer, Signal

BEFORE = ("numpy", "xml.etree.ElementTree", "multiprocessing.connection", "pydoc", "importlib.resources", "colorsys")
"""What pyqtgraph imports that is not Qt."""
QT = ("PySide6.QtCore", "PySide6.QtGui", "PySide6.QtWidgets")
"""Modules whose every name pyqtgraph looks at, which makes PySide build the type behind it: half of the whole time."""
MODULES = ("kvdesk.ui.memory.plots.domain_plot", "kvdesk.ui.memory.plots.curve_plot")
SLICE_S = 0.008
"""How long types are built before the event loop has its turn."""


class PlotImport(QObject):
    """Starts once; ``finished`` comes also when an import failed: the next import of the same module then says why,
    where it can be shown."""

    finished = Signal()
    _prepared = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._thread: threading.Thread | None = None
        self._names: Iterator[tuple[object, str]] = iter(())
        self._prepared.connect(self._begin)

    def start(self) -> None:
        """Begin to import; does nothing if it has begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._prepare, name="plot import", daemon=True)
            self._thread.start()

    def _prepare(self) -> None:
        for name in BEFORE:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        with contextlib.suppress(RuntimeError):  # the window is gone already
            self._prepared.emit()

    def _begin(self) -> None:
        modules = [importlib.import_module(name) for name in QT]
        self._names = ((module, name) for module in modules for name in dir(module))
        self._build_types()

    def _build_types(self) -> None:
        until = time.perf_counter() + SLICE_S
        for module, name in self._names:
            getattr(module, name, None)
            if time.perf_counter() >= until:
                QTimer.singleShot(0, self, self._build_types)
                return
        for name in MODULES:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        self.finished.emit()
