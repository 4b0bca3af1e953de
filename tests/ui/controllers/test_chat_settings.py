"""controllers/chat_settings.py without a window: settings belong to a conversation and are kept with it."""

from __future__ import annotations

import dataclasses

from kvdesk.backend.conversations.conversation import new_message
from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.ui.chat.sampling_panel import SamplingPanel
from kvdesk.ui.controllers.chat_settings import ChatSettingsController
from kvdesk.ui.controllers.open_conversation import OpenConversation
from tests.ui.controllers.conftest import Desk


def test_what_is_chosen_is_the_open_conversations(desk: Desk, opened: OpenConversation) -> None:
    panel = desk.widget(SamplingPanel)
    settings = ChatSettingsController(opened, panel)
    chosen: list[SamplingSettings] = []
    settings.sampling_chosen.connect(chosen.append)
    opened.add(new_message("user", "hello", None, 1_780_000_000.0))
    cold = dataclasses.replace(opened.conversation.sampling, temperature=0.0)
    panel.changed.emit(cold)
    panel.overflow_changed.emit("rolling")
    assert chosen == [cold]
    assert (opened.conversation.sampling, opened.conversation.overflow) == (cold, "rolling")
    opened.show_new()
    assert opened.conversation.sampling != cold


def test_another_models_defaults_reach_an_empty_conversation_alone(
    desk: Desk, opened: OpenConversation, tiny: ModelFile
) -> None:
    settings = ChatSettingsController(opened, desk.widget(SamplingPanel))
    desk.follow(settings)
    warm = dataclasses.replace(opened.conversation.sampling, temperature=1.5)
    begun = dataclasses.replace(opened.conversation, sampling=warm)
    opened._make_new = lambda: begun
    desk.load(tiny)
    assert opened.conversation.sampling == warm
    opened.add(new_message("user", "hello", None, 1_780_000_000.0))
    begun = dataclasses.replace(begun, sampling=SamplingSettings(temperature=0.1))
    desk.load(tiny)
    assert opened.conversation.sampling == warm
