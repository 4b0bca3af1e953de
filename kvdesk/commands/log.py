"""``kvdesk log``: the recorded memory of past sessions, listed, summed up and exported. Qt only for pictures.

Reading is backend/session_log/reader.py's, writing backend/session_log/export.py's and ui/windows/session_sheet.py's.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from kvdesk.errors import UsageError
from kvdesk.shown_text import shown_line
from kvdesk.sizes import format_bytes
from kvdesk.terminal import say, say_beside, say_json

if TYPE_CHECKING:
    from kvdesk.backend.session_log.reader import Session, SessionSummary

TEXTS = ("csv", "jsonl", "md")
PICTURES = ("png", "svg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands list, show and export."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="{list,show,export}")
    listed = actions.add_parser("list", help="all sessions, newest first")
    listed.add_argument("--json", action="store_true", help="print one JSON object")
    shown = actions.add_parser("show", help="one session in words")
    exported = actions.add_parser("export", help="one session as a table, a report or a picture")
    for action in (shown, exported):
        action.add_argument(
            "--session", default="last", metavar="ID", help="its ID, or how it begins; last is the newest"
        )
    exported.add_argument("--format", choices=(*TEXTS, *PICTURES), help="default: as the file's name ends")
    exported.add_argument("-o", "--output", type=Path, metavar="FILE", help="default for text: standard output")


def run(args: argparse.Namespace) -> int:
    """List, show or export. Raises KvdeskError with the sentence to print."""
    {"list": _list, "show": _show, "export": _export}[args.action](args)
    return 0


def _list(args: argparse.Namespace) -> None:
    from kvdesk import paths
    from kvdesk.backend.session_log.reader import list_sessions

    folder = paths.sessions_dir()
    sessions = list_sessions(folder)
    if args.json:
        say_json({"folder": str(folder), "sessions": [_json(one) for one in sessions]})
    elif sessions:
        say("\n".join(_aligned([("session", "lasted", "peak", "ended", "model"), *map(_row, sessions)])))
    else:
        say(f"No session has been recorded in {folder} yet.")


def _json(summary: SessionSummary) -> dict[str, Any]:
    """Times in milliseconds (since 1970 where they are moments), sizes in bytes; null is unknown."""
    return {
        "session_id": summary.session_id,
        "path": str(summary.path),
        "app": summary.app,
        "version": summary.version,
        "pid": summary.pid,
        "model": summary.model,
        "started_ms": _ms(summary.started_s),
        "ended_ms": _ms(summary.ended_s),
        "duration_ms": _ms(summary.duration_s),
        "how_ended": summary.how_ended,
        "peak_bytes": summary.peak_bytes,
        "n_samples": summary.n_samples,
        "size_bytes": summary.size_bytes,
        "damaged": summary.damaged,
    }


def _row(summary: SessionSummary) -> tuple[str, ...]:
    ended = shown_line(summary.how_ended) + (" (damaged)" if summary.damaged else "")
    return (
        summary.session_id,
        _lasted(summary.duration_s),
        format_bytes(summary.peak_bytes),
        ended,
        shown_line(summary.model),
    )


def _show(args: argparse.Namespace) -> None:
    say("\n".join(_words(_opened(args.session))))


def _words(session: Session) -> Iterable[str]:
    """Who, when, how much in each domain, and what happened."""
    summary, header = session.summary, session.header
    yield f"{summary.session_id}: kvdesk {summary.version} ({summary.app})"
    yield f"model    {shown_line(summary.model) or 'none'}"
    yield f"started  {_moment(summary.started_s)}, lasted {_lasted(summary.duration_s)}, ended: {shown_line(summary.how_ended)}"
    yield f"system   {shown_line(str(header.get('system', 'unknown')))}"
    yield f"peak     {format_bytes(summary.peak_bytes)} resident, {summary.n_samples:,} samples"
    domains = list(_domain_rows(session))
    if domains:
        heads = ("domain", "capacity", "engine at most", "predicted", "least room under the line")
        yield ""
        yield from _aligned([heads, *domains])
    if session.events:
        yield ""
        yield from (f"{_moment(e.time_s)}  {e.kind:<9}  {shown_line(e.text)}".rstrip() for e in session.events)


def _domain_rows(session: Session) -> Iterable[tuple[str, ...]]:
    rooms: dict[str, int] = {}
    last: dict[str, tuple[int | None, int | None]] = {}
    for sample in session.samples():
        for domain in sample.domains:
            line, own = domain.oom_line(sample.margin_bytes), domain.engine_unevictable_bytes
            if line is not None and own is not None:
                rooms[domain.name] = min(line - own, rooms.get(domain.name, line - own))
            last[domain.name] = (domain.capacity_bytes, sample.predicted(domain.name))
    for name, (capacity, predicted) in last.items():
        room = rooms.get(name)
        sizes = (capacity, session.peak_in(name), predicted, room)
        yield name, *map(format_bytes, sizes)


def _export(args: argparse.Namespace) -> None:
    output: Path | None = args.output
    kind = args.format or (output.suffix[1:].lower() if output else "")
    if kind not in (*TEXTS, *PICTURES):
        raise UsageError(f"Say which --format to export: {', '.join((*TEXTS, *PICTURES))}.")
    if kind in PICTURES and output is None:
        raise UsageError("A picture needs a file to go to: add -o FILE.")
    session = _opened(args.session)
    if kind in PICTURES:
        _export_picture(session, kind, output or Path())
    elif output is None:
        _write_text(session, kind)
    else:
        from kvdesk.backend.session_log.export import export

        export(session, kind, output)


def _export_picture(session: Session, kind: str, path: Path) -> None:
    if path.suffix.lower() != f".{kind}":
        raise UsageError(f"The name of a {kind} picture ends in .{kind}; {path.name!r} does not.")
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from PySide6.QtWidgets import QApplication

    from kvdesk.ui.windows.session_sheet import picture, write_picture

    application = QApplication.instance() or QApplication(["kvdesk"])
    write_picture(picture(session, kind), path)
    del application


def _write_text(session: Session, kind: str) -> None:
    """To standard output, byte for byte what a file would hold."""
    from kvdesk.backend.session_log import export

    writers: dict[str, Callable[[Session, TextIO], None]] = {
        "csv": export.write_csv,
        "jsonl": export.write_jsonl,
        "md": export.write_markdown,
    }
    with open(sys.stdout.fileno(), "w", encoding="utf-8", newline="", closefd=False) as stream:
        writers[kind](session, stream)


def _opened(wanted: str) -> Session:
    """The session; damage is said on standard error. Raises UsageError (no such session), StoreError (unreadable)."""
    from kvdesk import paths
    from kvdesk.backend.session_log.reader import find_session, open_session

    session = open_session(find_session(paths.sessions_dir(), wanted))
    if session.damaged:
        say_beside(f"kvdesk log: {session.path.name} is damaged; this is what could be read of it.")
    return session


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _moment(time_s: float | None) -> str:
    """Local time; the session's ID is UTC."""
    if time_s is None:
        return "unknown"
    return datetime.fromtimestamp(time_s, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _lasted(duration_s: float | None) -> str:
    if duration_s is None:
        return "unknown"
    minutes, seconds = divmod(round(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _aligned(rows: Iterable[tuple[str, ...]]) -> Iterable[str]:
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
