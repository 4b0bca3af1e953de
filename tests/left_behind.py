"""What a test may not leave behind: windows, running timers, threads, child processes, warnings that nobody expected.

``tests/conftest.py`` asks after every test. What is on its way out is waited for; what stays fails the test that made it.
"""

from __future__ import annotations

import gc
import logging
import re
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import psutil
import shiboken6
from PySide6.QtCore import QCoreApplication, QEvent, QTimer
from PySide6.QtWidgets import QApplication, QWidget

PATIENCE_S = 10.0
"""How long threads and processes that were told to end may take on a busy machine."""
HELPERS = ("resource_tracker", "forkserver")
"""Processes of multiprocessing's own: they stay for the next spawn."""


class LeftBehind:
    """What was there before a test, to be held against what is there after it.

    ``shared`` are the kinds that fixtures of its module may have made on the way: they end with the module.
    """

    def __init__(self, shared: tuple[str, ...] = ()) -> None:
        self._shared = shared
        self._windows = {id(widget) for widget in _windows()}
        self._timers = set(_TIMERS.running())
        self._threads = set(threading.enumerate())
        self._children = set(_children())

    def sentences(self) -> list[str]:
        """One for each kind that was left; waits for what is ending."""
        kinds: dict[str, Callable[[], list[str]]] = {
            "windows": lambda: [_named(widget) for widget in _windows() if id(widget) not in self._windows],
            "timers": lambda: [_described(timer) for timer in _TIMERS.running() if timer not in self._timers],
            "threads": lambda: [one.name for one in threading.enumerate() if one not in self._threads],
            "processes": lambda: [_command(pid) for pid in _children() if pid not in self._children],
        }
        checked = {name: look for name, look in kinds.items() if name not in self._shared}
        return [
            f"left {name} behind: {', '.join(left)}" for name, look in checked.items() if (left := _patiently(look))
        ]


class Warnings(logging.Handler):
    """The warnings that were logged; each that a test expects is named by its mark ``logs("regular expression", ...)``,
    one that comes only sometimes by ``may_log``."""

    def __init__(self, expected: tuple[str, ...], possible: tuple[str, ...]) -> None:
        super().__init__(logging.WARNING)
        self._expected = expected
        self._possible = (*expected, *possible)
        self._texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Logging calls this, on any thread."""
        self._texts.append(f"{record.name}: {record.getMessage()}")

    def sentences(self) -> list[str]:
        """What was logged unexpectedly, and what was expected and never came."""
        unexpected = [text for text in self._texts if not any(re.search(one, text) for one in self._possible)]
        missing = [one for one in self._expected if not any(re.search(one, text) for text in self._texts)]
        return [f"logged {text!r}" for text in unexpected] + [f"never logged {one!r}" for one in missing]


class _Timers:
    """Every QTimer that was started, as long as it lives."""

    def __init__(self) -> None:
        self._started: weakref.WeakSet[QTimer] = weakref.WeakSet()
        start = QTimer.start

        def remembering(timer: QTimer, *arguments: Any) -> None:
            self._started.add(timer)
            start(timer, *arguments)

        QTimer.start = remembering  # type: ignore[method-assign]

    def running(self) -> list[QTimer]:
        """Those that will fire."""
        return [timer for timer in list(self._started) if shiboken6.isValid(timer) and timer.isActive()]


_TIMERS = _Timers()


def _windows() -> list[Any]:
    return QApplication.topLevelWidgets() if isinstance(QCoreApplication.instance(), QApplication) else []


def _named(window: QWidget) -> str:
    text = getattr(window, "text", getattr(window, "title", str))()
    return f"{type(window).__name__} {window.objectName() or window.accessibleName() or text}".strip()


def _described(timer: QTimer) -> str:
    return f"{timer.interval()} ms of {timer.parent()!r}"


def _children() -> list[int]:
    return [
        child.pid
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and not any(name in _command(child.pid) for name in HELPERS)
    ]


def _command(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return f"process {pid}"


def _patiently(look: Callable[[], list[str]]) -> list[str]:
    """What ``look`` finds once deferred deletions, garbage, and what is ending had their time."""
    left = look()
    if not left:
        return left
    if QCoreApplication.instance():
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    gc.collect()
    until = time.monotonic() + PATIENCE_S
    while (left := look()) and time.monotonic() < until:
        if QCoreApplication.instance():
            QCoreApplication.processEvents()
        threading.Event().wait(0.01)
    return left
