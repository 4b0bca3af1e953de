"""Conversations in SQLite: everything that has been said, kept at once and safe from a kill at any moment.

Synchronous, and used from one thread only (store_thread.py in the window). Knows no engine and no window.
"""

# ruff: noqa: S608 (only table and column names of our own are written into SQL, every value is bound)

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote_to_bytes

from kvdesk.backend.conversations import read_values, search
from kvdesk.backend.conversations.conversation import (
    Conversation,
    ConversationRow,
    Message,
    stats_to_dict,
)
from kvdesk.backend.conversations.schema import errors_in_words, migrate, transaction
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import OVERFLOWS, EngineSettings
from kvdesk.errors import ConversationGone

FILE_NAME = "conversations.sqlite3"
BUSY_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ModelMemory:
    """What a model was last used with; None where nothing is remembered."""

    engine_settings: EngineSettings | None = None
    sampling: SamplingSettings | None = None


@dataclass(frozen=True)
class RecentModel:
    """A model file that has been loaded. ``last_used_s`` is seconds since the epoch."""

    path: str
    last_used_s: float


class ConversationStore:
    """The conversation database at ``path``, made when absent.

    Every method may raise StoreError (damaged, full disk, gone conversation, newer schema). What a method has
    returned from is on record: a killed process loses nothing of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with errors_in_words(path):
            with contextlib.suppress(OSError):  # SQLite will say what is wrong
                path.touch(mode=0o600)  # what people tell a model is nobody else's business
            self._connection = _opened(path)

    def close(self) -> None:
        """Close the file; harmless when done already."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- conversations -----------------------------------------------------------------------------------------

    def conversations(self, query: str = "") -> tuple[ConversationRow, ...]:
        """All that are not deleted, last used first; with ``query`` those whose title and draft or one message holds all
        its words, with an excerpt where it is a message that does."""
        words = search.words_of(query)
        rows = self._rows(
            "SELECT id, title, updated_s, model_path, draft FROM conversations"
            " WHERE deleted_s IS NULL ORDER BY updated_s DESC"
        )
        excerpts = self._excerpts(words) if words else {}
        found: list[ConversationRow] = []
        for read in (ConversationRow(*row) for row in rows):
            row = dataclasses.replace(read, updated_s=read_values.nearest_time(read.updated_s))
            if search.holds_all(f"{row.title} {row.draft}", words):
                found.append(row)
            elif row.id in excerpts:
                found.append(dataclasses.replace(row, excerpt=excerpts[row.id]))
        return tuple(found)

    def conversation(self, conversation_id: str) -> Conversation:
        """One conversation, also a deleted one that is not purged yet. StoreError when there is none."""
        rows = self._rows(f"SELECT {', '.join(_COLUMNS)} FROM conversations WHERE id = ?", conversation_id)
        if not rows:
            raise ConversationGone
        values = dict(zip(_COLUMNS, rows[0], strict=True))
        values["sampling"] = read_values.sampling_or_none(values["sampling"]) or SamplingSettings()
        values["engine_settings"] = read_values.engine_or_none(values["engine_settings"])
        for name in ("created_s", "updated_s"):
            values[name] = read_values.nearest_time(values[name])
        values["overflow"] = values["overflow"] if values["overflow"] in OVERFLOWS else Conversation.overflow
        return Conversation(**values)

    def keep(self, conversation: Conversation, messages: Iterable[Message] = (), *, may_be_new: bool = True) -> None:
        """Keep a conversation as it is now and those of its messages that are new or have changed (parents before
        children): all of it or nothing. Doing it again changes nothing.

        Raises ConversationGone when it was deleted, or is not there and not ``may_be_new``.
        """
        with self._changing():
            found = self._connection.execute("SELECT deleted_s FROM conversations WHERE id = ?", (conversation.id,))
            row = found.fetchone()
            if (row is None and not may_be_new) or (row is not None and row[0] is not None):
                raise ConversationGone
            if row is None:  # the branch in view is checked at the end of the transaction
                self._insert(conversation)
            for message in messages:
                self._put_message(conversation.id, message)
            self._update(conversation.id, _COLUMNS, _conversation_values(conversation))

    def rename(self, conversation_id: str, title: str) -> None:
        """Give a conversation another title."""
        with self._changing():
            self._update(conversation_id, ("title",), (_clean(title),))

    def remove_if_empty(self, conversation_id: str) -> None:
        """Remove a conversation in which nothing was said, typed or set."""
        with self._changing():
            self._connection.execute(
                "DELETE FROM conversations WHERE id = ? AND deleted_s IS NULL AND trim(draft) = '' AND trim(system_prompt) = ''"
                " AND NOT EXISTS (SELECT 1 FROM messages WHERE conversation_id = conversations.id)",
                (conversation_id,),
            )

    def delete(self, conversation_id: str, now_s: float) -> None:
        """Take a conversation out of sight; ``undelete`` brings it back until ``purge_deleted``."""
        with self._changing():
            self._update(conversation_id, ("deleted_s",), (now_s,))

    def undelete(self, conversation_id: str) -> None:
        """Bring a deleted conversation back."""
        with self._changing():
            self._update(conversation_id, ("deleted_s",), (None,))

    def purge_deleted(self, before_s: float) -> tuple[str, ...]:
        """Remove for good what was deleted before ``before_s``; their ids, for those who keep things beside them."""
        with self._changing():
            rows = self._connection.execute("SELECT id FROM conversations WHERE deleted_s < ?", (before_s,)).fetchall()
            self._connection.executemany("DELETE FROM conversations WHERE id = ?", rows)
        return tuple(row[0] for row in rows)

    # --- messages ----------------------------------------------------------------------------------------------

    def messages(self, conversation_id: str) -> tuple[Message, ...]:
        """All messages of a conversation, every branch, in the order they were added (parents before children)."""
        columns = ", ".join(_MESSAGE_COLUMNS)
        rows = self._rows(f"SELECT {columns} FROM messages WHERE conversation_id = ? ORDER BY number", conversation_id)
        return tuple(_read_message(row) for row in rows)

    # --- models ------------------------------------------------------------------------------------------------

    def note_model_used(self, path: str, now_s: float) -> None:
        """Put a model file first among the recent ones."""
        self._keep_model(path, "last_used_s", now_s)

    def recent_models(self, limit: int = 10) -> tuple[RecentModel, ...]:
        """The models loaded last, newest first, whether or not their files still exist."""
        rows = self._rows(
            "SELECT path, last_used_s FROM models WHERE last_used_s IS NOT NULL ORDER BY last_used_s DESC LIMIT ?",
            limit,
        )
        return tuple(RecentModel(_read_path(path), last_used_s) for path, last_used_s in rows)

    def forget_recent_model(self, path: str) -> None:
        """Take a model off the recent ones; its settings stay remembered."""
        self._keep_model(path, "last_used_s", None)

    def remember_model_settings(self, path: str, memory: ModelMemory) -> None:
        """Remember what a model is used with. A part that is None leaves what is remembered."""
        if memory.engine_settings is not None:
            self._keep_model(path, "engine_settings", json.dumps(memory.engine_settings.to_dict()))
        if memory.sampling is not None:
            self._keep_model(path, "sampling", json.dumps(memory.sampling.to_dict()))

    def model_memories(self) -> dict[str, ModelMemory]:
        """What ``remember_model_settings`` kept, by path; every model that was ever noted is there."""
        rows = self._rows("SELECT path, engine_settings, sampling FROM models")
        return {
            _read_path(path): ModelMemory(read_values.engine_or_none(engine), read_values.sampling_or_none(sampling))
            for path, engine, sampling in rows
        }

    # --- inside ------------------------------------------------------------------------------------------------

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with errors_in_words(self._path):
            return self._connection.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def _changing(self) -> Generator[None, None, None]:
        with errors_in_words(self._path), transaction(self._connection):
            yield

    def _insert(self, conversation: Conversation) -> None:
        marks = ", ".join("?" * len(_COLUMNS))
        self._connection.execute(
            f"INSERT INTO conversations ({', '.join(_COLUMNS)}) VALUES ({marks})", _conversation_values(conversation)
        )

    def _update(self, conversation_id: str, columns: tuple[str, ...], values: tuple[Any, ...]) -> None:
        sets = ", ".join(f"{column} = ?" for column in columns)
        changed = self._connection.execute(f"UPDATE conversations SET {sets} WHERE id = ?", (*values, conversation_id))
        if not changed.rowcount:
            raise ConversationGone

    def _put_message(self, conversation_id: str, message: Message) -> None:
        columns = ("conversation_id", *_MESSAGE_COLUMNS)
        marks = ", ".join("?" * len(columns))
        sets = ", ".join(f"{column} = excluded.{column}" for column in _MESSAGE_COLUMNS[1:])
        self._connection.execute(
            f"INSERT INTO messages ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT(id) DO UPDATE SET {sets}",
            (conversation_id, *_message_values(message)),
        )

    def _keep_model(self, path: str, column: str, value: float | str | None) -> None:
        with self._changing():
            self._connection.execute(
                f"INSERT INTO models (path, {column}) VALUES (?, ?) ON CONFLICT(path) DO UPDATE SET {column} = excluded.{column}",
                (_stored_path(path), value),
            )

    def _excerpts(self, words: list[str]) -> dict[str, str]:
        """Conversation id -> a line of its newest message that holds all ``words``."""
        condition, values = search.condition("content", words)
        rows = self._rows(  # beside max() SQLite takes bare columns from the row that holds the maximum
            f"SELECT conversation_id, content, max(number) FROM messages WHERE {condition} GROUP BY conversation_id",
            *values,
        )
        return {conversation_id: search.excerpt(content, words) for conversation_id, content, _ in rows}


