"""Whatever the store does, nothing that was said is missing in the end, and it is in order."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import random
import sqlite3
import time
from pathlib import Path

import pytest

from kvdesk.backend.conversations import rescue, store
from kvdesk.backend.conversations.conversation import new_conversation, new_message
from kvdesk.backend.conversations.store import ConversationStore
from kvdesk.backend.conversations.store_thread import StoreThread
from kvdesk.backend.conversations.unsaved import SaveState, Unsaved, UnsavedChanges
from kvdesk.errors import ConversationGone, StoreError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "conversations.sqlite3"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A lock is noticed at once, not after five seconds."""
    monkeypatch.setattr(store, "BUSY_TIMEOUT_S", 0.0)


@contextlib.contextmanager
def locked(path):
    """Another program writes to the database, for as long as it likes."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def pragma(opened, fault, cure):
    opened._connection.execute(f"PRAGMA {fault}")
    yield
    opened._connection.execute(f"PRAGMA {cure}")


FAULTS = {
    "none": lambda opened, path: contextlib.nullcontext(),
    "full": lambda opened, path: pragma(opened, "max_page_count = 1", "max_page_count = 1000000"),
    "locked": lambda opened, path: locked(path),
    "read-only": lambda opened, path: pragma(opened, "query_only = ON", "query_only = OFF"),
}
"""Real failures of SQLite: what each does, for as long as it lasts."""


class Chats:
    """Somebody who talks in several conversations at once, and remembers what was said."""

    def __init__(self, seed, unsaved):
        self.random = random.Random(seed)
        self.unsaved = unsaved
        self.heads = {}
        self.said = {}

    def act(self):
        kind = self.random.choice(["new", "say", "say", "say", "write on", "draft"])
        if kind == "new" or not self.heads:
            head = new_conversation(1.0, title=f"Conversation {len(self.heads)}")
            self.said[head.id] = {}
        else:
            head = self.random.choice(list(self.heads.values()))
        said, changed = self.said[head.id], ()
        if kind == "write on" and said:
            message = said[head.active_leaf_id]
            changed = (dataclasses.replace(message, content=message.content + " and on " * 50),)
        elif kind == "draft":
            head = dataclasses.replace(head, draft=f"draft {self.random.random()}")
        else:
            role = ("user", "assistant")[len(said) % 2]
            changed = (new_message(role, f"text {self.random.random()}" * 20, head.active_leaf_id, 2.0),)
            head = dataclasses.replace(head, active_leaf_id=changed[0].id)
        said.update((message.id, message) for message in changed)
        self.heads[head.id] = head
        self.unsaved.add(head, changed)


@pytest.mark.parametrize("seed", range(5))
def test_a_hundred_random_failures_of_the_store_lose_nothing(path, seed):
    """Five seeds: 500 and more failures in all."""
    unsaved = UnsavedChanges(on_moved=lambda *_: pytest.fail("nothing was deleted"))
    chats, n_failed = Chats(seed, unsaved), 0
    with ConversationStore(path) as opened:
        while n_failed < 100:
            fault = chats.random.choice(list(FAULTS))
            with FAULTS[fault](opened, path):
                for _ in range(chats.random.randint(1, 4)):
                    chats.act()
                    failed = bool(unsaved.write(opened))
                    n_failed += failed
                    assert bool(unsaved) == failed
                    assert fault == "full" or failed == (fault != "none"), "a full disk may have free pages left"
        assert unsaved.write(opened) == ""
        assert not unsaved
    with ConversationStore(path) as again:
        assert {row.id for row in again.conversations()} == set(chats.heads)
        for conversation_id, head in chats.heads.items():
            assert again.conversation(conversation_id) == head
            assert again.messages(conversation_id) == tuple(chats.said[conversation_id].values())


def test_what_waits_is_read_as_if_it_were_stored(path):
    unsaved = UnsavedChanges(on_moved=print)
    question = new_message("user", "Why is the sky blue?", None, 1.0)
    kept = new_conversation(1.0, title="Kept", active_leaf_id=question.id)
    with ConversationStore(path) as opened:
        opened.keep(kept, [question])
        reply = new_message("assistant", "Rayleigh", question.id, 2.0)
        unsaved.add(dataclasses.replace(kept, active_leaf_id=reply.id, updated_s=9.0), [reply])
        new = new_conversation(5.0, title="New")
        unsaved.add(new)
        assert unsaved.whole(lambda: opened, kept.id).messages == (question, reply)
        assert unsaved.whole(lambda: opened, new.id) == Unsaved(new)
        assert [row.title for row in unsaved.rows(opened.conversations())] == ["Kept", "New"]
        assert [row.title for row in unsaved.rows((), "rayleigh")] == ["Kept"]
        with pytest.raises(ConversationGone):
            unsaved.whole(lambda: opened, "gone")


@pytest.mark.parametrize("purged", [False, True])
def test_what_is_said_in_a_conversation_that_another_window_deleted_goes_on_in_a_new_one(path, purged):
    moves = []
    unsaved = UnsavedChanges(on_moved=lambda old, new: moves.append((old, new)))
    question = new_message("user", "Before", None, 1.0)
    head = new_conversation(1.0, title="Shared", active_leaf_id=question.id)
    with ConversationStore(path) as opened:
        unsaved.add(head, [question])
        assert unsaved.write(opened) == ""
        opened.delete(head.id, 5.0)
        if purged:
            opened.purge_deleted(6.0)
        reply = new_message("assistant", "After", question.id, 2.0)
        unsaved.add(dataclasses.replace(head, active_leaf_id=reply.id), [reply])
        assert unsaved.write(opened) == ""
        last = new_message("user", "Later, by a window that has not heard of it", reply.id, 3.0)
        unsaved.add(dataclasses.replace(head, active_leaf_id=last.id), [last])
        assert unsaved.write(opened) == ""
        ((old, new),) = moves
        assert old == head.id
        (row,) = opened.conversations()
        assert (row.id, row.title) == (new, "Shared")
        said = opened.messages(new)
        assert [one.content for one in said] == ["Before", "After", last.content][purged:]
        assert [one.parent_id for one in said] == [None, *(one.id for one in said[:-1])]
        assert opened.conversation(new).active_leaf_id == said[-1].id


@pytest.mark.logs("cannot be stored")
def test_one_conversation_that_cannot_be_stored_does_not_keep_the_others(path, caplog):
    unsaved = UnsavedChanges(on_moved=print)
    bad = dataclasses.replace(new_conversation(1.0, title="Bad"), overflow=object())  # type: ignore[arg-type]
    unsaved.add(bad)
    unsaved.add(new_conversation(2.0, title="Good"))
    with ConversationStore(path) as opened:
        assert "“Bad” cannot be stored" in unsaved.write(opened)
        assert [row.title for row in opened.conversations()] == ["Good"]
    assert [one.conversation.title for one in unsaved] == ["Bad"]


# --- the thread ----------------------------------------------------------------------------------------------------


class Listener:
    """What the store's thread says, as it says it."""

    def __init__(self, thread):
        self.states, self.rescued = queue.SimpleQueue(), queue.SimpleQueue()
        thread.listen(self.states.put, print, self.rescued.put)
        self.state: SaveState = self.states.get(timeout=30)


