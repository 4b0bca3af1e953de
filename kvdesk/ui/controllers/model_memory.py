"""What each model was last used with, and what a model or a conversation begins with because of it. UI thread."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from kvdesk import paths
from kvdesk.backend.conversations import conversation
from kvdesk.backend.conversations.store import ConversationStore, ModelMemory
from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.preferences import Preferences
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.session.session import Session
from kvdesk.backend.session.session_event import Change
from kvdesk.backend.settings import EngineSettings
from kvdesk.backend.system import cpu_fallback
from kvdesk.ui.controllers.conversations import ConversationsController
from kvdesk.ui.panels.model_bar import ModelBar, RecentModel


class ModelMemoryController(QObject):
    """Reads it once at start; keeps what worked."""

    default_sampling_changed = Signal(SamplingSettings)
    """Another model is there: what it is sampled with where nothing was chosen."""

    def __init__(
        self,
        session: Session,
        keeper: ConversationsController,
        model_bar: ModelBar,
        preferences: Callable[[], Preferences],
        rpc_servers: tuple[str, ...],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._keeper = keeper
        self._model_bar = model_bar
        self._preferences = preferences
        self._rpc_servers = rpc_servers
        self._memories: dict[str, ModelMemory] = {}

    def read(self) -> None:
        """Begin: read what is kept."""
        self._keeper.keep(lambda store: store.model_memories(), self._on_read)

    def _on_read(self, memories: dict[str, ModelMemory]) -> None:
        self._memories = memories

    def new_conversation(self) -> conversation.Conversation:
        """An empty conversation with the sampling last chosen for the loaded model, else the default."""
        chosen, memory = self._preferences(), self._memories.get(self._model_path)
        return conversation.new_conversation(
            time.time(),
            sampling=(memory and memory.sampling) or self.default_sampling(),
            system_prompt=chosen.system_prompt,
            overflow=chosen.overflow,
        )

    def default_sampling(self) -> SamplingSettings:
        """The preferences' sampling, with what the loaded model's file recommends."""
        model = self._session.state.model
        return dataclasses.replace(self._preferences().sampling, **dict(model.recommended_sampling if model else ()))

    def settings_for(self, file: ModelFile) -> EngineSettings:
        """What a model is opened with: what it was last used with, else the defaults within its own length."""
        memory = self._memories.get(str(file.path))
        settings = (memory.engine_settings if memory else None) or self._preferences().engine
        context = settings.context
        if file.n_ctx_train and not (memory and memory.engine_settings):
            context = dataclasses.replace(context, n_ctx=min(context.n_ctx, file.n_ctx_train))
        model = cpu_fallback.remembered(settings.model, paths.fallback_file())
        rpc_servers = self._rpc_servers or self._preferences().rpc_servers
        if rpc_servers:
            model = dataclasses.replace(model, rpc_servers=rpc_servers)
        return EngineSettings(model, context)

    def on_change(self, change: Change) -> None:
        """Keep what a model was loaded with, or its context made with."""
        choice = change.now.in_force
        if isinstance(change.event, m.Loaded):
            self.default_sampling_changed.emit(self.default_sampling())
        if isinstance(change.event, m.Loaded | m.ContextMade) and choice.file:
            self._remember(str(choice.file.path), choice.settings)

    def remember_sampling(self, sampling: SamplingSettings) -> None:
        """New conversations with the loaded model begin with ``sampling``."""
        path, memory = self._model_path, ModelMemory(sampling=sampling)
        if path:
            self._memories[path] = dataclasses.replace(self._memories.get(path, memory), sampling=sampling)
            self._keeper.keep(lambda store: store.remember_model_settings(path, memory))

    def _remember(self, path: str, settings: EngineSettings) -> None:
        memory = ModelMemory(settings)
        self._memories[path] = dataclasses.replace(self._memories.get(path, memory), engine_settings=settings)

        def work(store: ConversationStore) -> list[RecentModel]:
            store.note_model_used(path, time.time())
            store.remember_model_settings(path, memory)
            return read_recent(store)

        self._keeper.keep(work, self._model_bar.show_recent)

    @property
    def _model_path(self) -> str:
        model = self._session.state.model
        return model.path if model else ""


def read_recent(store: ConversationStore) -> list[RecentModel]:
    """The models opened last, and whether their files are still there. Store's thread."""
    recent: list[RecentModel] = []
    for model in store.recent_models():
        is_there = Path(model.path).exists()
        recent.append(RecentModel(model.path, Path(model.path).name, "" if is_there else "gone", is_there))
    return recent
