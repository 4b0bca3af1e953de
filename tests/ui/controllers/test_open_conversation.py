"""controllers/open_conversation.py without a window: when a conversation is kept, and what of it."""

from __future__ import annotations

from typing import Any

from pytestqt.qtbot import QtBot

from kvdesk.backend.conversations.conversation import ConversationRow, new_message
from kvdesk.backend.conversations.store_thread import StoreThread
from kvdesk.ui.controllers.open_conversation import OpenConversation

NOW_S = 1_780_000_000.0


def rows(store: StoreThread, qtbot: QtBot) -> tuple[ConversationRow, ...]:
    found: list[Any] = []
    store.rows("", found.append)
    qtbot.waitUntil(lambda: bool(found))
    return found[0]


def test_nothing_is_kept_of_what_nobody_touched(opened: OpenConversation, store: StoreThread, qtbot: QtBot) -> None:
    opened.set_draft("   ")
    opened.change(overflow="rolling")
    opened.leave()
    assert rows(store, qtbot) == ()
    assert opened.kept_id == ""


def test_a_typed_word_is_kept_and_said_once(opened: OpenConversation, store: StoreThread, qtbot: QtBot) -> None:
    kept: list[str] = []
    opened.kept.connect(kept.append)
    opened.set_draft("a word")
    opened.set_draft("a word more")
    assert kept == [opened.id]
    assert [row.id for row in rows(store, qtbot)] == [opened.id]


def test_a_conversation_in_which_nothing_was_said_goes_when_it_is_left(
    opened: OpenConversation, store: StoreThread, qtbot: QtBot
) -> None:
    opened.set_draft("a word")
    opened.set_draft("")
    opened.leave()
    assert rows(store, qtbot) == ()


def test_the_title_is_the_first_question(opened: OpenConversation) -> None:
    opened.add(new_message("user", "What is a KV cache?", None, NOW_S))
    opened.add(new_message("assistant", "Keys and values.", opened.last_id, NOW_S))
    opened.add(new_message("user", "Thanks", opened.last_id, NOW_S))
    assert opened.conversation.title == "What is a KV cache?"
    assert [turn.role for turn in opened.turns()] == ["user", "assistant", "user"]


def test_versions_are_gone_through_and_end_at_both_ends(opened: OpenConversation) -> None:
    first, second = (new_message("user", text, None, NOW_S + n) for n, text in enumerate(("one", "two")))
    opened.add(first)
    opened.cut_to(None)
    opened.add(second)
    assert [row.text for row in opened.rows()] == ["two"]
    assert not opened.choose_version(second.id, 1)
    assert opened.choose_version(second.id, -1)
    assert [row.text for row in opened.rows()] == ["one"]
    assert opened.rows()[0].n_versions == 2
    assert not opened.choose_version("unknown", 1)
