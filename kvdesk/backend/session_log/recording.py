"""What happens in a session, on record: stamps the monitor's samples and writes the recorder's rows. No Qt.

``rows_of`` says which event makes which rows, with the values that docs/MEMORY_LOG.md promises, for window and terminal
alike. ``Recording`` does it: changes arrive on the thread of their event, samples on the monitor's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kvdesk.backend.engine.crash_report import crash_values
from kvdesk.backend.engine.engine_event import Died, EngineState, FellBack, StateChanged
from kvdesk.backend.planning.device_plan import domain_name
from kvdesk.backend.planning.headroom_watch import HeadroomWatch, RoomChanged
from kvdesk.backend.planning.plan_event import Compared, GrowthPriced
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ContextFacts, StopReason
from kvdesk.backend.session.session_event import Change, LoadBegun
from kvdesk.backend.session.state import SessionState
from kvdesk.backend.session_log.recorder import Recorder
from kvdesk.backend.settings import EngineSettings
from kvdesk.backend.system.monitor import Monitor
from kvdesk.backend.system.samples import Sample
from kvdesk.shown_text import shown_text
from kvdesk.sizes import format_bytes

LONGEST_TEXT = 2000
"""Characters of a row's sentence, which may quote a file or a process."""


@dataclass(frozen=True)
class Row:
    """One event of the session log: one of recorder.EVENT_KINDS, a sentence, JSON values."""

    kind: str
    text: str
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Recording:
    """Joins one session to one recorder and one monitor. ``on_change`` and ``on_sample`` are their callbacks."""

    def __init__(
        self,
        recorder: Recorder,
        monitor: Monitor,
        on_row: Callable[[Row], None] = lambda _: None,
        on_room: Callable[[RoomChanged], None] = lambda _: None,
    ) -> None:
        """``on_row`` gets every row (a mark in a chart), ``on_room`` every crossing of an alarm, on the thread where it
        happens; both return at once."""
        self._recorder = recorder
        self._monitor = monitor
        self._on_row = on_row
        self._on_room = on_room
        self._watch = HeadroomWatch()

    def on_change(self, change: Change) -> None:
        """Let the next samples know of ``change``, and write its rows."""
        self._stamp(change.before, change.now)
        for row in rows_of(change):
            self.note(row)

    def on_sample(self, sample: Sample) -> None:
        """Write a sample, and say when the room under a line gets short or is well again."""
        self._recorder.sample(sample)
        for change in self._watch.feed(sample):
            values = {"domain": change.domain, "room_bytes": change.room_bytes}
            self.note(Row("warning" if change.worse else "note", room_sentence(change), values))
            self._on_room(change)

    def note(self, row: Row) -> None:
        """Write a row of one's own."""
        row = dataclasses.replace(row, text=shown_text(row.text, LONGEST_TEXT))
        self._recorder.event(row.kind, row.text, row.values)
        self._on_row(row)

    def _stamp(self, before: SessionState, now: SessionState) -> None:
        monitor = self._monitor
        if now.engine is not before.engine:
            monitor.set_state(now.engine.value)
        if now.pid != before.pid:
            monitor.set_engine(now.pid)
        if now.devices != before.devices:
            monitor.set_devices(now.devices)
        if now.context is not before.context:
            monitor.set_buffers(now.context.buffers if now.context else ())
            monitor.set_kv(now.context.kv if now.context else None)
        if now.tokens_per_second != before.tokens_per_second:
            monitor.set_speed(now.tokens_per_second)
        if now.predicted is not before.predicted:
            rows = now.predicted.devices if now.predicted else ()
            monitor.set_predicted(
                [(row.name, row.total_bytes) for row in rows] or None, [(row.name, row.must_hold_bytes) for row in rows]
            )
        if now.margin_bytes != before.margin_bytes:
            monitor.set_margin(now.margin_bytes)


def rows_of(change: Change) -> Iterable[Row]:
    """The rows of one change, most often none."""
    match change.event:
        case LoadBegun() | m.Loaded() | m.ContextMade() | m.Grown() | FellBack():
            return _rows_of_settings(change)
        case Died() as died:
            return [Row("crash", str(died.error), crash_values(died.error))]
        case m.Unloaded() if change.before.model:
            return [Row("unload", f"Unloaded {change.before.model.name}")]
        case StateChanged(now=EngineState.STOPPED) if change.before.model:
            return [Row("unload", f"Unloaded {change.before.model.name}")]
        case Compared() if change.now.comparison and not change.before.comparison:
            return [Row("predicted", "Predicted against actual", {"components": _compared(change.now)})]
        case _:
            return _rows_of_reply(change)


