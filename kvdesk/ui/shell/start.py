"""Runs the desktop app: the window first, what stands behind it once that has been painted. UI thread."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication

from kvdesk import log, paths
from kvdesk.ui.shell.end_signals import EndSignals
from kvdesk.ui.shell.open_window import make_application, open_window

if TYPE_CHECKING:
    from kvdesk.ui.shell.application import App
    from kvdesk.ui.shell.main_window import MainWindow

PAINT_PATIENCE_MS = 1000
"""After this long without a first paint (a window that nobody sees has none) the rest is built all the same."""


def open_app(
    application: QApplication, model: Path | None, rpc_servers: tuple[str, ...], joined: Callable[[App], None]
) -> MainWindow:
    """Show the window and return it; ``joined`` is called with the app when all stands behind it. Quits where that fails."""
    opening = open_window(application)
    is_joined = False

    def join() -> None:
        nonlocal is_joined
        if is_joined:
            return
        is_joined = True
        try:
            from kvdesk.ui.shell.application import App

            app = App(application, opening, rpc_servers)
            app.start(model)
            joined(app)
        except BaseException:
            application.exit(1)
            raise

    opening.window.painted.connect(join)
    QTimer.singleShot(PAINT_PATIENCE_MS, opening.window, join)
    return opening.window


def run(
    model: str | None,
    *,
    rpc_servers: tuple[str, ...] = (),
    question: str | None = None,
    screenshot: str | None = None,
) -> int:
    """Open the window and stay until it is closed; with ``question`` ask it, print the answer, and leave.

    Returns the exit code; 128 and the signal's number where that ended it.
    """
    log.start(paths.log_dir())
    application = make_application()
    apps: list[App] = []
    exit_code: Callable[[], int] = int
    signals = EndSignals()
    ended_by = 0

    def end(number: int) -> None:
        nonlocal ended_by
        ended_by = number
        for app in apps:
            app.close(signal.Signals(number).name)
        application.quit()

    signals.arrived.connect(end)

    def joined(app: App) -> None:
        nonlocal exit_code
        apps.append(app)
        log.tell_of_uncaught(app.notices.unforeseen.emit)
        if question is not None:
            from kvdesk.ui.shell.demo import Demo

            exit_code = Demo(app, question, Path(screenshot or "kvdesk.png")).exit_code

    open_app(application, Path(model).absolute() if model else None, rpc_servers, joined)
    failed = application.exec()
    log.tell_of_uncaught(None)
    for app in apps:
        app.close()
    signals.close()
    logging.shutdown()
    return 128 + ended_by if ended_by else failed or exit_code()
