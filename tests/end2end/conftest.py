"""The real app with a home of its own, driven like a person would; nothing of it may be left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from PySide6.QtGui import QPalette
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from tests.end2end.person import Person

StartApp = Callable[..., Person]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The offscreen screen has no window manager and says so whenever a window's least size changes or it comes forward."""
    for item in items:
        item.add_marker(pytest.mark.qt_log_ignore(r"does not support (propagateSizeHints|raise)\(\)", extend=True))


@pytest.fixture
def start_app(home: Path, qtbot: QtBot, qapp: QApplication) -> Iterator[StartApp]:
    """Start the app in this test's home, as often as it likes; closed in the end, with no process of theirs left."""
    font, palette, sheet = qapp.font(), QPalette(qapp.palette()), qapp.styleSheet()
    before = _children()
    people: list[Person] = []

    def start(model: Path | None = None, **settings: object) -> Person:
        person = Person(qtbot, qapp, home, model, **settings)
        people.append(person)
        return person

    yield start
    for person in people:
        person.app.close()
        person.app.window.deleteLater()
    qapp.setFont(font)
    qapp.setPalette(palette)
    qapp.setStyleSheet(sheet)
    qtbot.waitUntil(lambda: _children() <= before, timeout=15_000)


def _children() -> set[int]:
    """Processes of this one, multiprocessing's own helper aside: it stays for the next spawn."""
    return {
        child.pid
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(child.cmdline())
    }
