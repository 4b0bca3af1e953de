"""controllers/model_memory.py without a window: a model comes back as it was last used."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pytestqt.qtbot import QtBot

from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.preferences import Preferences
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.ui.controllers.conversations import ConversationsController
from kvdesk.ui.controllers.model_memory import ModelMemoryController
from kvdesk.ui.panels.model_bar import ModelBar
from tests.ui.controllers.conftest import SETTINGS, Desk


def test_settings_and_sampling_come_back_with_the_model(
    desk: Desk, keeper: ConversationsController, tiny: ModelFile, qtbot: QtBot, home: Path
) -> None:
    def fresh() -> ModelMemoryController:
        return ModelMemoryController(desk.session, keeper, desk.widget(ModelBar), Preferences, ())

    memory, sampling = fresh(), SamplingSettings(temperature=0.25)
    desk.follow(memory)
    assert memory.settings_for(tiny) != SETTINGS
    desk.load(tiny)
    memory.remember_sampling(sampling)
    again = fresh()
    again.read()
    qtbot.waitUntil(lambda: again.settings_for(tiny) == SETTINGS)
    assert again.new_conversation().sampling == sampling


def test_a_new_model_gets_no_more_context_than_it_was_trained_with(
    desk: Desk, keeper: ConversationsController, tiny: ModelFile, home: Path
) -> None:
    memory = ModelMemoryController(desk.session, keeper, desk.widget(ModelBar), Preferences, ("host:1",))
    short = dataclasses.replace(tiny, n_ctx_train=300)
    settings = memory.settings_for(short)
    assert settings.context.n_ctx == 300
    assert settings.model.rpc_servers == ("host:1",)
