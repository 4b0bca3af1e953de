"""A session without processes for tests of controllers: real state, store and widgets; what engine and planner are asked is listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from kvdesk.backend.conversations.conversation import Conversation, new_conversation
from kvdesk.backend.conversations.store_thread import StoreThread
from kvdesk.backend.engine.engine_event import EngineState, StateChanged
from kvdesk.backend.gguf.model_file import ModelFile, read_model_file
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ContextFacts, KvState, ModelFacts
from kvdesk.backend.session.session import Session
from kvdesk.backend.session.session_event import Change
from kvdesk.backend.session.state import Choice
from kvdesk.backend.settings import ContextSettings, EngineSettings
from kvdesk.ui.chat.conversation_list import ConversationList
from kvdesk.ui.controllers.bridge import Bridge
from kvdesk.ui.controllers.conversations import ConversationsController
from kvdesk.ui.controllers.open_conversation import OpenConversation
from kvdesk.ui.widgets.theme import LIGHT, Theme
from tests.tiny_models import write_tiny

SETTINGS = EngineSettings(context=ContextSettings(n_ctx=512))
Listener = Callable[[Change], None]
W = TypeVar("W", bound=QWidget)


class Asked:
    """Stands for engine and planner: every call is kept as (name, arguments), every question has a number."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.history = ()

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any, **_options: Any) -> int:
            self.calls.append((name, *arguments))
            return len(self.calls)

        return call

    def number_of(self, name: str, *arguments: Any) -> int:
        """The number of the newest call of ``name`` that ends with these arguments."""
        ends = [call[1:][len(call) - 1 - len(arguments) :] if arguments else () for call in self.calls]
        return max(n for n, call in enumerate(self.calls, 1) if call[0] == name and ends[n - 1] == arguments)

    def sent(self, kind: type) -> list[Any]:
        """The commands of this kind that were sent."""
        return [call[1] for call in self.calls if call[0] == "send" and isinstance(call[1], kind)]


class Desk:
    """The session, what was asked of its services, and what a controller said."""

    def __init__(self, add_widget: Callable[[QWidget], None]) -> None:
        self.owner = QWidget()
        add_widget(self.owner)
        self.asked, self.planner = Asked(), Asked()
        self.said: list[tuple[str, str]] = []
        self.listeners: list[Listener] = []
        self._changes: list[Change] = []
        self.session = Session(dict)
        self.session.attach(self.asked, self.planner)  # type: ignore[arg-type]
        self.session.add_listener(self._changes.append)

    def widget(self, make: Callable[[Theme], W]) -> W:
        """A widget of this kind, and what it keeps beside itself, which go with the test."""
        widget = make(LIGHT)
        for one in (widget, getattr(widget, "page", None), getattr(widget, "drawer", None)):
            if isinstance(one, QWidget):
                one.setParent(self.owner)
        return widget

    def follow(self, *controllers: Any) -> None:
        """Have controllers hear of changes, and keep what they say."""
        for controller in controllers:
            self.listeners.append(controller.on_change)
            if hasattr(controller, "noticed"):
                controller.noticed.connect(lambda text, kind: self.said.append((text, kind)))

    def tell(self) -> None:
        """Tell the controllers of what has happened, as the bridge does: later, in order."""
        while self._changes:
            change = self._changes.pop(0)
            for listener in self.listeners:
                listener(change)

    def take(self, *events: Any) -> None:
        """Let engine or planner say something."""
        for event in events:
            self.session.take(event)
            self.tell()

    def load(self, file: ModelFile, settings: EngineSettings = SETTINGS, cells_used: int = 0) -> None:
        """Have a model loaded."""
        self.session.load(Choice(file, settings))
        self.take(StateChanged(EngineState.EMPTY, EngineState.LOADING, 4242), loaded(file, settings, cells_used))
        self.take(StateChanged(EngineState.LOADING, EngineState.READY, 4242))


def context(settings: EngineSettings = SETTINGS, cells_used: int = 0) -> ContextFacts:
    """A context whose cells are all there."""
    n_ctx = settings.context.n_ctx
    return ContextFacts(
        settings.context, n_ctx, n_ctx, True, (), (), KvState(cells_used, n_ctx, 0, 4096), "new", 0, 1.0
    )


def loaded(file: ModelFile, settings: EngineSettings = SETTINGS, cells_used: int = 0) -> m.Loaded:
    """What the engine says of a model that is there."""
    facts = ModelFacts(str(file.path), file.name, "llama", "", 1, 1, 1, 512, 32, has_chat_template=True)
    return m.Loaded(facts, context(settings, cells_used), 1.0)


@pytest.fixture
def desk(qtbot: QtBot) -> Desk:
    return Desk(qtbot.addWidget)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return read_model_file(write_tiny("llama", tmp_path_factory.mktemp("models")))


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    bridge = Bridge()
    yield bridge
    bridge.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreThread]:
    store = StoreThread(tmp_path / "conversations.sqlite3", retry_s=0.01)
    yield store
    store.close()


@pytest.fixture
def conversation_list(qtbot: QtBot) -> ConversationList:
    conversation_list = ConversationList(LIGHT)
    qtbot.addWidget(conversation_list)
    return conversation_list


@pytest.fixture
def keeper(store: StoreThread, bridge: Bridge, conversation_list: ConversationList) -> ConversationsController:
    return ConversationsController(store, bridge, conversation_list, lambda _: 0)


def begun() -> Conversation:
    """What every new conversation begins with."""
    return new_conversation(1_780_000_000.0)


@pytest.fixture
def opened(keeper: ConversationsController) -> OpenConversation:
    return OpenConversation(keeper, begun)
