"""Conversations with values that no kvdesk wrote: a file is refused in words, a row of the database hides no other."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvdesk.backend.conversations.conversation import Conversation, Message, new_conversation, new_message
from kvdesk.backend.conversations.file_format import from_json, to_json, to_markdown
from kvdesk.backend.conversations.store import ConversationStore
from kvdesk.backend.protocol.facts import StopReason, TurnStats
from kvdesk.errors import UsageError
from kvdesk.ui.chat.conversation_rows import ConversationRows
from kvdesk.ui.chat.reply_stats import details, summary

NOW_S = 1_780_000_000.0
STATS = TurnStats(StopReason.EOS, 12, 3, 41, 310.0, 120.0, 18.2)
ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 2**70, -1e11, 6e11, 1e300, float("nan"), float("inf"), "", "x", "\ud800", "\x1b]52;c;QQ==\x07",
    [], [[]], {}, {"a": 1}, "2024-01-01",
)  # fmt: skip


def sample() -> tuple[Conversation, tuple[Message, ...]]:
    question = new_message("user", "What is a KV cache?", None, NOW_S)
    reply = new_message("assistant", "Keys and values.", question.id, NOW_S + 1, stats=STATS, thought="Hm.")
    conversation = new_conversation(NOW_S, title="Caches", active_leaf_id=reply.id)
    return conversation, (question, reply)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ConversationStore]:
    store = ConversationStore(tmp_path / "conversations.sqlite3")
    yield store
    store.close()


def shown(store: ConversationStore) -> int:
    """How many conversations the list shows, each opened and drawn in text."""
    rows = store.conversations()
    model = ConversationRows()
    model.show_rows(rows, NOW_S)
    for number in range(model.rowCount()):
        model.data(model.index(number, 0))
    for row in rows:
        messages = store.messages(row.id)
        to_markdown(store.conversation(row.id), messages)
        for message in messages:
            if message.stats:
                assert summary(message.stats)
                assert details(message.stats)
    return len(rows)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a JSON document, containers included."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield from leaves(one, (*path, key))


def with_odd_value(text: str, chance: random.Random) -> str:
    """``text`` with one value replaced, or cut, or with a byte changed."""
    document = json.loads(text)
    kind = chance.random()
    if kind < 0.1:
        return text[: chance.randrange(len(text))]
    if kind < 0.2:
        at = chance.randrange(len(text))
        return text[:at] + chr(chance.randrange(1, 0x2FF)) + text[at + 1 :]
    *way, last = chance.choice(list(leaves(document))[1:])
    holder = document
    for key in way:
        holder = holder[key]
    holder[last] = chance.choice(ODD)
    return json.dumps(document)


def test_two_hundred_odd_files_are_read_whole_or_refused_in_words(store: ConversationStore) -> None:
    chance, text = random.Random(12), to_json(*sample())
    kept = refused = 0
    for _ in range(200):
        try:
            conversation, messages = from_json(with_odd_value(text, chance))
        except UsageError:
            refused += 1
            continue
        store.keep(conversation, messages)
        kept += 1
        assert shown(store) == kept
    assert kept > 20
    assert refused > 20


@pytest.mark.parametrize("time_s", [-1e11, -1.0, 6e11, float("nan"), float("inf"), True, "yesterday"])
def test_a_time_that_no_calendar_has_is_refused(time_s: object) -> None:
    document = json.loads(to_json(*sample()))
    document["conversation"]["updated_s"] = time_s
    with pytest.raises(UsageError, match="updated_s"):
        from_json(json.dumps(document))


@pytest.mark.parametrize("value", ["many", None, -4, 2**70, True, [1]])
def test_figures_of_another_kind_are_refused(value: object) -> None:
    document = json.loads(to_json(*sample()))
    document["messages"][1]["stats"]["completion_tokens"] = value
    with pytest.raises(UsageError, match="stats"):
        from_json(json.dumps(document))


@pytest.mark.may_log("conversations")
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE conversations SET updated_s = -1e11 WHERE id = :id",
        "UPDATE conversations SET updated_s = 6e11, created_s = 9e99 WHERE id = :id",
        "UPDATE conversations SET sampling = 'no json' WHERE id = :id",
        "UPDATE conversations SET sampling = '[1]', engine_settings = '7', overflow = 'explode' WHERE id = :id",
        "UPDATE messages SET stats = 'no json' WHERE conversation_id = :id AND stats IS NOT NULL",
        """UPDATE messages SET stats = '{"stop_reason": "eos", "completion_tokens": "many"}' WHERE conversation_id = :id""",
        "UPDATE messages SET stats = '[]', created_s = -1e99 WHERE conversation_id = :id",
    ],
)
def test_a_damaged_row_hides_no_conversation(store: ConversationStore, tmp_path: Path, damage: str) -> None:
    ids = []
    for _ in range(3):
        conversation, messages = sample()
        store.keep(conversation, messages)
        ids.append(conversation.id)
    with sqlite3.connect(tmp_path / "conversations.sqlite3") as other:
        other.execute(damage, {"id": ids[1]})
    other.close()
    assert shown(store) == 3
    assert [message.content for message in store.messages(ids[1])] == ["What is a KV cache?", "Keys and values."]
