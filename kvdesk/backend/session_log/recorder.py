"""The flight recorder: writes one SQLite file per session, from a thread of its own, so callers never wait.

session_log/reader.py reads the files. Every sample is committed as it comes (write-ahead log): a killed process loses none
that was handed over half a second before. A lost power supply may take the last half minute.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import queue
import re
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kvdesk.backend.atomic_file import remove_abandoned, replacing
from kvdesk.backend.session_log.reader import SUFFIX, companions, is_running, session_files, size_on_disk
from kvdesk.backend.session_log.rows import SCHEMA, TABLES, frame_of, pack_note, pack_sample, row_peak_bytes
from kvdesk.backend.system.process_identity import process_identity
from kvdesk.backend.system.samples import Sample

log = logging.getLogger(__name__)

EVENT_KINDS = (
    "start", "load", "ready", "grow", "settings", "warning", "note", "overflow", "cancel", "crash", "unload", "predicted",
    "exit",
)  # fmt: skip
"""What is recorded beside the samples; docs/MEMORY_LOG.md has each kind's values."""

BUDGET_BYTES = 200 * 1000 * 1000
_QUEUE_LIMIT = 20_000
"""Rows that wait for a disk that hangs, hours of them; more are dropped and said so."""
_CHECK_EVERY_S = 60.0
_CHECKPOINT_PAGES = 64
"""Pages after which SQLite empties the write-ahead log: 256 KiB of it, one sync in half a minute."""


class _Done:
    """Asks the writer to say when everything handed over before is committed; ``last`` ends it."""

    def __init__(self, *, last: bool = False) -> None:
        self.event = threading.Event()
        self.last = last


