"""What the Help menu shows: every key of the window, and what kvdesk is made of. UI thread."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version

from PySide6.QtCore import QCoreApplication, qVersion
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QDialog, QDialogButtonBox, QGridLayout, QMenu, QVBoxLayout, QWidget

from kvdesk import __version__
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.scroll_column import ScrollColumn
from kvdesk.ui.widgets.theme import set_role

PARTS = (
    ("llama.cpp", "llama-cpp-python", "MIT"),
    ("PySide6", "PySide6-Essentials", "LGPL-3.0"),
    ("pyqtgraph", "pyqtgraph", "MIT"),
    ("NumPy", "numpy", "BSD-3-Clause"),
    ("psutil", "psutil", "BSD-3-Clause"),
)
"""Name, distribution, licence of what kvdesk is built on."""


def about_words() -> tuple[str, str]:
    """A title and a text: versions and licences."""
    lines = [
        _tr("Chat with local models, and see what they take of your memory before and while they take it."),
        "",
        _tr("kvdesk {0}, MIT licence").format(__version__),
    ]
    for name, distribution, licence in PARTS:
        try:
            lines.append(f"{name} ({distribution}) {version(distribution)}, {licence}")
        except PackageNotFoundError:  # packaged without its metadata
            lines.append(f"{name}, {licence}")
    lines.append(f"Qt {qVersion()}, Python {platform.python_version()}, {platform.platform(terse=True)}")
    return f"kvdesk {__version__}", "\n".join(lines)


def shortcuts(menus: Iterable[QMenu]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of (what it does, its keys): those of the menus, then those that a field or list has of its own."""
    groups = [(_plain(menu.title()), list(_keys_of(menu))) for menu in menus]
    own = [
        (_tr("Send the message"), "Enter"),
        (_tr("New line in the message"), "Shift+Enter"),
        (_tr("Close what is open, then stop the reply"), "Esc"),
        (_tr("Beginning or end of the conversation"), "Home, End"),
        (_tr("Rename the conversation"), "F2"),
        (_tr("Delete the conversation (can be undone)"), "Del"),
        (_tr("Zoom"), "Ctrl+" + _tr("mouse wheel")),
    ]
    return [*((title, keys) for title, keys in groups if keys), (_tr("Writing and reading"), own)]


def show_shortcuts(window: QWidget, menus: Iterable[QMenu]) -> QDialog:
    """Open the list of keys over ``window``."""
    dialog = QDialog(window)
    dialog.setWindowTitle(_tr("Keyboard shortcuts"))
    page = QWidget()
    grid = QGridLayout(page)
    grid.setHorizontalSpacing(32)
    grid.setVerticalSpacing(4)
    grid.setColumnStretch(0, 1)
    row = 0
    for title, keys in shortcuts(menus):
        heading = PlainLabel(title)
        set_role(heading, "heading")
        grid.addWidget(heading, row, 0, 1, 2)
        for words, key in keys:
            row += 1
            grid.addWidget(PlainLabel(words), row, 0)
            label = PlainLabel(key)
            set_role(label, "muted")
            grid.addWidget(label, row, 1)
        row += 1
        grid.setRowMinimumHeight(row, 8)
        row += 1
    buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
    buttons.rejected.connect(dialog.reject)
    column = QVBoxLayout(dialog)
    column.addWidget(ScrollColumn(page, dialog.windowTitle()), 1)
    column.addWidget(buttons)
    hint = page.sizeHint()
    dialog.resize(max(420, hint.width() + 60), min(hint.height() + 80, round(window.height() * 0.9)))
    dialog.open()
    return dialog


def _keys_of(menu: QMenu) -> Iterator[tuple[str, str]]:
    for action in menu.actions():
        inner = action.menu()
        if isinstance(inner, QMenu):
            yield from _keys_of(inner)
        elif not action.shortcut().isEmpty():
            yield _plain(action.text()), _native(action)


def _native(action: QAction) -> str:
    return action.shortcut().toString(QKeySequence.SequenceFormat.NativeText)


def _plain(text: str) -> str:
    return text.replace("&", "").removesuffix("...")


def _tr(text: str) -> str:
    return QCoreApplication.translate("Help", text)
