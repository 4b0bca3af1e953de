"""controllers/overflow_warning.py without a window: a conversation too long for its context is said before it is sent."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.ui.chat.composer import Composer
from kvdesk.ui.chat.sampling_panel import SamplingPanel
from kvdesk.ui.controllers.chat_settings import ChatSettingsController
from kvdesk.ui.controllers.open_conversation import OpenConversation
from kvdesk.ui.controllers.overflow_warning import OverflowWarningController
from kvdesk.ui.controllers.token_counts import TokenCounts
from kvdesk.ui.panels.options_card import ForgetOldest, PricedChoice
from tests.ui.controllers.conftest import Desk


@pytest.fixture
def shown(desk: Desk, opened: OpenConversation, tiny: ModelFile) -> SimpleNamespace:
    composer = desk.widget(Composer)
    counts = TokenCounts(desk.session)
    settings = ChatSettingsController(opened, desk.widget(SamplingPanel))
    applied = []
    models = SimpleNamespace(apply=applied.append)
    limits = OverflowWarningController(desk.session, composer, opened, counts, settings, models)  # type: ignore[arg-type]
    desk.follow(limits)
    desk.load(tiny)
    return SimpleNamespace(desk=desk, composer=composer, counts=counts, opened=opened, applied=applied)


def warning(composer: Composer) -> str:
    return "" if composer.warning.isHidden() else composer.warning.sentence


def test_a_conversation_within_the_context_is_not_warned_of(shown: SimpleNamespace) -> None:
    shown.counts.counted.emit(100, 20)
    assert warning(shown.composer) == ""


def test_one_that_is_too_long_offers_ways_out(shown: SimpleNamespace) -> None:
    shown.counts.counted.emit(500, 100)
    assert "600" in warning(shown.composer)
    shown.composer.option_chosen.emit(PricedChoice("forget", "Forget", None, 0, answer=ForgetOldest()))
    assert shown.opened.conversation.overflow == "rolling"


def test_an_empty_draft_warns_of_nothing(shown: SimpleNamespace) -> None:
    shown.counts.counted.emit(600, 50)
    shown.counts.counted.emit(600, 0)
    assert warning(shown.composer) == ""


def test_a_dismissed_warning_stays_away_until_more_is_typed(shown: SimpleNamespace) -> None:
    shown.counts.counted.emit(300, 10)
    assert warning(shown.composer)
    shown.composer.warning.dismiss()
    shown.counts.counted.emit(300, 10)
    assert warning(shown.composer) == ""
    shown.counts.counted.emit(300, 11)
    assert warning(shown.composer)
