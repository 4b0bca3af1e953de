"""controllers/session_log.py without its window: what cannot be deleted is said."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from kvdesk.backend.session_log.recorder import Recorder
from kvdesk.ui.controllers.bridge import Bridge
from kvdesk.ui.controllers.session_log import SessionLogController
from kvdesk.ui.widgets.theme import LIGHT


def test_a_session_that_cannot_be_deleted_is_named(qtbot: QtBot, tmp_path: Path) -> None:
    stuck = tmp_path / "20260101-000000-000000-window-1.sqlite3"
    stuck.mkdir()  # a folder is not removed as a file is
    owner, bridge = QWidget(), Bridge()
    qtbot.addWidget(owner)
    recorder = Recorder(tmp_path / "own", "window", "0", {})
    logs = SessionLogController(tmp_path, recorder, bridge, owner, LIGHT)
    said: list[tuple[str, str]] = []
    logs.noticed.connect(lambda text, kind: said.append((text, kind)))
    logs._on_delete_requested(stuck)
    qtbot.waitUntil(lambda: bool(said))
    assert stuck.stem in said[0][0]
    assert said[0][1] == "error"
    recorder.close()
    bridge.close()
