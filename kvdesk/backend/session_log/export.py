"""A recorded session as CSV, JSON Lines or a Markdown report; docs/MEMORY_LOG.md describes all three. Any thread, no Qt.

Texts from models and file names are made harmless for where they go: no formula in a spreadsheet, no markup in a report.
"""

from __future__ import annotations

import csv
import functools
import heapq
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from kvdesk.backend.atomic_file import replacing
from kvdesk.backend.protocol.facts import KvState
from kvdesk.backend.session_log.reader import Session, SessionEvent
from kvdesk.backend.session_log.report import report
from kvdesk.backend.system.samples import DomainReading, Sample
from kvdesk.errors import StoreError, UsageError

FORMATS = ("csv", "jsonl", "md")
"""What ``export`` writes; pictures are drawn by the window."""

CSV_COLUMNS = (
    "time_utc", "time_s", "elapsed_s", "event", "event_text", "event_values", "state", "engine_pid",
    "kv_cells_used", "kv_cells_allocated", "kv_bytes_used", "kv_bytes_allocated", "tokens_per_second",
    "engine_peak_bytes", "cgroup_peak_bytes", "engine_swap_bytes", "swap_used_bytes", "swap_total_bytes",
)  # fmt: skip
"""The columns that every CSV begins with."""

CSV_DOMAIN_COLUMNS = (
    "capacity_bytes", "available_bytes", "used_bytes", "engine_bytes", "engine_anonymous_bytes", "engine_file_bytes",
    "others_bytes", "ceiling_bytes", "oom_line_bytes", "predicted_bytes", "engine_source",
)  # fmt: skip
"""The columns that follow for each memory domain of the session, each with the domain's name before it: "ram_engine_bytes"."""


def export(session: Session, kind: str, path: Path) -> None:
    """Write the session to ``path`` as one of FORMATS. Raises UsageError (format) and StoreError (the disk)."""
    if kind not in _WRITERS:
        raise UsageError(f"The log can be written as {', '.join(FORMATS)}, not as {kind!r}.")
    try:
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            _WRITERS[kind](session, file)
    except OSError as error:
        raise StoreError(f"The log cannot be written to {path}: {error.strerror or error}.") from error


def write_csv(session: Session, file: TextIO) -> None:
    """One line per sample and one per event, in order of time; unknown is an empty cell.

    ``file`` is open for text with ``newline=""``. A byte order mark comes first only where some text is not ASCII:
    spreadsheets need it then, and nothing else ever sees it.
    """
    names = _domain_names(session)
    prefixes = _prefixes(names)
    if not all(text.isascii() for text in (*names, *(event.text for event in session.events))):
        file.write("\ufeff")
    columns = [*CSV_COLUMNS, *(f"{prefix}_{column}" for prefix in prefixes for column in CSV_DOMAIN_COLUMNS)]
    csv.writer(file).writerow(columns)
    writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)  # a text's own commas and semicolons stay in its cell
    begun = _begin(session)
    for row in _in_order(session):
        cells = _event_cells(row, begun) if isinstance(row, SessionEvent) else _sample_cells(row, begun, names)
        cells += [None] * (len(columns) - len(cells))
        writer.writerow([_harmless(cell) if isinstance(cell, str) else cell for cell in cells])


def write_jsonl(session: Session, file: TextIO) -> None:
    """One JSON object per line, nothing left out: the session, then samples and events in order of time."""
    file.write(
        _json({"type": "session", "session_id": session.path.stem, "damaged": session.damaged, **session.header})
    )
    file.writelines(
        _json(_event_object(row) if isinstance(row, SessionEvent) else _sample_object(row))
        for row in _in_order(session)
    )


def write_markdown(session: Session, file: TextIO) -> None:
    """The report (session_log/report.py)."""
    file.write(report(session))


_WRITERS: Mapping[str, Callable[[Session, TextIO], None]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "md": write_markdown,
}


def _in_order(session: Session) -> Iterator[Sample | SessionEvent]:
    """Both kinds of row by the clock that never jumps."""
    rows: Iterable[Iterable[Sample | SessionEvent]] = (session.events, session.samples())
    return heapq.merge(*rows, key=lambda row: row.monotonic_s)


def _begin(session: Session) -> float:
    return float(session.header.get("monotonic_s") or next((row.monotonic_s for row in _in_order(session)), 0.0))


def _domain_names(session: Session) -> list[str]:
    """All domains of the session, in order of first appearance."""
    frames = (session.frames[seq] for seq in sorted(session.frames))
    return list(dict.fromkeys(domain[0] for frame in frames for domain in frame["domains"]))


