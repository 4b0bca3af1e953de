"""The real window over a store that fails: what is said is on screen, said to be unsaved once, and stored in the end."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvdesk import paths
from kvdesk.backend.conversations import store
from kvdesk.backend.conversations.store import FILE_NAME, ConversationStore
from tests.end2end.conftest import StartApp


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Another program writes to the conversations' database."""
    with contextlib.closing(sqlite3.connect(paths.data_dir() / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock is noticed at once, not after five seconds."""
    monkeypatch.setattr(store, "BUSY_TIMEOUT_S", 0.0)


def test_what_is_said_while_the_database_is_locked_is_stored_afterwards(start_app: StartApp, starter: Path) -> None:
    person = start_app(starter)
    bar = person.window.unsaved_bar
    person.wait_for_store()  # what the load wrote is no part of this
    with locked():
        said = [person.ask("Hello"), person.ask("And again")]
        person.wait_until(bar.isVisible)
        assert bar.label.text().startswith("Not saved since ")
        assert not [notice for notice in person.notices if "locked" in notice], "said once, in the bar"
    person.wait_until(lambda: not bar.isVisible())
    person.app.close()
    with ConversationStore(paths.data_dir() / FILE_NAME) as opened:
        (row,) = opened.conversations()
        assert [one.content for one in opened.messages(row.id)] == ["Hello", said[0], "And again", said[1]]


@pytest.mark.logs("are not saved", "what is unsaved of a conversation is in")
def test_what_is_unsaved_when_the_window_closes_is_there_at_the_next_start(start_app: StartApp) -> None:
    person = start_app()
    with locked():
        person.type("A thought that must not be lost")
        person.wait_until(person.window.unsaved_bar.isVisible)
        person.app.close()
    again = start_app()
    again.wait_for_notice("could not be saved", "is here again")
    again.wait_until(lambda: again.field.toPlainText() == "A thought that must not be lost")


def test_what_is_said_in_a_conversation_that_another_window_deleted_is_said_to_go_on_elsewhere(
    start_app: StartApp, starter: Path
) -> None:
    person = start_app(starter)
    first = person.ask("Hello")
    old_id = person.app.opened.kept_id
    with ConversationStore(paths.data_dir() / FILE_NAME) as other:
        other.delete(old_id, 1.0)
    second = person.ask("Still there?")
    person.wait_for_notice("deleted in another window")
    assert person.app.opened.kept_id != old_id
    assert person.messages == ["Hello", first, "Still there?", second]
    third = person.ask("Good")
    person.app.close()
    with ConversationStore(paths.data_dir() / FILE_NAME) as opened:
        (row,) = opened.conversations()
        texts = ["Hello", first, "Still there?", second, "Good", third]
        assert [one.content for one in opened.messages(row.id)] == texts
