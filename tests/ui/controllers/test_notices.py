"""controllers/notices.py without a window: each offer does what its own button says."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QObject, Signal

from kvdesk import paths
from kvdesk.backend.engine.engine_event import FellBack
from kvdesk.backend.session_log.reader import SessionSummary
from kvdesk.backend.settings import ModelSettings
from kvdesk.backend.system import cpu_fallback
from kvdesk.errors import EngineDied
from kvdesk.ui.chat.transcript import Transcript
from kvdesk.ui.controllers.bridge import Bridge
from kvdesk.ui.controllers.notices import NoticesController
from tests.ui.controllers.conftest import SETTINGS, Desk


class Logs(QObject):
    """Stands for the controller of the logs: which was shown."""

    unclean_found = Signal(SessionSummary)

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Path] = []

    def show(self, path: Path) -> None:
        self.shown.append(path)


def test_falling_back_is_remembered_and_its_button_forgets_it(
    desk: Desk, bridge: Bridge, home: Path, qtbot: object
) -> None:
    transcript, logs = desk.widget(Transcript), Logs()
    offered: list[int] = []
    notices = NoticesController(transcript, bridge, logs)  # type: ignore[arg-type]
    desk.follow(notices)
    desk.take(FellBack(SETTINGS, EngineDied("It crashed.")))
    assert not cpu_fallback.remembered(ModelSettings(), paths.fallback_file()).use_extra_bufts
    offered = list(notices._actions)
    transcript.notice_action_triggered.emit(offered[0] + 1000)  # somebody else's
    transcript.notice_action_triggered.emit(offered[0])
    qtbot.waitUntil(  # type: ignore[attr-defined]
        lambda: cpu_fallback.remembered(ModelSettings(), paths.fallback_file()).use_extra_bufts
    )
    assert logs.shown == []
