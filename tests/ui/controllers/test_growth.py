"""controllers/growth.py without a window: when the question about a growth step is asked, answered and taken back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from PySide6.QtCore import Qt

from kvdesk.backend.protocol import messages as m
from kvdesk.backend.session.session import Session
from kvdesk.backend.session.session_event import Change, ReplyBegun
from kvdesk.backend.session.state import Reply
from kvdesk.backend.settings import ContextSettings
from kvdesk.ui.controllers.growth import GrowthController
from kvdesk.ui.panels.options_card import OptionsCard
from kvdesk.ui.widgets.theme import LIGHT

WANTED = m.GrowWanted(7, 511, 512, 1024, ContextSettings(), failed="The allocation failed.")


@pytest.fixture
def asked(qtbot: Any) -> SimpleNamespace:
    """A controller whose engine waits; ``sent`` are the answers."""
    card = OptionsCard(LIGHT)
    qtbot.addWidget(card)
    sent: list[m.Command] = []
    session = Session(dict)
    session.attach(SimpleNamespace(send=sent.append), SimpleNamespace())  # type: ignore[arg-type]
    controller = GrowthController(session, card)
    changes: list[Change] = []
    session.add_listener(changes.append)

    def take(event: Any) -> None:
        session.take(event)
        while changes:
            controller.on_change(changes.pop(0))

    take(ReplyBegun(Reply(WANTED.request_id, "ask")))
    take(WANTED)
    assert not card.isHidden()
    return SimpleNamespace(card=card, sent=sent, take=take, session=session)


def test_a_failure_of_something_else_leaves_the_question_open(asked: SimpleNamespace, qtbot: Any) -> None:
    asked.take(m.Failed("EngineError", "A count of tokens failed.", request_id=-3))
    asked.take(m.Failed("EngineError", "No request."))
    assert not asked.card.isHidden()
    qtbot.mouseClick(asked.card.buttons["convert q8_0"], Qt.MouseButton.LeftButton)
    assert asked.sent == [m.GrowAnswer("convert", "q8_0", "q8_0")]
    assert asked.card.isHidden()


def test_the_end_of_the_reply_takes_the_question_back(asked: SimpleNamespace) -> None:
    asked.take(m.Failed("EngineError", "The reply failed.", request_id=WANTED.request_id))
    assert asked.card.isHidden()
    asked.session.answer_growth(m.GrowAnswer("grow"))
    assert asked.sent == []
