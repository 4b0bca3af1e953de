"""controllers/chat.py without a window: what is sent, what becomes of a reply, and that nothing of it is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from kvdesk.backend.conversations.conversation import new_conversation
from kvdesk.backend.conversations.store_thread import StoreThread
from kvdesk.backend.conversations.unsaved import Unsaved
from kvdesk.backend.engine.engine_event import Died, EngineState
from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ChatTurn, KvState, StopReason, TurnStats
from kvdesk.errors import EngineDied
from kvdesk.ui.chat.composer import Composer
from kvdesk.ui.chat.conversation_list import ConversationList
from kvdesk.ui.chat.transcript import Transcript
from kvdesk.ui.controllers.chat import ChatController
from kvdesk.ui.controllers.conversations import ConversationsController
from kvdesk.ui.controllers.open_conversation import OpenConversation
from tests.ui.controllers.conftest import Desk

STATS = TurnStats(StopReason.EOS, 5, 0, 2, 10.0, 100.0, 20.0)


@dataclass
class Chat:
    """The controller and what it draws into."""

    desk: Desk
    controller: ChatController
    opened: OpenConversation
    transcript: Transcript
    composer: Composer
    stored: Callable[[], Unsaved]

    def ask(self, text: str) -> m.Generate:
        """Send ``text``; the command that the engine got."""
        self.controller.send(text)
        self.desk.tell()
        return self.desk.asked.sent(m.Generate)[-1]

    def write(self, *texts: str, thought: str = "") -> None:
        """Let the engine write more of the reply to the newest request."""
        request = self.desk.asked.sent(m.Generate)[-1].request_id
        for text in texts:
            self.desk.take(m.TextGenerated(request, text, 1, 10.0, thought))

    def finish(self) -> None:
        """Let the newest reply end."""
        self.desk.take(m.TurnFinished(self.desk.asked.sent(m.Generate)[-1].request_id, STATS, KvState(7, 512, 0, 0)))


@pytest.fixture
def chat(
    desk: Desk,
    qtbot: QtBot,
    store: StoreThread,
    keeper: ConversationsController,
    opened: OpenConversation,
    conversation_list: ConversationList,
    tiny: ModelFile,
) -> Chat:
    transcript, composer = desk.widget(Transcript), desk.widget(Composer)
    controller = ChatController(desk.session, keeper, opened, transcript, composer, conversation_list, desk.owner)
    desk.follow(controller)
    desk.load(tiny)

    def stored() -> Unsaved:
        found: list[Unsaved] = []
        store.read(opened.id, found.append)  # after all that was handed to the store before
        qtbot.waitUntil(lambda: bool(found))
        return found[0]

    return Chat(desk, controller, opened, transcript, composer, stored)


def test_a_reply_is_streamed_kept_and_counted(chat: Chat) -> None:
    command = chat.ask("hello")
    assert command.turns == (ChatTurn("user", "hello"),)
    chat.write("Hi", " there", thought="hm")
    chat.finish()
    assert chat.transcript.text_of(chat.transcript.message_ids[-1]) == "Hi there"
    assert not chat.controller.is_replying
    kept = chat.stored().messages
    assert [(one.role, one.content, one.thought) for one in kept] == [
        ("user", "hello", ""),
        ("assistant", "Hi there", "hmhm"),
    ]
    assert kept[-1].is_complete
    assert chat.desk.asked.sent(m.CountTokens)[-2].turns[-1].content == "Hi there"


def test_text_of_an_older_request_is_not_taken(chat: Chat) -> None:
    command = chat.ask("hello")
    chat.desk.take(m.TextGenerated(command.request_id - 1, "from before", 1, 1.0))
    chat.write("mine")
    chat.finish()
    assert chat.stored().messages[-1].content == "mine"


def test_a_death_keeps_what_was_written(chat: Chat) -> None:
    chat.ask("hello")
    chat.write("half")
    chat.desk.take(Died(EngineDied("The engine was killed."), EngineState.GENERATING, 1, Path("engine.log")))
    last = chat.stored().messages[-1]
    assert (last.content, last.stop_note, last.is_complete) == ("half", "The engine was killed.", False)
    assert not chat.controller.can_send


def test_without_a_model_what_is_typed_stays(chat: Chat) -> None:
    chat.desk.take(m.Unloaded())
    chat.controller.send("later")
    assert chat.composer.draft() == "later"
    assert not chat.desk.asked.sent(m.Generate)


def test_an_edit_is_a_new_branch_and_the_old_one_stays(chat: Chat) -> None:
    chat.ask("first")
    chat.write("one")
    chat.finish()
    chat.transcript.message_edited.emit(chat.transcript.message_ids[0], "second")
    chat.desk.tell()
    assert chat.desk.asked.sent(m.Generate)[-1].turns == (ChatTurn("user", "second"),)
    chat.write("two")
    chat.finish()
    assert {one.content for one in chat.stored().messages} == {"first", "one", "second", "two"}
    chat.transcript.version_requested.emit(chat.transcript.message_ids[0], -1)
    assert [chat.transcript.text_of(one) for one in chat.transcript.message_ids] == ["first", "one"]


def test_a_reply_goes_on_in_its_copy_when_the_conversation_was_deleted_elsewhere(chat: Chat) -> None:
    chat.ask("hello")
    chat.write("Hi")
    old_id = chat.opened.id
    new_id = new_conversation(0.0).id
    chat.controller._keeper.moved.emit(old_id, new_id)
    chat.write(" there")
    chat.finish()
    assert chat.opened.id == new_id
    assert chat.stored().messages[-1].content == "Hi there"
    assert chat.desk.said[0][1] == "warning"


def test_at_the_end_what_is_typed_and_written_is_kept(chat: Chat) -> None:
    chat.ask("hello")
    chat.write("half a")
    chat.composer.set_draft("and then")
    chat.controller.keep_all()
    whole = chat.stored()
    assert whole.conversation.draft == "and then"
    assert (whole.messages[-1].content, whole.messages[-1].is_complete) == ("half a", False)


def test_the_context_forgetting_is_said(chat: Chat) -> None:
    command = chat.ask("hello")
    chat.desk.take(m.Forgot(command.request_id, 3, 0))
    assert "3 of the oldest messages" in chat.desk.said[-1][0]
    chat.finish()