_COLUMNS = tuple(field.name for field in dataclasses.fields(Conversation))
_MESSAGE_COLUMNS = (
    *("id", "parent_id", "role", "created_s"),
    *("content", "stats", "model_name", "stop_note", "is_complete", "thought"),
)


def _opened(path: Path) -> sqlite3.Connection:
    """A connection to the migrated database. SQLite does not wait by itself in every step of opening a file that another
    window is making just now, so a locked file is tried again for BUSY_TIMEOUT_S."""
    until = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            migrate(connection, path)
            connection.execute("PRAGMA foreign_keys = ON")
            search.prepare(connection)
        except BaseException as error:
            connection.close()
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return connection


def _conversation_values(conversation: Conversation) -> tuple[Any, ...]:
    """In the order of _COLUMNS."""
    values = {name: getattr(conversation, name) for name in _COLUMNS}
    values["title"] = _clean(conversation.title)
    values["system_prompt"] = _clean(conversation.system_prompt)
    values["draft"] = _clean(conversation.draft)
    values["sampling"] = json.dumps(conversation.sampling.to_dict())
    engine = conversation.engine_settings
    values["engine_settings"] = json.dumps(engine.to_dict()) if engine else None
    return tuple(values.values())


def _message_values(message: Message) -> tuple[Any, ...]:
    """In the order of _MESSAGE_COLUMNS."""
    stats = json.dumps(stats_to_dict(message.stats)) if message.stats else None
    fixed = (message.id, message.parent_id, message.role, message.created_s)
    names = (_clean(message.model_name), _clean(message.stop_note))
    return (*fixed, _clean(message.content), stats, *names, int(message.is_complete), _clean(message.thought))


def _read_message(row: tuple[Any, ...]) -> Message:
    values = dict(zip(_MESSAGE_COLUMNS, row, strict=True))
    values["stats"] = read_values.stats_or_none(values["stats"])
    values["created_s"] = read_values.nearest_time(values["created_s"])
    values["is_complete"] = bool(values["is_complete"])
    return Message(**values)


def _stored_path(path: str) -> str:
    """As SQLite takes it: its text is UTF-8, and a path on Linux need not be; such a one is stored as its URI."""
    return Path(path).as_uri() if _clean(path) != path else path


def _read_path(stored: str) -> str:
    return os.fsdecode(unquote_to_bytes(stored.removeprefix("file://"))) if stored.startswith("file://") else stored


def _clean(text: str) -> str:
    """``text`` without halves of characters, which a clipboard may hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
