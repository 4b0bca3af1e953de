"""The window on the screen before anything stands behind it: preferences, theme, the window where it last stood.

Kept apart from ui/shell/application.py because what that imports (engine, planner, store, ...) would double the time to the first paint.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication

from kvdesk import __version__, paths
from kvdesk.backend import preferences
from kvdesk.backend.preferences import Preferences, WindowState
from kvdesk.ui.shell.main_window import MainWindow
from kvdesk.ui.widgets.style_sheet import style_sheet
from kvdesk.ui.widgets.theme import Theme, body_font, palette, theme_named


@dataclass(frozen=True)
class Opening:
    """The shown window and what it was made from; ``problem`` says what of the preferences could not be read."""

    window: MainWindow
    theme: Theme
    preferences: Preferences
    problem: str
    state: WindowState


def make_application() -> QApplication:
    """The QApplication, offscreen where there is no display."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    application = QApplication.instance() or QApplication(sys.argv[:1])
    assert isinstance(application, QApplication)
    application.setApplicationName("kvdesk")
    application.setApplicationVersion(__version__)
    application.setDesktopFileName("kvdesk")
    application.setStyle("Fusion")
    return application


def open_window(application: QApplication) -> Opening:
    """Show the window as it was left; nothing in it does anything yet."""
    chosen, problem = preferences.load_preferences(paths.config_dir() / preferences.FILE_NAME)
    state = preferences.load_window_state(paths.config_dir() / preferences.WINDOW_FILE_NAME)
    theme = current_theme(application, chosen.theme)
    application.setFont(body_font(chosen.zoom_percent))
    window = MainWindow(theme, chosen.theme)
    dress(
        application, theme, chosen.zoom_percent
    )  # after the building: a styled widget is polished again whenever it gets another parent
    window.restore(state)
    window.composer.show_closed(window.tr("No model is loaded."))
    window.show()
    window.composer.setFocus()
    return Opening(window, theme, chosen, problem, state)


def current_theme(application: QApplication, name: str) -> Theme:
    """The theme called ``name`` ("system", "light" or "dark") as the desktop is now."""
    return theme_named(name, application.styleHints().colorScheme() == Qt.ColorScheme.Dark)


def dress(application: QApplication, theme: Theme, zoom_percent: int) -> None:
    """Give every widget the theme's colours and text of ``zoom_percent`` of the desktop's size."""
    font = body_font(zoom_percent)
    application.setFont(font)
    application.setPalette(palette(theme))
    application.setStyleSheet(style_sheet(theme, font.pointSizeF()))
