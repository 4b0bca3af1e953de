"""controllers/conversations.py without a window: what is kept is listed, and what fails is said."""

from __future__ import annotations

from pathlib import Path

from pytestqt.qtbot import QtBot

from kvdesk.backend.conversations.conversation import new_message
from kvdesk.ui.chat.conversation_list import ConversationList
from kvdesk.ui.controllers.conversations import ConversationsController
from kvdesk.ui.controllers.open_conversation import OpenConversation

NOW_S = 1_780_000_000.0


def said_by(keeper: ConversationsController) -> list[tuple[str, str]]:
    said: list[tuple[str, str]] = []
    keeper.noticed.connect(lambda text, kind: said.append((text, kind)))
    return said


def test_a_conversation_is_deleted_and_brought_back(
    opened: OpenConversation, keeper: ConversationsController, conversation_list: ConversationList, qtbot: QtBot
) -> None:
    def titles() -> list[str]:
        model = conversation_list._model
        return [model.index(n, 0).data() for n in range(model.rowCount())]

    opened.add(new_message("user", "hello", None, NOW_S))
    qtbot.waitUntil(lambda: any("hello" in title for title in titles()))
    gone: list[str] = []
    keeper.deleted.connect(gone.append)
    conversation_list.delete_requested.emit(opened.id)
    qtbot.waitUntil(lambda: not any("hello" in title for title in titles()))
    assert gone == [opened.id]
    back: list[str] = []
    keeper.restored.connect(back.append)
    conversation_list.undo_requested.emit(opened.id)
    qtbot.waitUntil(lambda: any("hello" in title for title in titles()))
    assert back == [opened.id]


def test_what_is_exported_can_be_imported(
    opened: OpenConversation, keeper: ConversationsController, qtbot: QtBot, tmp_path: Path
) -> None:
    said, restored = said_by(keeper), []
    keeper.restored.connect(restored.append)
    opened.add(new_message("user", "hello", None, NOW_S))
    target = tmp_path / "conversation.json"
    keeper.export(opened.id, "json", target)
    qtbot.waitUntil(lambda: bool(said))
    keeper.import_file(target)
    qtbot.waitUntil(lambda: bool(restored))
    read: list[str] = []
    keeper.read(restored[0], lambda _conversation, messages: read.extend(one.content for one in messages))
    qtbot.waitUntil(lambda: read == ["hello"])


def test_an_export_that_fails_names_the_file(
    opened: OpenConversation, keeper: ConversationsController, qtbot: QtBot, tmp_path: Path
) -> None:
    said = said_by(keeper)
    opened.add(new_message("user", "hello", None, NOW_S))
    missing = tmp_path / "no folder" / "conversation.json"
    keeper.export(opened.id, "json", missing)
    qtbot.waitUntil(lambda: bool(said))
    assert said[0][1] == "error"
    assert str(missing) in said[0][0]
