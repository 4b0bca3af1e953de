"""Reading session logs: the list of sessions, one session's events, samples and columns, damaged files included.

Opens files read-only, also those that another process is still writing. Any thread; recorder.py writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvdesk.backend.session_log.rows import (
    SCHEMA,
    all_intact,
    engine_bytes_of,
    frame_seq_of,
    n_domains_of,
    recover,
    row_peak_bytes,
    unpack_note,
    unpack_sample,
)
from kvdesk.backend.system.process_identity import process_identity
from kvdesk.backend.system.samples import Sample
from kvdesk.errors import StoreError, UsageError

if TYPE_CHECKING:
    from kvdesk.backend.session_log.columns import Columns

SUFFIX = ".sqlite3"
"""Of a session's file; while it is written SQLite keeps "-wal" and "-shm" files beside it."""


@dataclass(frozen=True)
class SessionEvent:
    """Something that happened: ``kind`` is one of recorder.EVENT_KINDS, ``text`` a sentence, ``values`` JSON values."""

    kind: str
    text: str
    values: dict[str, Any]
    time_s: float
    monotonic_s: float


@dataclass(frozen=True)
class SessionSummary:
    """One line of the list of sessions.

    ``ended_s`` is None for a session without an exit row: it is still running or was killed. ``how_ended`` says it in
    words: the reason given, "running", or "killed". ``model`` is the last model loaded, "" if none. ``peak_bytes`` is the
    engine's largest resident size. ``damaged``: some rows could not be read.
    """

    session_id: str
    path: Path
    app: str
    version: str
    pid: int | None
    started_s: float | None
    ended_s: float | None
    how_ended: str
    model: str
    duration_s: float | None
    peak_bytes: int | None
    n_samples: int
    size_bytes: int
    damaged: bool


class Session:
    """One session as it stood when it was opened.

    ``header`` are the facts of its first row (app, version, pid, system, details), ``events`` what happened, ``rows`` and
    ``frames`` the packed samples and what they refer to (session_log/rows.py). ``damaged``: some rows could not be read.
    """

    def __init__(self, path: Path, notes: Iterable[dict[str, Any]], rows: list[bytes], *, damaged: bool) -> None:
        notes = tuple(notes)
        self.path = path
        self.damaged = damaged
        unknown: dict[str, Any] = {}
        self.header = next((note for note in notes if note["kind"] == "session"), unknown)
        self.frames: dict[int, dict[str, Any]] = {
            note["seq"]: note["frame"] for note in notes if note["kind"] == "frame"
        }
        self.events: tuple[SessionEvent, ...] = tuple(
            SessionEvent(note["event"], note["text"], note["values"], note["time_s"], note["monotonic_s"])
            for note in notes
            if note["kind"] == "event"
        )
        self.rows = rows

    @property
    def n_samples(self) -> int:
        """How many samples could be read."""
        return len(self.rows)

    def samples(self, first: int = 0, last: int | None = None) -> Iterator[Sample]:
        """The samples from index ``first`` up to, not including, ``last``; oldest first."""
        for data in self.rows[first:last]:
            yield unpack_sample(data, self.frames[frame_seq_of(data)])

    def last_minute(self, seconds: float = 60.0) -> list[Sample]:
        """The samples of the session's last ``seconds``, oldest first."""
        recent: list[Sample] = []
        for index in range(self.n_samples - 1, -1, -1):
            sample = next(self.samples(index, index + 1))
            if recent and recent[0].monotonic_s - sample.monotonic_s > seconds:
                break
            recent.append(sample)
        return recent[::-1]

    @cached_property
    def columns(self) -> Columns:
        """The samples as numpy arrays, for drawing."""
        from kvdesk.backend.session_log.columns import make_columns

        return make_columns(self.rows, self.frames)

    @property
    def exit(self) -> SessionEvent | None:
        """The exit event; None when the session was killed or still runs."""
        return next((event for event in reversed(self.events) if event.kind == "exit"), None)

    @property
    def started_s(self) -> float | None:
        """Unix time of the first row."""
        return self.header.get("started_s")

    @property
    def peak_bytes(self) -> int | None:
        """The engine's largest resident size: the kernel's own record where it keeps one, else the largest sample."""
        return max((peak for peak in map(row_peak_bytes, self.rows) if peak is not None), default=None)

    def peak_in(self, domain: str) -> int | None:
        """The most that any sample saw the engine hold in that domain."""
        places = {
            seq: [one[0] for one in frame["domains"]].index(domain)
            for seq, frame in self.frames.items()
            if any(one[0] == domain for one in frame["domains"])
        }
        seen = ((data, places.get(frame_seq_of(data))) for data in self.rows)
        sizes = [engine_bytes_of(data, place) for data, place in seen if place is not None]
        return max((size for size in sizes if size is not None), default=None)

    @property
    def summary(self) -> SessionSummary:
        """The session in one line."""
        last = next(self.samples(self.n_samples - 1), None) if self.rows else None
        clocks = [event.monotonic_s for event in self.events]
        clocks += [self.header["monotonic_s"]] if self.header else []
        clocks += [last.monotonic_s] if last else []
        end = self.exit
        counted = end.values if end else {}
        models = [event.values["model"] for event in self.events if event.values.get("model")]
        return SessionSummary(
            self.path.stem,
            self.path,
            str(self.header.get("app", "")),
            str(self.header.get("version", "")),
            self.header.get("pid"),
            self.started_s,
            end.time_s if end else None,
            end.text if end else "running" if is_live(self.header) else "killed",
            str(models[-1]) if models else "",
            max(clocks) - min(clocks) if clocks else None,
            counted.get("peak_bytes", self.peak_bytes),
            counted.get("n_samples", self.n_samples),
            size_on_disk(self.path),
            self.damaged,
        )


