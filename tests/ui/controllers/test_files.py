"""controllers/files.py: what is dropped reaches the composer or the model, and what cannot be read is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from kvdesk.ui.controllers.bridge import Bridge
from kvdesk.ui.controllers.conversations import ConversationsController
from kvdesk.ui.controllers.files import FilesController
from kvdesk.ui.controllers.open_conversation import OpenConversation
from kvdesk.ui.shell.main_window import MainWindow
from kvdesk.ui.widgets.theme import LIGHT


@pytest.fixture
def files(
    qtbot: QtBot, bridge: Bridge, keeper: ConversationsController, opened: OpenConversation
) -> tuple[FilesController, MainWindow]:
    window = MainWindow(LIGHT, "light")
    qtbot.addWidget(window, before_close_func=lambda window: window.really_close())
    return FilesController(window, bridge, keeper, opened, window), window


def test_a_dropped_text_is_quoted_in_the_composer(
    files: tuple[FilesController, MainWindow], tmp_path: Path, qtbot: QtBot
) -> None:
    _, window = files
    (tmp_path / "notes.txt").write_text("two plus two", "utf-8")
    window.composer.text_files_dropped.emit([str(tmp_path / "notes.txt")])
    qtbot.waitUntil(lambda: "two plus two" in window.composer.draft())
    assert "notes.txt" in window.composer.draft()


def test_a_file_that_is_no_text_is_said(
    files: tuple[FilesController, MainWindow], tmp_path: Path, qtbot: QtBot
) -> None:
    controller, window = files
    said: list[str] = []
    controller.noticed.connect(lambda text, _kind: said.append(text))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\x00\x00")
    window.composer.text_files_dropped.emit([str(tmp_path / "picture.png")])
    qtbot.waitUntil(lambda: bool(said))
    assert "picture.png" in said[0]
    assert window.composer.draft() == ""


def test_a_dropped_model_is_to_be_opened(files: tuple[FilesController, MainWindow]) -> None:
    controller, window = files
    chosen: list[Path] = []
    controller.model_chosen.connect(chosen.append)
    window.model_dropped.emit("/models/a.gguf")
    window.composer.model_dropped.emit("/models/b.gguf")
    assert chosen == [Path("/models/a.gguf"), Path("/models/b.gguf")]
