"""The session memory log of one ``kvdesk chat``: joins engine, monitor and recorder. No Qt, nothing printed.

``follow`` runs on the engine's thread, the room watch on the monitor's; the caller's thread does the rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvdesk import __version__, paths
from kvdesk.errors import KvdeskError

if TYPE_CHECKING:
    from kvdesk.backend.engine.engine_event import EngineEvent
    from kvdesk.backend.settings import EngineSettings
    from kvdesk.backend.system.samples import Sample


class TerminalRecord:
    """On record from here to ``close``: a sample twice a second, and every event that is shown to ``follow``."""

    def __init__(self, overflow: str, on_warning: Callable[[str], None]) -> None:
        """``overflow`` is the policy at a full context; ``on_warning`` gets a sentence when memory gets short."""
        from kvdesk.backend.planning.headroom_watch import HeadroomWatch
        from kvdesk.backend.preferences import FILE_NAME, load_preferences
        from kvdesk.backend.session_log.recorder import Recorder
        from kvdesk.backend.system.machine import Machine
        from kvdesk.backend.system.monitor import Monitor

        chosen, _ = load_preferences(paths.config_dir() / FILE_NAME)
        versions = {"llama-cpp-python": importlib.metadata.version("llama-cpp-python")}
        self._overflow = overflow
        self._on_warning = on_warning
        self._model = ""
        self._is_loaded = False
        self._settings: EngineSettings | None = None
        self._last: Sample | None = None
        self._watch = HeadroomWatch()
        self._recorder = Recorder(paths.sessions_dir(), "chat", __version__, versions, chosen.log_budget_bytes)
        self._monitor = Monitor(Machine().read)
        self._monitor.set_margin(chosen.margin_bytes)
        self._monitor.add_callback(self._recorder.sample)
        self._monitor.add_callback(self._watch_room)
        self._monitor.start()

    def loading(self, path: Path, settings: EngineSettings) -> None:
        """The engine is about to load ``path``. Finds out beforehand what that will take at full context length.

        A network worker serves one client at a time, so with one the answer is waited for.
        """
        self._model, self._settings = path.name, settings
        values = {"model": path.name, "path": str(path), "settings": settings.to_dict()}
        self._recorder.event("load", f"Loading {path.name}", values)
        if settings.model.rpc_servers:
            self._predict(path, settings)
        else:
            threading.Thread(target=self._predict_aside, args=(path, settings), name="prediction", daemon=True).start()

    def follow(self, event: EngineEvent) -> None:
        """Record what ``event`` says, and let the next samples know of it."""
        from kvdesk.backend.engine import engine_event
        from kvdesk.backend.engine.crash_report import crash_values
        from kvdesk.backend.protocol import messages as m
        from kvdesk.backend.protocol.facts import StopReason

        monitor, record = self._monitor, self._recorder.event
        match event:
            case engine_event.StateChanged():
                monitor.set_state(event.now.value)
                monitor.set_engine(event.pid)
                if event.now is engine_event.EngineState.STOPPED and self._is_loaded:
                    record("unload", f"Unloaded {self._model}")
            case engine_event.Died():
                self._is_loaded = False
                record("crash", str(event.error), crash_values(event.error))
            case engine_event.FellBack():
                record("crash", str(event.error), crash_values(event.error))
                self._settings_changed("Started again without repacked weights", event.settings)
            case m.Started():
                monitor.set_devices(event.devices)
            case m.Loaded():
                self._is_loaded = True
                monitor.set_devices(event.devices)
                self._context_made(event.context)
                values = {"model": event.model.name or self._model, "elapsed_ms": event.elapsed_ms}
                record("ready", f"Ready after {event.elapsed_ms / 1000:.1f} s", values)
            case m.ContextMade():
                self._context_made(event.context)
            case m.Grown():
                step = event.step
                self._context_made(event.context)
                values = {"at_tokens": step.at_tokens, "from_cells": step.from_cells, "to_cells": step.to_cells}
                text = f"Context grown from {step.from_cells:,} to {step.to_cells:,} tokens"
                record("grow", text, {**values, "ms": step.ms})
            case m.KvChanged():
                monitor.set_kv(event.kv)
            case m.TextGenerated():
                monitor.set_speed(event.tokens_per_second)
            case m.Forgot():
                self._overflowed(f"The model no longer sees {event.n_tokens:,} tokens", event.n_tokens)
            case m.TurnFinished():
                monitor.set_kv(event.kv)
                monitor.set_speed(None)
                if event.stats.stop_reason is StopReason.CONTEXT_FULL:
                    self._overflowed("The reply ended because the context is full", 0)
                elif event.stats.stop_reason is StopReason.CANCELLED:
                    record("cancel", "The reply was stopped")
            case m.Failed():
                if event.kind == "PromptTooLong":
                    self._overflowed(event.sentence, 0)
                else:
                    record("cancel" if event.kind == "LoadCancelled" else "warning", event.sentence)
            case _:
                pass

    def last_sample(self) -> Sample:
        """One more sample, the last: call it while the engine still lives, so that its peak is on record."""
        if self._last is None:
            self._monitor.stop()
            self._last = self._monitor.sample()
            self._recorder.sample(self._last)
        return self._last

    def interrupted(self) -> None:
        """The person ended it from the terminal."""
        self._recorder.event("cancel", "Interrupted from the terminal")

    def close(self, reason: str) -> None:
        """The end, after that of the engine."""
        self._monitor.stop()
        self._recorder.close(reason)

    def _context_made(self, context: Any) -> None:
        self._monitor.set_buffers(context.buffers)
        self._monitor.set_kv(context.kv)
        if self._settings and context.settings != self._settings.context:
            changed = dataclasses.replace(self._settings, context=context.settings)
            self._settings_changed("The context was made anew with other settings", changed)

    def _settings_changed(self, text: str, settings: EngineSettings) -> None:
        before, after = self._settings.to_dict() if self._settings else {}, settings.to_dict()
        self._settings = settings
        self._recorder.event(
            "settings", text, {"from": _what_differs(before, after), "to": _what_differs(after, before)}
        )

    def _overflowed(self, text: str, forgotten_tokens: int) -> None:
        self._recorder.event("overflow", text, {"policy": self._overflow, "forgotten_tokens": forgotten_tokens})

    def _watch_room(self, sample: Sample) -> None:
        from kvdesk.backend.planning.plan import size_words

        for change in self._watch.feed(sample):
            if not change.worse:
                continue
            room = size_words(abs(change.room_bytes))
            words = f"{room} are left under" if change.room_bytes >= 0 else f"this chat goes {room} over"
            sentence = f"At full context length {words} the OOM line of {change.domain}."
            self._recorder.event("warning", sentence, {"domain": change.domain, "room_bytes": change.room_bytes})
            self._on_warning(sentence)

    def _predict_aside(self, path: Path, settings: EngineSettings) -> None:
        """As ``_predict``, for a thread of its own that leaves the processor to the engine (Linux)."""
        with contextlib.suppress(AttributeError, OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        self._predict(path, settings)

    def _predict(self, path: Path, settings: EngineSettings) -> None:
        from kvdesk.backend.gguf.model_file import read_model_file
        from kvdesk.backend.planning.calibration import Calibration
        from kvdesk.backend.planning.pricer import Pricer

        with contextlib.suppress(KvdeskError):  # the load itself will say what is wrong
            with Pricer(read_model_file(path), Calibration(paths.calibration_file())) as pricer:
                plan = pricer.plan(settings, (), with_max=False)
            self._monitor.set_predicted([(device.name, device.total_bytes) for device in plan.devices])


def _what_differs(values: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The entries of ``values``, nested, that ``other`` has not or has otherwise."""
    differing: dict[str, Any] = {}
    for name, value in values.items():
        if other.get(name) != value:
            nested = isinstance(value, dict) and isinstance(other.get(name), dict)
            differing[name] = _what_differs(value, other[name]) if nested else value
    return differing
