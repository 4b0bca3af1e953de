"""Guards against faults of PySide6 itself that would take the window down."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import pytest
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from kvdesk.ui.shell.gc_on_ui_thread import Collector

CALLS = 1000


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="None is immortal: a lost reference cannot show or hurt")
def test_calls_without_a_result_keep_their_reference_to_none(qtbot: QtBot) -> None:
    """PySide6 6.12.0 loses one reference to None in every such call; after about 5,000 the process aborts."""
    label = QLabel()
    qtbot.addWidget(label)
    label.setText("first")
    before = sys.getrefcount(None)
    for _ in range(CALLS):
        label.setText("text")
    assert abs(sys.getrefcount(None) - before) < CALLS // 10


WHERE_IMPORTED = """
import sys, threading
from PySide6.QtCore import QCoreApplication
from kvdesk.ui.memory.plots.plot_import import PlotImport

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("PySide6", "pyqtgraph", "numpy"):
            where.setdefault(name.split(".")[0], set()).add(threading.current_thread().name)

where = {}
sys.meta_path.insert(0, Watch())
application = QCoreApplication([])
plots = PlotImport()
plots.finished.connect(application.quit)
plots.start()
application.exec()
assert "kvdesk.ui.memory.plots.domain_plot" in sys.modules
print(*(f"{name}:{thread}" for name, threads in where.items() for thread in threads), sep=",", end="")
"""


def test_nothing_of_qt_is_imported_on_another_thread() -> None:
    """PySide's table of types is read without the interpreter lock: a thread that adds to it crashes the window."""
    ran = subprocess.run([sys.executable, "-c", WHERE_IMPORTED], capture_output=True, text=True, check=True)
    found = set(ran.stdout.split(","))
    assert found - {"numpy:MainThread"} == {"PySide6:MainThread", "pyqtgraph:MainThread", "numpy:plot import"}


def test_garbage_is_collected_on_the_ui_thread_only(qtbot: QtBot) -> None:
    """Widgets that other threads free take the window down."""
    threads: set[str] = set()

    def note(phase: str, _info: object) -> None:
        if phase == "start":
            threads.add(threading.current_thread().name)

    def litter() -> None:
        for _ in range(5000):
            ring: list[object] = []
            ring.append(ring)

    def collected() -> bool:
        other = threading.Thread(target=litter, name="other")
        other.start()
        other.join()
        return bool(threads)

    collector = Collector()
    gc.callbacks.append(note)
    try:
        # Littered again at each look: what the tests before left is freed meanwhile, and that counts against the litter.
        qtbot.waitUntil(collected, timeout=5000)
    finally:
        gc.callbacks.remove(note)
        collector.close()
    assert threads == {"MainThread"}
    assert gc.isenabled()
