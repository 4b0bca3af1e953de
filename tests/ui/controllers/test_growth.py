"""controllers/growth.py without a window: when the question about a growth step is asked, answered and taken back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kvdesk.backend.protocol import messages as m
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
    models = SimpleNamespace(file=None, context=None, settings=None)
    controller = GrowthController(SimpleNamespace(send=sent.append), SimpleNamespace(), models, card)  # type: ignore[arg-type]
    controller.on_engine_event(WANTED)
    assert not card.isHidden()
    return SimpleNamespace(card=card, sent=sent, controller=controller)


def test_a_failure_of_something_else_leaves_the_question_open(asked: SimpleNamespace) -> None:
    asked.controller.on_engine_event(m.Failed("EngineError", "A count of tokens failed.", request_id=-3))
    asked.controller.on_engine_event(m.Failed("EngineError", "No request."))
    assert not asked.card.isHidden()
    asked.card.choice_taken.emit("convert q8_0")
    assert asked.sent == [m.GrowAnswer("convert", "q8_0", "q8_0")]
    assert asked.card.isHidden()


def test_the_end_of_the_reply_takes_the_question_back(asked: SimpleNamespace) -> None:
    asked.controller.on_engine_event(m.Failed("EngineError", "The reply failed.", request_id=WANTED.request_id))
    assert asked.card.isHidden()
    asked.card.choice_taken.emit("grow")
    assert asked.sent == []
