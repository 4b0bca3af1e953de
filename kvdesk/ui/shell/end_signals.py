"""Ctrl+C in the terminal, and the system's wish that the app ends, arrive as a Qt signal: the app ends as its user would. UI thread.

Python runs a signal's handler only between two of its own instructions, of which Qt's event loop has none; what wakes it is
the byte that Python writes into a socket (signal.set_wakeup_fd).
"""

from __future__ import annotations

import contextlib
import signal
import socket

from PySide6.QtCore import QObject, QSocketNotifier, Signal

HANDLED = tuple(
    found for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if (found := getattr(signal, name, None)) is not None
)


class EndSignals(QObject):
    """From its making to ``close`` the process is not ended by these signals. A second one of a kind ends it at once."""

    arrived = Signal(int)
    """The signal's number."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._ours, self._pythons = socket.socketpair()
        self._ours.setblocking(False)
        self._pythons.setblocking(False)
        self._notifier = QSocketNotifier(self._ours.fileno(), QSocketNotifier.Type.Read, self)
        self._notifier.activated.connect(self._on_activated)
        self._fd_before = signal.set_wakeup_fd(self._pythons.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _once) for number in HANDLED}

    def close(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        self._notifier.setEnabled(False)
        self._ours.close()
        self._pythons.close()

    def _on_activated(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in self._ours.recv(64):
                if number in HANDLED:
                    self.arrived.emit(number)


def _once(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)
