"""The tables of the conversation database, its numbered migrations, and what SQLite's errors mean to a person.

Used by store.py alone, in its thread. A released migration is never changed; a new one is added below it.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from kvdesk.backend.chat_format.thinking import split_reply
from kvdesk.errors import ConversationGone, StoreError

_log = logging.getLogger(__name__)

MIGRATIONS: tuple[str, ...] = (
    # 1: conversations, their messages as a tree, and what each model was last used with.
    # The pair (conversation_id, parent_id) keeps a message from answering one of another conversation.
    # Times are seconds since the epoch; settings and stats are JSON.
    """
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY NOT NULL,
        title TEXT NOT NULL,
        created_s REAL NOT NULL,
        updated_s REAL NOT NULL,
        deleted_s REAL,
        system_prompt TEXT NOT NULL,
        sampling TEXT NOT NULL,
        engine_settings TEXT,
        overflow TEXT NOT NULL,
        active_leaf_id TEXT REFERENCES messages(id) DEFERRABLE INITIALLY DEFERRED,
        model_path TEXT
    ) STRICT;
    CREATE TABLE messages (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
        parent_id TEXT,
        role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
        content TEXT NOT NULL,
        created_s REAL NOT NULL,
        stats TEXT,
        model_name TEXT NOT NULL,
        stop_note TEXT NOT NULL,
        is_complete INTEGER NOT NULL,
        UNIQUE (conversation_id, id),
        FOREIGN KEY (conversation_id, parent_id) REFERENCES messages(conversation_id, id) ON DELETE CASCADE
    ) STRICT;
    CREATE INDEX messages_by_parent ON messages(conversation_id, parent_id);
    CREATE TABLE models (
        path TEXT PRIMARY KEY NOT NULL,
        last_used_s REAL,
        engine_settings TEXT,
        sampling TEXT
    ) STRICT;
    """,
    # 2: what is typed and not sent yet.
    "ALTER TABLE conversations ADD COLUMN draft TEXT NOT NULL DEFAULT '';",
    # 3: what a model thought stands apart from what it answered.
    """
    ALTER TABLE messages ADD COLUMN thought TEXT NOT NULL DEFAULT '';
    UPDATE messages SET thought = thought_in(content), content = answer_in(content)
        WHERE role = 'assistant' AND thought_in(content) != '';
    """,
)


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the database at ``path`` to the newest schema, after a copy beside it named ``<name>.v<version>.backup``.

    ``connection`` is in autocommit mode. Raises StoreError for a newer schema or a database of another program;
    a migration that fails leaves everything as it was.
    """
    # One statement sees one state of the file: another kvdesk may be making it at this moment.
    state = "SELECT user_version, (SELECT count(*) FROM sqlite_schema) FROM pragma_user_version"
    version, n_tables = connection.execute(state).fetchone()
    if version > len(migrations):
        raise StoreError(
            f"The conversations in {path} were written by a newer kvdesk (schema {version}, this one knows "
            f"{len(migrations)}). Update kvdesk, or move the file away to start anew."
        )
    if version == len(migrations):
        return
    if version == 0 and n_tables:
        raise StoreError(f"{path} is a database of another program; move it away to start anew.")
    if version > 0:
        _back_up(connection, path.with_name(f"{path.name}.v{version}.backup"))
    connection.create_function("thought_in", 1, _thought_in, deterministic=True)
    connection.create_function("answer_in", 1, _answer_in, deterministic=True)
    connection.execute("PRAGMA foreign_keys = OFF")  # a migration may rebuild a table that others refer to
    with transaction(connection):
        # Read again, now that nobody else can write: another kvdesk may have migrated meanwhile.
        for number, script in enumerate(migrations[_version(connection) :], _version(connection) + 1):
            for statement in _statements(script):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
    connection.execute("PRAGMA foreign_keys = ON")


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None, None, None]:
    """All or nothing of what is done inside."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite may have rolled back by itself, when the disk is full for one
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def errors_in_words(path: Path) -> Generator[None, None, None]:
    """Turn what SQLite says of the database at ``path`` into a StoreError that a person can act on.

    A constraint that our own code broke passes through: that is a bug, not a state of the world.
    """
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_CONSTRAINT_FOREIGNKEY":
            raise ConversationGone from error
        sentence = _sentence(error, path)
        if sentence is None:
            raise
        _log.info("SQLite on %s: %s (%s)", path, error, getattr(error, "sqlite_errorname", ""))
        raise StoreError(sentence) from error


def _sentence(error: sqlite3.Error, path: Path) -> str | None:
    name: str = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_CONSTRAINT") or isinstance(error, sqlite3.ProgrammingError):
        return None
    reasons = {
        "SQLITE_NOTADB": f"{path} is damaged or is no database. Move it away to start anew.",
        "SQLITE_CORRUPT": f"{path} is damaged. Move it away to start anew, or put a copy in its place.",
        "SQLITE_FULL": f"The disk that holds {path} is full. Free some space; until then nothing can be saved.",
        "SQLITE_BUSY": f"Another program keeps {path} locked. Close it and try again.",
        "SQLITE_READONLY": f"{path} cannot be written. Check its permissions.",
        "SQLITE_CANTOPEN": f"{path} cannot be opened. Check that the folder exists and its permissions.",
        "SQLITE_IOERR": f"The disk that holds {path} reports an error.",
    }
    for code, reason in reasons.items():
        if name.startswith(code):
            return reason
    return f"The conversations in {path} cannot be used; kvdesk.log has the details."


def _thought_in(reply: str) -> str:
    return split_reply(reply)[0]


def _answer_in(reply: str) -> str:
    return split_reply(reply)[1]


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _back_up(connection: sqlite3.Connection, target: Path) -> None:
    with contextlib.suppress(OSError):  # SQLite will say what is wrong
        target.touch(mode=0o600)  # its owner's alone, as the conversations are
    with contextlib.closing(sqlite3.connect(target)) as copy:
        connection.backup(copy)


def _statements(script: str) -> Iterator[str]:
    """The statements of ``script``; executescript would commit on its own."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        raise ValueError(f"a migration ends in half a statement: {statement!r}")