class Recorder:
    """Records one session of ``app`` ("window" or "chat") below ``folder``.

    ``details`` are the machine's and libraries' facts for the report, JSON-able. All sessions in the folder together
    keep to ``budget_bytes``: the oldest are dropped, and a session that takes a quarter of it alone goes on in a new file.
    Nothing here raises for a disk that fails: ``problem`` has the sentence, and the session goes on unrecorded.
    """

    def __init__(
        self,
        folder: Path,
        app: str,
        version: str,
        details: Mapping[str, Any] | None = None,
        budget_bytes: int = BUDGET_BYTES,
    ) -> None:
        self._folder = folder
        self._app = app
        self._version = version
        self._details = dict(details or {})
        self._budget_bytes = budget_bytes
        self._path = _new_path(folder, app)
        self._problem: str | None = None
        self._queue: queue.SimpleQueue[Sample | dict[str, Any] | _Done] = queue.SimpleQueue()
        self._closed = False
        self._seq = 0
        self._frames: dict[str, int] = {}
        self._n_samples = 0
        self._peak_bytes: int | None = None
        self._first_notes = self._beginning()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path:
        """The SQLite file of this session."""
        return self._path

    @property
    def session_id(self) -> str:
        """The file's name without its suffix; sorts by time."""
        return self._path.stem

    @property
    def problem(self) -> str | None:
        """Why the session is not being recorded, as a sentence; None while it is."""
        return self._problem

    def sample(self, sample: Sample) -> None:
        """Record a sample; fits as a callback of the monitor. Any thread, never waits."""
        self._put(sample)

    def event(self, kind: str, text: str, values: Mapping[str, Any] | None = None) -> None:
        """Record that something happened: one of EVENT_KINDS, a sentence, JSON-able values. Any thread, never waits."""
        self._put(_event(kind, text, values))

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until all that was handed over is committed; False when it took longer, or after ``close``."""
        done = _Done()
        self._queue.put(done)
        return done.event.wait(0 if self._closed else timeout_s)

    def close(self, reason: str = "closed", timeout_s: float = 5.0) -> None:
        """Record the exit, and wait for the file to be whole. Harmless when closed."""
        if not self._closed:
            self._put(_event("exit", reason, None))
            self._closed = True
            self._queue.put(_Done(last=True))
            self._thread.join(timeout_s)

    def _put(self, row: Sample | dict[str, Any]) -> None:
        if self._closed:
            return
        if self._queue.qsize() < _QUEUE_LIMIT:
            self._queue.put(row)
        else:
            self._fail(f"The disk did not keep up with the session log {self._path}; samples are missing from it.")

    def _run(self) -> None:
        database = self._open()
        checked_s = time.monotonic()
        last = False
        while not last:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            rows = [row for row in batch if not isinstance(row, _Done)]
            if database is not None and rows:
                self._write(database, rows)
            for row in batch:
                if isinstance(row, _Done):
                    row.event.set()
                    last = last or row.last
            if database is not None and time.monotonic() - checked_s >= _CHECK_EVERY_S:
                checked_s = time.monotonic()
                database = self._keep_to_budget(database)
        if database is not None:
            database.close()

    def _open(self) -> sqlite3.Connection | None:
        """A new file with its tables and first rows; None when the disk refuses.

        It is made under another name, so that whoever lists the sessions never meets one without its first row.
        """
        self._seq, self._frames, self._n_samples, self._peak_bytes = 0, {}, 0, None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            drop_oldest(self._folder, self._budget_bytes)
            remove_abandoned(self._folder)
            with (
                replacing(self._path) as temporary,
                contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as database,
            ):
                database.executescript(f"BEGIN; {TABLES} PRAGMA user_version={SCHEMA};")
                for note in self._first_notes:
                    self._insert_note(database, note)
                database.execute("COMMIT")
            database = sqlite3.connect(self._path, isolation_level=None)
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
            database.execute("PRAGMA cache_size=-256")
        except (sqlite3.Error, OSError, TypeError, ValueError) as error:
            self._fail(f"The session log cannot be written in {self._folder}: {error}.")
            return None
        return database

    def _beginning(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The first rows; taken when recording is asked for, so that no row's time comes before theirs."""
        session = {
            "kind": "session",
            "app": self._app,
            "version": self._version,
            "pid": os.getpid(),
            "process": process_identity(os.getpid()),
            "started_s": time.time(),
            "monotonic_s": time.monotonic(),
            "system": platform.platform(),
            "python": sys.version.split()[0],
            "cpus": os.cpu_count(),
            "details": self._details,
        }
        return session, _event("start", f"{self._app} {self._version} started", None)

    def _write(self, database: sqlite3.Connection, rows: list[Sample | dict[str, Any]]) -> None:
        """One transaction. What fails is lost as a whole, and the numbering goes on where the file stands."""
        seq, frames = self._seq, dict(self._frames)
        try:
            database.execute("BEGIN")
            for row in rows:
                if isinstance(row, Sample):
                    self._insert_sample(database, row)
                else:
                    self._insert_note(database, row)
            database.execute("COMMIT")
            self._problem = None
        except (sqlite3.Error, OSError, struct.error, TypeError, ValueError) as error:
            self._seq, self._frames = seq, frames
            if database.in_transaction:
                database.execute("ROLLBACK")
            self._fail(f"The session log {self._path} cannot be written: {error}.")

    def _insert_note(self, database: sqlite3.Connection, note: dict[str, Any]) -> int:
        if note.get("event") == "exit":  # so that the list of sessions need not read every sample
            note = note | {"values": {"peak_bytes": self._peak_bytes, "n_samples": self._n_samples}}
        database.execute("INSERT INTO notes VALUES (?, ?, ?, ?)", pack_note(self._seq + 1, note))
        self._seq += 1
        return self._seq

    def _insert_sample(self, database: sqlite3.Connection, sample: Sample) -> None:
        frame = frame_of(sample)
        known = repr(frame)
        if known not in self._frames:
            self._frames[known] = self._insert_note(database, {"kind": "frame", "frame": frame})
        data = pack_sample(self._seq + 1, self._frames[known], sample)
        database.execute("INSERT INTO samples VALUES (?, ?)", (self._seq + 1, data))
        self._seq += 1
        self._n_samples += 1
        peak = row_peak_bytes(data)
        if peak is not None:
            self._peak_bytes = max(peak, self._peak_bytes or 0)

    def _keep_to_budget(self, database: sqlite3.Connection) -> sqlite3.Connection | None:
        """Drop the oldest; a session too large to leave room for others ends here and goes on in a new file."""
        if size_on_disk(self._path) <= self._budget_bytes // 4:
            drop_oldest(self._folder, self._budget_bytes, keep=self._path)
            return database
        following = _new_path(self._folder, self._app)
        self._write(database, [_event("exit", f"continued in {following.stem}", None)])
        database.close()
        self._path, self._first_notes = following, self._beginning()
        return self._open()

    def _fail(self, sentence: str) -> None:
        if self._problem is None:
            log.warning("%s", sentence)
        self._problem = sentence


def _event(kind: str, text: str, values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "kind": "event",
        "event": kind,
        "time_s": time.time(),
        "monotonic_s": time.monotonic(),
        "text": text,
        "values": dict(values or {}),
    }


def _new_path(folder: Path, app: str) -> Path:
    name = re.sub(r"[^a-z0-9]+", "_", app.lower())
    return folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{name}-{os.getpid()}{SUFFIX}"


def drop_oldest(folder: Path, budget_bytes: int, keep: Path | None = None) -> None:
    """Delete the oldest sessions until all together fit the budget; ``keep`` and sessions that still run stay."""
    sizes = {path: size_on_disk(path) for path in session_files(folder)}
    total = sum(sizes.values())
    for path, size in sizes.items():
        if total <= budget_bytes:
            return
        if path != keep and not is_running(path):
            for part in (path, *companions(path)):
                with contextlib.suppress(OSError):  # open in another window on Windows: next time
                    part.unlink()
            total -= size - size_on_disk(path)