def _prefixes(names: list[str]) -> list[str]:
    """Column prefixes of letters, digits and underscores: "RPC0[127.0.0.1:50052]" is "rpc0_127_0_0_1_50052"."""
    prefixes: list[str] = []
    for name in names:
        prefix = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "domain"
        while prefix in prefixes:
            prefix += "_2"
        prefixes.append(prefix)
    return prefixes


def _time_cells(row: Sample | SessionEvent, begun: float) -> list[Any]:
    moment = datetime.fromtimestamp(row.time_s, UTC)
    return [moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3], round(row.time_s, 3), round(row.monotonic_s - begun, 3)]


def _event_cells(event: SessionEvent, begun: float) -> list[Any]:
    return [*_time_cells(event, begun), event.kind, event.text, _json(event.values).rstrip() if event.values else None]


def _sample_cells(sample: Sample, begun: float, names: list[str]) -> list[Any]:
    kv, machine = sample.kv, sample.machine
    cells = [*_time_cells(sample, begun), None, None, None, sample.state, sample.engine_pid]
    cells += [kv.cells_used, kv.cells_allocated, kv.bytes_used, kv.bytes_allocated] if kv else [None] * 4
    cells.append(None if sample.tokens_per_second is None else round(sample.tokens_per_second, 3))
    cells += [machine.engine_peak_bytes, machine.cgroup_peak_bytes]
    cells += [machine.engine_swap_bytes, machine.swap_used_bytes, machine.swap_total_bytes]
    for name in names:
        domain = sample.domain(name)
        figures = _domain_object(domain, sample) if domain else {}
        cells += [figures.get(column) for column in CSV_DOMAIN_COLUMNS]
    return cells


@functools.lru_cache(maxsize=256)
def _harmless(value: str) -> str:
    """Text for a CSV cell: on one line, and never beginning as a formula does."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", value)
    if text.lstrip()[:1] in tuple("=+-@＝＋－＠"):
        text = f"'{text}"
    return text


def _event_object(event: SessionEvent) -> dict[str, Any]:
    return {
        "type": "event",
        "time_s": event.time_s,
        "monotonic_s": event.monotonic_s,
        "event": event.kind,
        "text": event.text,
        "values": event.values,
    }


def _sample_object(sample: Sample) -> dict[str, Any]:
    machine = sample.machine
    return {
        "type": "sample",
        "time_s": sample.time_s,
        "monotonic_s": sample.monotonic_s,
        "state": sample.state,
        "engine_pid": sample.engine_pid,
        "tokens_per_second": sample.tokens_per_second,
        "kv": None if sample.kv is None else _kv_object(sample.kv),
        "engine_peak_bytes": machine.engine_peak_bytes,
        "cgroup_peak_bytes": machine.cgroup_peak_bytes,
        "engine_swap_bytes": machine.engine_swap_bytes,
        "swap_used_bytes": machine.swap_used_bytes,
        "swap_total_bytes": machine.swap_total_bytes,
        "margin_bytes": None if sample.margin_bytes < 0 else sample.margin_bytes,
        "predicted_bytes": None if sample.predicted_bytes is None else dict(sample.predicted_bytes),
        "domains": [
            {"name": domain.name, "kind": domain.kind, **_domain_object(domain, sample)} for domain in sample.domains
        ],
    }


def _kv_object(kv: KvState) -> dict[str, int]:
    return {
        "cells_used": kv.cells_used,
        "cells_allocated": kv.cells_allocated,
        "bytes_used": kv.bytes_used,
        "bytes_allocated": kv.bytes_allocated,
    }


def _domain_object(domain: DomainReading, sample: Sample) -> dict[str, Any]:
    return {
        "capacity_bytes": domain.capacity_bytes,
        "available_bytes": domain.available_bytes,
        "used_bytes": domain.used_bytes,
        "engine_bytes": domain.engine_bytes,
        "engine_anonymous_bytes": domain.engine_anonymous_bytes,
        "engine_file_bytes": domain.engine_file_bytes,
        "others_bytes": domain.others_bytes,
        "ceiling_bytes": domain.ceiling_bytes,
        "oom_line_bytes": domain.oom_line(sample.margin_bytes),
        "predicted_bytes": sample.predicted(domain.name),
        "engine_source": domain.engine_source,
    }


def _json(values: Mapping[str, Any]) -> str:
    """One line of strict JSON in ASCII: numbers that JSON has not ("NaN") become text."""
    try:
        return json.dumps(values, allow_nan=False) + "\n"
    except ValueError:
        return json.dumps(json.loads(json.dumps(values), parse_constant=str)) + "\n"
