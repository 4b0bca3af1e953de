"""controllers/notices.py without a window: each offer does what its own button says."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from PySide6.QtCore import QObject, Signal
from pytestqt.qtbot import QtBot

from kvdesk import log, paths
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
        self.n_reports = 0

    def show(self, path: Path) -> None:
        self.shown.append(path)

    def copy_report(self) -> None:
        self.n_reports += 1


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


@pytest.mark.logs("uncaught")
def test_what_nobody_caught_is_said_once_with_a_report_and_no_raw_text(
    desk: Desk, bridge: Bridge, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan and a slot once ended in "argument of type 'int' is not iterable", in front of a person or for nobody."""
    transcript, logs = desk.widget(Transcript), Logs()
    notices = NoticesController(transcript, bridge, logs)  # type: ignore[arg-type]
    said: list[str] = []
    monkeypatch.setattr(transcript, "add_notice", lambda text, *_: (said.append(text), len(said))[1])
    log.tell_of_uncaught(notices.unforeseen.emit)
    monkeypatch.setattr("sys.stderr", None)
    for _ in range(2):  # a timer's, say
        thread = threading.Thread(target=_uncaught_here)
        thread.start()
        thread.join()
    log.tell_of_uncaught(None)
    _uncaught_here()
    qtbot.waitUntil(lambda: bool(said))
    qtbot.wait(20)
    assert len(said) == 1
    assert "not foreseen" in said[0]
    assert "iterable" not in said[0]
    transcript.notice_action_triggered.emit(1)
    assert logs.n_reports == 1


def _uncaught_here() -> None:
    try:
        "x" in 1  # type: ignore[operator]  # noqa: B015
    except TypeError as error:
        log._uncaught(type(error), error, error.__traceback__)


def test_a_window_that_is_gone_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise RuntimeError("Internal C++ object already deleted.")

    monkeypatch.setattr("sys.stderr", None)
    monkeypatch.setattr("kvdesk.log._hear_of_uncaught", gone)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("logging.Logger.error", lambda *_args, **_more: None)
        _uncaught_here()