def test_a_database_that_was_locked_takes_everything_once_it_is_free(path):
    thread = StoreThread(path, retry_s=0.01)
    listener = Listener(thread)
    head = new_conversation(1.0, title="Locked out")
    messages = [new_message("user", str(number), None, float(number)) for number in range(5)]
    before_s = time.time()
    with locked(path):
        for message in messages:
            thread.save(head, message)
        state = listener.states.get(timeout=30)
        assert "keeps" in state.reason
        assert before_s <= state.since_s <= time.time()
        answers = queue.SimpleQueue()
        thread.rows("", answers.put)
        assert [row.title for row in answers.get(timeout=30)] == ["Locked out"]
        thread.change(lambda store: store.rename(head.id, "Overtaken"), answers.put)
        assert isinstance(answers.get(timeout=30), StoreError), "a change does not overtake what waits"
    assert listener.states.get(timeout=30) == SaveState()
    assert thread.close()
    with ConversationStore(path) as opened:
        assert opened.conversation(head.id) == head
        assert opened.messages(head.id) == tuple(messages)


@pytest.mark.logs("no conversations")
def test_what_is_said_while_the_database_cannot_be_opened_is_stored_when_it_can(path):
    path.write_bytes(b"not a database " * 1000)
    thread = StoreThread(path, retry_s=0.01)
    listener = Listener(thread)
    head = new_conversation(1.0, title="Said meanwhile")
    thread.save(head)
    assert "damaged" in listener.states.get(timeout=30).reason
    answers = queue.SimpleQueue()
    thread.read(head.id, answers.put)
    assert answers.get(timeout=30) == Unsaved(head)
    path.unlink()
    assert listener.states.get(timeout=30) == SaveState()
    assert thread.close()
    with ConversationStore(path) as opened:
        assert opened.conversation(head.id) == head