def session_files(folder: Path) -> list[Path]:
    """The sessions' files, oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def size_on_disk(path: Path) -> int:
    """Bytes of a session's file and of what SQLite keeps beside it."""
    size = 0
    for part in (path, *companions(path)):
        with contextlib.suppress(OSError):
            size += part.stat().st_size
    return size


def companions(path: Path) -> tuple[Path, Path]:
    """The write-ahead log and its index, there while a session is written or after it was killed."""
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def list_sessions(folder: Path) -> list[SessionSummary]:
    """All sessions, newest first.

    Of a session that ended in order only the notes are read, so damage among its samples shows when it is opened.
    """
    return [_summary(path) for path in reversed(session_files(folder))]


def find_session(folder: Path, wanted: str = "last") -> Path:
    """The file of the session with that id, or that alone begins so; "last" is the newest. Raises UsageError."""
    files = session_files(folder)
    if wanted == "last":
        if not files:
            raise UsageError(f"No session has been recorded in {folder} yet.")
        return files[-1]
    exact = [path for path in files if path.stem == wanted]
    found = exact or [path for path in files if wanted and path.stem.startswith(wanted)]
    if len(found) != 1:
        many = f"{len(found)} sessions begin with {wanted!r}" if found else f"No session is called {wanted!r}"
        raise UsageError(f"{many}; `kvdesk log list` shows them all.")
    return found[0]


def last_unclean_session(folder: Path, app: str = "window") -> SessionSummary | None:
    """The newest session of ``app`` that is over, if it was killed; None when it ended in order or there is none.

    Sessions still running, the caller's own among them, do not count.
    """
    for path in reversed(session_files(folder)):
        if f"-{app}-" in path.stem:
            summary = _summary(path)
            if summary.how_ended != "running":
                return summary if summary.ended_s is None else None
    return None


def open_session(path: Path) -> Session:
    """The session with all rows that can be read.

    A truncated or damaged file gives every row that is whole, and ``damaged``. Raises StoreError for a file that is
    missing, holds no whole row at all, or was made by a newer kvdesk.
    """
    return _open(path, skip_samples_when_ended=False)


def is_running(path: Path) -> bool:
    """Whether the session in this file is still being recorded."""
    return _summary(path).how_ended == "running"


def is_live(header: dict[str, Any]) -> bool:
    """Whether the process that wrote this header still runs; its number given to another process does not count."""
    pid, identity = header.get("pid"), header.get("process")
    return isinstance(pid, int) and identity is not None and process_identity(pid) == identity


def _summary(path: Path) -> SessionSummary:
    try:
        return _open(path, skip_samples_when_ended=True).summary
    except StoreError as error:
        nothing = Session(path, (), [], damaged=True).summary
        return dataclasses.replace(nothing, how_ended=str(error))


def _open(path: Path, *, skip_samples_when_ended: bool) -> Session:
    if not path.is_file():
        raise StoreError(f"There is no session log {path}.")
    notes: dict[int, dict[str, Any]] = {}
    rows: dict[int, bytes] = {}
    try:
        whole = _read(path, notes, rows, skip_samples_when_ended=skip_samples_when_ended)
    except sqlite3.DatabaseError:
        whole = False
    if not whole:
        notes, rows = _comb(path)
    if not notes:  # the first row of all is one
        raise StoreError(f"{path.name} cannot be read: it is no session log, or damaged from its beginning.")
    return Session(path, notes.values(), list(rows.values()), damaged=not whole)


def _read(
    path: Path, notes: dict[int, dict[str, Any]], rows: dict[int, bytes], *, skip_samples_when_ended: bool
) -> bool:
    """Fill ``notes`` and ``rows`` by way of SQLite; True when every row is there and as it was written."""
    # Without a write-ahead log nobody is writing, and "immutable" keeps SQLite from leaving files beside the one it reads.
    mode = "mode=ro" if companions(path)[0].exists() else "immutable=1"
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)) as database:
        database.execute("BEGIN")  # both tables as of one moment, though the session may be under way
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise StoreError(f"{path.name} was recorded by a newer kvdesk; update kvdesk to read it.")
        stored = 0
        for seq, mark, body in database.execute("SELECT seq, mark, body FROM notes ORDER BY seq"):
            stored += 1
            note = unpack_note(mark, body)
            if note is not None:
                notes[seq] = note
        if skip_samples_when_ended and any(note.get("event") == "exit" for note in notes.values()):
            return len(notes) == stored
        rows.update(database.execute("SELECT seq, data FROM samples ORDER BY seq"))
    last = max(max(notes, default=0), max(rows, default=0))
    return len(notes) == stored and len(notes) + len(rows) == last and all_intact(rows.values())


def _comb(path: Path) -> tuple[dict[int, dict[str, Any]], dict[int, bytes]]:
    """What is whole in the file and in the write-ahead log beside it, in order; samples only with their frame."""
    notes: dict[int, dict[str, Any]] = {}
    rows: dict[int, bytes] = {}
    for part in (path, companions(path)[0]):
        try:
            raw = part.read_bytes()
        except OSError:
            continue
        more_notes, more_rows = recover(raw)
        notes.update(more_notes)
        rows.update(more_rows)
    domains = {seq: len(note["frame"]["domains"]) for seq, note in notes.items() if note["kind"] == "frame"}
    kept = {seq: rows[seq] for seq in sorted(rows) if domains.get(frame_seq_of(rows[seq])) == n_domains_of(rows[seq])}
    return {seq: notes[seq] for seq in sorted(notes)}, kept