def _rows_of_settings(change: Change) -> Iterable[Row]:
    before, now = change.before.in_force.settings, change.now.in_force.settings
    match change.event:
        case LoadBegun(choice) if choice.file:
            values = {"model": choice.file.name, "path": str(choice.file.path), "settings": choice.settings.to_dict()}
            return [Row("load", f"Loading {choice.file.name}", values)]
        case m.Loaded() as event:
            values = {"model": event.model.name, "elapsed_ms": event.elapsed_ms, "components": _held(event.context)}
            return [Row("ready", f"Ready after {event.elapsed_ms / 1000:.1f} s", values)]
        case m.ContextMade(context):
            values = {"how": context.how, **_difference(before, now), "components": _held(context)}
            return [Row("settings", context_sentence(context), values)]
        case m.Grown(step, context):
            values = {"at_tokens": step.at_tokens, "from_cells": step.from_cells, "to_cells": step.to_cells}
            words = "Context grown" if step.to_cells > step.from_cells else "Memory is short: context shrunk"
            text = f"{words} from {step.from_cells:,} to {step.to_cells:,} tokens in {step.ms:.0f} ms"
            return [Row("grow", text, {**values, "ms": step.ms, "components": _held(context)})]
        case FellBack(settings, error):
            asked = change.before.pending[0].choice.settings if change.before.pending else before
            text = "Started again without repacked weights"
            return [
                Row("crash", str(error), crash_values(error)),
                Row("settings", text, _difference(asked, settings)),
            ]
        case _:
            return []


def _rows_of_reply(change: Change) -> Iterable[Row]:
    reply = change.before.reply
    policy = reply.overflow if reply else ""
    match change.event:
        case m.Forgot() as event:
            return [_overflow(f"The model no longer sees {event.n_tokens:,} tokens", policy, event.n_tokens)]
        case m.GrowWanted() as event if event.failed:
            return [_overflow(event.failed, policy, 0)]
        case GrowthPriced() if change.now.growth and change.now.growth.cost and change.now.growth.cost.fits is False:
            cells = change.now.growth.wanted.to_cells
            return [_overflow(f"Growing to {cells:,} tokens would go over the OOM line", policy, 0)]
        case m.TurnFinished() as event if event.stats.stop_reason is StopReason.CONTEXT_FULL:
            return [_overflow("The reply ended because the context is full", policy, 0)]
        case m.TurnFinished() as event if event.stats.stop_reason is StopReason.CANCELLED:
            return [Row("cancel", "The reply was stopped")]
        case m.Failed() as event if event.request_id == 0 or (reply and event.request_id == reply.request_id):
            if event.kind == "PromptTooLong":
                return [_overflow(event.sentence, policy, 0)]
            return [Row("cancel" if event.kind == "LoadCancelled" else "warning", event.sentence)]
        case _:
            return []


def context_sentence(context: ContextFacts) -> str:
    """How a context was made anew, and what became of its tokens."""
    done = {
        "moved": "its {0:,} tokens were moved, nothing was read again",
        "converted": "its {0:,} tokens were converted, nothing was read again",
        "reread": "its {0:,} tokens were read again",
        "dropped": "its tokens did not fit and will be read again with the next message",
        "new": "it was empty",
    }[context.how].format(context.kept_tokens)
    return f"Context recreated in {context.elapsed_ms:.0f} ms without reloading the weights; {done}."


def room_sentence(change: RoomChanged) -> str:
    """What an alarm about memory says."""
    size = format_bytes(abs(change.room_bytes))
    if change.is_slow:
        words = f"At full context length {size} of the weights are read from disk again and again: slow."
    elif change.room_bytes < 0:
        words = f"At full context length this chat goes {size} over the OOM line of {change.domain}."
    else:
        words = f"At full context length {size} are left under the OOM line of {change.domain}."
    return words if change.worse else f"Memory is easier again. {words}"


def _overflow(text: str, policy: str, forgotten_tokens: int) -> Row:
    return Row("overflow", text, {"policy": policy, "forgotten_tokens": forgotten_tokens})


def _held(context: ContextFacts) -> list[dict[str, Any]]:
    """What llama.cpp holds, as the log names it: what is drawn of the samples after it."""
    return [
        {"domain": domain_name(one.device), "name": one.kind.value, "predicted_bytes": None, "actual_bytes": one.size_bytes}
        for one in context.buffers
    ]  # fmt: skip


def _compared(state: SessionState) -> list[dict[str, Any]]:
    return [
        {
            "domain": row.domain,
            "name": row.component,
            "predicted_bytes": row.predicted_bytes,
            "actual_bytes": row.actual_bytes,
        }
        for row in (state.comparison.rows if state.comparison else ())
    ]


def _difference(before: EngineSettings, after: EngineSettings) -> dict[str, Any]:
    """What changed, nested as in the settings file."""
    return {
        "from": _what_differs(before.to_dict(), after.to_dict()),
        "to": _what_differs(after.to_dict(), before.to_dict()),
    }


def _what_differs(values: Any, other: Any) -> dict[str, Any]:
    """The entries of ``values``, nested, that ``other`` has not or has otherwise."""
    differing: dict[str, Any] = {}
    for name, value in values.items():
        if other.get(name) != value:
            nested = isinstance(value, dict) and isinstance(other.get(name), dict)
            differing[name] = _what_differs(value, other[name]) if nested else value
    return differing