@pytest.mark.logs("are not saved", "does not take what is unsaved", "what is unsaved of a conversation is in")
def test_what_is_unsaved_at_the_end_is_there_again_at_the_next_start(path, tmp_path):
    full, other = tmp_path / "full", tmp_path / "other"
    other.mkdir()
    thread = StoreThread(path, (full, other))
    question = new_message("user", "Stored", None, 1.0)
    head = new_conversation(1.0, title="Rescued", active_leaf_id=question.id, draft="typed")
    thread.save(head, question)
    listener = Listener(thread)
    reply = new_message("assistant", "Not stored", question.id, 2.0)
    head = dataclasses.replace(head, active_leaf_id=reply.id)
    with locked(path):
        thread.save(head, reply)
        assert listener.states.get(timeout=30).reason
        assert thread.close()
    (file,) = other.iterdir()
    if os.name == "posix":
        assert file.stat().st_mode & 0o777 == 0o600

    again = StoreThread(path, (full, other))
    assert Listener(again).rescued.get(timeout=30) == 1
    assert again.close()
    assert list(other.iterdir()) == []
    with ConversationStore(path) as opened:
        assert opened.conversation(head.id) == head
        assert opened.messages(head.id) == (question, reply)


@pytest.mark.logs("does not take what is unsaved", "what is unsaved of a conversation is in", "cannot be read")
def test_a_rescue_file_may_hold_a_part_and_one_that_is_damaged_is_left_alone(tmp_path, caplog):
    reply = new_message("assistant", "Not stored", "stored-message", 2.0)
    part = Unsaved(new_conversation(1.0, active_leaf_id=reply.id), (reply,))
    assert rescue.write((tmp_path / "none", tmp_path), part)
    damaged = tmp_path / f"{rescue.PREFIX}x.json"
    damaged.write_text("{")
    assert [change for _, change in rescue.read((tmp_path, Path("none")))] == [part]
    assert damaged.exists()


@pytest.mark.skipif(os.name != "posix", reason="the owner of a file is a number there")
@pytest.mark.logs("what is unsaved of a conversation is in")
def test_what_another_user_left_there_is_not_taken_for_ours(tmp_path, monkeypatch):
    assert rescue.write((tmp_path,), Unsaved(new_conversation(1.0, title="Planted")))
    assert [unsaved.conversation.title for _, unsaved in rescue.read((tmp_path,))] == ["Planted"]
    somebody = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: somebody)
    assert list(rescue.read((tmp_path,))) == []
    assert list(tmp_path.iterdir())
