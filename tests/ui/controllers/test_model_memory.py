"""controllers/model_memory.py without a window: a model comes back as it was last used."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pytestqt.qtbot import QtBot

from kvdesk.backend.engine.engine_event import EngineState, StateChanged
from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.preferences import Preferences
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.session.state import Choice
from kvdesk.ui.controllers.conversations import ConversationsController
from kvdesk.ui.controllers.model_memory import ModelMemoryController
from kvdesk.ui.panels.model_bar import ModelBar
from tests.ui.controllers.conftest import SETTINGS, Desk, loaded


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


def test_new_conversations_begin_with_what_the_file_recommends_until_something_is_chosen(
    desk: Desk, keeper: ConversationsController, tiny: ModelFile, home: Path
) -> None:
    memory = ModelMemoryController(desk.session, keeper, desk.widget(ModelBar), Preferences, ())
    desk.follow(memory)
    told: list[SamplingSettings] = []
    memory.default_sampling_changed.connect(told.append)
    assert memory.new_conversation().sampling == SamplingSettings()
    facts = dataclasses.replace(loaded(tiny).model, recommended_sampling=(("temperature", 0.6), ("top_k", 20)))
    desk.session.load(Choice(tiny, SETTINGS))
    desk.take(
        StateChanged(EngineState.EMPTY, EngineState.LOADING, 4242), dataclasses.replace(loaded(tiny), model=facts)
    )
    assert told == [SamplingSettings(temperature=0.6, top_k=20)]
    assert memory.new_conversation().sampling == told[0]
    memory.remember_sampling(SamplingSettings(top_k=1))
    assert memory.new_conversation().sampling == SamplingSettings(top_k=1)
