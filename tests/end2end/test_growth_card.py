"""A reply that needs more memory than there is waits for a decision, and each way out is taken for real."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest

from kvdesk.backend.protocol.facts import StopReason, TurnStats
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings
from tests.end2end.conftest import StartApp
from tests.end2end.person import Person
from tests.tiny_models import write_tiny

SMALL = ContextSettings(n_ctx=2048, initial_ctx=256, n_threads=1)
LONG = SamplingSettings(temperature=0.0, max_tokens=400)
TOO_MUCH = 1 << 50
"""A margin under which nothing fits."""


@pytest.fixture
def waiting(start_app: StartApp, tmp_path: Path) -> Person:
    """Somebody whose reply waits at 256 tokens because nothing more fits."""
    person = start_app(write_tiny("llama", tmp_path), context=SMALL, sampling=LONG)
    person.window.settings_panel.margin_chosen.emit(TOO_MUCH)
    person.send("hello")
    person.wait_until(person.window.growth_card.isVisible)
    return person


def take(person: Person, key: str) -> TurnStats:
    """Click the choice and wait for the reply's figures."""
    finished: list[TurnStats] = []
    person.app.chat.reply_finished.connect(finished.append)
    QTest.mouseClick(person.window.growth_card.buttons[key], Qt.MouseButton.LeftButton)
    person.wait_until(lambda: finished)
    return finished[0]


def test_every_way_out_is_offered(waiting: Person) -> None:
    assert set(waiting.window.growth_card.buttons) == {"grow", "convert q8_0", "convert q4_0", "trim", "stop"}
    assert waiting.app.chat.is_replying
    assert take(waiting, "stop").stop_reason is StopReason.CONTEXT_FULL
    assert not waiting.window.growth_card.isVisible()
    assert waiting.messages[-1]


def test_growing_anyway_goes_on(waiting: Person) -> None:
    QTest.mouseClick(waiting.window.growth_card.buttons["grow"], Qt.MouseButton.LeftButton)
    waiting.wait_until(lambda: waiting.app.session.state.context and waiting.app.session.state.context.n_ctx == 512)
    waiting.wait_until(lambda: not waiting.app.chat.is_replying)
    assert waiting.messages[-1]


def test_forgetting_the_oldest_goes_on_in_the_same_cells(waiting: Person) -> None:
    waiting.window.growth_card.choice_taken.connect(lambda _: waiting.window.settings_panel.margin_chosen.emit(0))
    assert take(waiting, "trim").completion_tokens == 400
    waiting.wait_for_notice("no longer sees")


def test_converting_the_cache_is_done_and_said(waiting: Person) -> None:
    waiting.window.growth_card.choice_taken.connect(lambda _: waiting.window.settings_panel.margin_chosen.emit(0))
    assert take(waiting, "convert q8_0").completion_tokens == 400
    assert waiting.app.session.state.context
    assert waiting.app.session.state.context.settings.type_k == "q8_0"
    waiting.wait_for_notice("converted")


def test_at_the_context_length_the_reply_waits_for_a_longer_one(start_app: StartApp, tmp_path: Path) -> None:
    context = ContextSettings(n_ctx=256, n_threads=1, allocation="reserve")
    person = start_app(write_tiny("llama", tmp_path, n_ctx_train=2048), context=context, sampling=LONG)
    person.send("hello")
    person.wait_until(person.window.growth_card.isVisible)
    assert set(person.window.growth_card.buttons) == {"grow", "trim", "stop"}
    assert take(person, "grow").completion_tokens == 400
    assert person.app.session.state.context
    assert person.app.session.state.context.n_ctx_limit == 512
    assert person.app.session.state.settings.context.n_ctx == 512


def test_before_sending_the_composer_says_that_growing_does_not_fit(start_app: StartApp, tmp_path: Path) -> None:
    person = start_app(write_tiny("llama", tmp_path), context=SMALL, sampling=LONG)
    warning = person.window.composer.warning
    person.type("word " * 60)
    person.wait_until(lambda: person.window.composer._draft_tokens)
    assert not warning.isVisible()
    person.window.settings_panel.margin_chosen.emit(TOO_MUCH)
    person.wait_until(warning.isVisible)
    assert "has to grow to" in warning.sentence
    assert set(warning.buttons) == {"type_kv q8_0", "type_kv q4_0"}
    QTest.mouseClick(warning.buttons["type_kv q8_0"], Qt.MouseButton.LeftButton)
    person.wait_until(lambda: person.app.session.state.context.settings.type_k == "q8_0" and warning.isVisible())
    person.wait_until(lambda: set(warning.buttons) == {"type_kv q4_0"})
    person.window.settings_panel.margin_chosen.emit(0)
    person.wait_until(lambda: not warning.isVisible())
    assert "word word" in person.field.toPlainText()
