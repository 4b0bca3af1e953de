"""A recorded session as a Markdown report for a bug tracker: versions, machine, model, settings, predicted against actual,
events, the last minute. docs/MEMORY_LOG.md says which events' values it shows. Any thread, no Qt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from kvdesk.backend.session_log.reader import Session
from kvdesk.backend.system.samples import Sample
from kvdesk.shown_text import shown_line
from kvdesk.sizes import format_bytes, format_bytes_delta

_MAX_EVENTS = 100
_LONGEST_TEXT = 1000
_STEP_S = 5.0


def report(session: Session) -> str:
    """The report; every text that comes from outside is inside a code span, and the user's home folder is "~"."""
    parts = [
        "# kvdesk memory report",
        _about(session),
        _section("Model and settings", _settings(session)),
        _section("Predicted and actual", _predictions(session)),
        _section("Events", _events(session)),
        _section("The last minute", _last_minute(session)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(session: Session) -> str:
    header, summary = session.header, session.summary
    facts: dict[str, Any] = {
        "kvdesk": f"{summary.version} ({summary.app})",
        "session": summary.session_id,
        "started": None if summary.started_s is None else _moment(summary.started_s),
        "lasted": None if summary.duration_s is None else f"{summary.duration_s:.0f} s",
        "ended": summary.how_ended,
        "engine's peak": format_bytes(summary.peak_bytes),
        "system": header.get("system"),
        "Python": header.get("python"),
        "CPUs": header.get("cpus"),
        **_capacities(session),
        **(header.get("details") or {}),
    }
    lines = [f"- {_word(name)}: {_code(value)}" for name, value in facts.items() if value not in (None, "")]
    if session.damaged:
        lines.append("- The log is damaged: this is what could be read of it.")
    return "\n".join(lines)


def _capacities(session: Session) -> dict[str, str]:
    frames = (session.frames[seq] for seq in sorted(session.frames))
    return {domain[0]: format_bytes(domain[2]) for frame in frames for domain in frame["domains"]}


def _settings(session: Session) -> str:
    """What the last load and the later changes of settings say, the newest word for each."""
    known: dict[str, Any] = {}
    for event in session.events:
        if event.kind in ("load", "ready"):
            known.update(_flat(event.values))
        elif event.kind == "settings":
            known.update(_flat({"settings": event.values.get("to", {})}))
    return "\n".join(f"- {_word(name)}: {_code(value)}" for name, value in known.items())


def _predictions(session: Session) -> str:
    """The last comparison that was recorded; without one, each domain's prediction beside the engine's largest use."""
    compared = [event.values.get("components") for event in session.events if event.kind == "predicted"]
    components = next((rows for rows in reversed(compared) if rows), None)
    if components is None:
        return _table(["domain", "predicted at full context", "largest so far"], _peaks(session))
    rows: list[list[str]] = []
    for one in components:
        predicted, actual = one.get("predicted_bytes"), one.get("actual_bytes")
        error = "" if predicted is None or actual is None else format_bytes_delta(actual - predicted)
        names = [_code(one.get("domain", "")), _code(one.get("name", ""))]
        rows.append([*names, format_bytes(predicted), format_bytes(actual), error])
    return _table(["domain", "component", "predicted", "actual", "error"], rows)


def _peaks(session: Session) -> list[list[str]]:
    predicted: dict[str, int] = {}
    for seq in sorted(session.frames):
        predicted.update(session.frames[seq]["predicted_bytes"] or {})
    return [[_code(name), format_bytes(size), format_bytes(session.peak_in(name))] for name, size in predicted.items()]


def _events(session: Session) -> str:
    shown = session.events[-_MAX_EVENTS:]
    rows = [[_moment(event.time_s), _code(event.kind), _code(event.text)] for event in shown]
    left_out = len(session.events) - len(shown)
    note = f"The first {left_out} events are left out.\n\n" if left_out else ""
    return note + _table(["time", "event", "what happened"], rows)


def _last_minute(session: Session) -> str:
    samples = _thinned(session.last_minute())
    names = list(dict.fromkeys(domain.name for sample in samples for domain in sample.domains))
    figures = ("engine", "others", "available", "line")
    head = ["time", "state", "KV cells", "tokens/s"]
    head += [f"{_code(name)} {figure}" for name in names for figure in figures]
    rows: list[list[str]] = []
    for sample in samples:
        kv, speed = sample.kv, sample.tokens_per_second
        row = [_moment(sample.time_s), _code(sample.state), f"{kv.cells_used} / {kv.cells_allocated}" if kv else ""]
        row.append("" if speed is None else f"{speed:.1f}")
        for domain in [sample.domain(name) for name in names]:
            sizes = (
                (domain.engine_bytes, domain.others_bytes, domain.available_bytes, domain.oom_line(sample.margin_bytes))
                if domain
                else (None,) * len(figures)
            )
            row += [format_bytes(size) for size in sizes]
        rows.append(row)
    return _table(head, rows)


def _thinned(samples: list[Sample]) -> list[Sample]:
    """A sample every few seconds, and always the last."""
    kept: list[Sample] = []
    for sample in samples:
        if not kept or sample.monotonic_s - kept[-1].monotonic_s >= _STEP_S or sample is samples[-1]:
            kept.append(sample)
    return kept


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _table(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Nested values as "context.n_ctx" pairs."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(cast("dict[str, Any]", value), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _moment(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _word(name: str) -> str:
    return re.sub(r"[^\w .'/-]+", " ", str(name))


def _code(value: Any) -> str:
    """Text from outside as one code span that holds in a table: nothing in it is markup, a mention or a line end."""
    text = str(value).replace(str(Path.home()), "~")
    text = shown_line(text, _LONGEST_TEXT).replace("`", "'").replace("|", "\u00a6").strip()
    return f"`{text}`" if text else ""
