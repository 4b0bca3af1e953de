"""``kvdesk chat``: the engine from the terminal, without Qt. Streams replies; ``--json`` prints one object at the end."""

from __future__ import annotations

import argparse
import dataclasses
import json
import queue
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from kvdesk.commands.flags import add_flags, given
from kvdesk.errors import EngineError, SettingsError

if TYPE_CHECKING:
    from types import TracebackType

    from kvdesk.backend.engine.engine_event import EngineEvent
    from kvdesk.backend.settings import EngineSettings, SamplingSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags; defaults are those of backend/settings.py."""
    from kvdesk.backend.settings import OVERFLOWS

    parser.add_argument("model", type=Path, help="a GGUF file (of a split model: its first part)")
    parser.add_argument("-p", "--prompt", action="append", required=True, help="a message; several make several turns")
    parser.add_argument("--system", default="", help="system prompt")
    add_flags(parser, "n_ctx", "type_k", "type_v", "flash_attn", "n_gpu_layers", "n_threads", "n_batch", "n_ubatch")
    add_flags(parser, "swa_full", "allocation", "initial_ctx", "rpc_servers")
    add_flags(parser, "max_tokens", "temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed")
    parser.add_argument("--overflow", choices=OVERFLOWS, default="stop", help="what to do when the context is full")
    parser.add_argument("--snapshot-dir", type=Path, help="keep the conversation's KV cache here between runs")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the text")


def run(args: argparse.Namespace) -> int:
    """Chat. Raises KvdeskError with the sentence to print."""
    settings, sampling = _settings(args)
    with _TerminalChat(args, settings, sampling) as chat:
        chat.run()
    return 0


def _settings(args: argparse.Namespace) -> tuple[EngineSettings, SamplingSettings]:
    from kvdesk.backend.settings import (
        ContextSettings,
        EngineSettings,
        ModelSettings,
        SamplingSettings,
        context_problems,
    )

    context = given(args, ContextSettings)
    problems = context_problems(context)
    if problems:
        raise SettingsError("; ".join(problems.values()) + ".")
    return EngineSettings(given(args, ModelSettings), context), given(args, SamplingSettings)


class _TerminalChat:
    """One run: load, turns, report."""

    def __init__(self, args: argparse.Namespace, settings: EngineSettings, sampling: SamplingSettings) -> None:
        from kvdesk import paths
        from kvdesk.backend.conversations.snapshots import DEFAULT_BUDGET_BYTES
        from kvdesk.backend.engine.engine import Engine
        from kvdesk.backend.protocol.messages import SnapshotPlace
        from kvdesk.backend.system.cpu_fallback import remembered
        from kvdesk.commands.terminal_record import TerminalRecord

        self._args = args
        self._sampling = sampling
        self._settings = dataclasses.replace(settings, model=remembered(settings.model, paths.fallback_file()))
        self._events: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()
        self._grown: list[dict[str, Any]] = []
        self._conversions: list[dict[str, Any]] = []
        self._record = TerminalRecord(
            args.overflow, lambda sentence: print(f"kvdesk chat: {sentence}", file=sys.stderr)
        )
        place = SnapshotPlace(str(args.snapshot_dir.absolute()), DEFAULT_BUDGET_BYTES) if args.snapshot_dir else None
        self._engine = Engine(self._on_event, paths.log_dir(), place)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_interrupted = isinstance(error, KeyboardInterrupt)
        if is_interrupted:
            self._record.interrupted()
        self._record.last_sample()
        self._engine.shutdown()
        self._record.close("interrupted" if is_interrupted else "failed" if error else "closed")

    def _on_event(self, event: EngineEvent) -> None:
        """On the engine's thread: recorded at once, shown when the terminal gets to it."""
        self._record.follow(event)
        self._events.put(event)

    def run(self) -> None:
        """Load, answer every prompt, report. Raises what the engine says went wrong."""
        from kvdesk.backend.protocol import messages as m
        from kvdesk.backend.protocol.facts import ChatTurn
        from kvdesk.backend.system.rpc_probe import check_worker

        for endpoint in self._settings.model.rpc_servers:
            check_worker(endpoint)
        path = self._args.model.absolute()
        self._record.loading(path, self._settings)
        self._engine.load(path, self._settings)
        loaded = self._until(m.Loaded)
        turns = [ChatTurn("system", self._args.system)] if self._args.system else []
        report: list[dict[str, Any]] = []
        kv = loaded.context.kv
        for number, prompt in enumerate(self._args.prompt, 1):
            turns.append(ChatTurn("user", prompt))
            text, finished = self._turn(number, tuple(turns))
            turns.append(ChatTurn("assistant", text))
            kv = finished.kv
            report.append({"text": text, **dataclasses.asdict(finished.stats)})
        if self._args.json:
            print(json.dumps(self._report(loaded, report, kv), ensure_ascii=False))

    def _turn(self, number: int, turns: tuple[Any, ...]) -> tuple[str, Any]:
        from kvdesk.backend.protocol import messages as m

        self._engine.send(m.Generate(number, "terminal", turns, self._sampling, self._args.overflow))
        pieces: list[str] = []
        finished = self._until(m.TurnFinished, pieces)
        if not self._args.json:
            stats = finished.stats
            speed = f"{stats.tokens_per_second:.1f} tokens/s, " if stats.tokens_per_second else ""
            print(flush=True)
            print(
                f"[{stats.completion_tokens} tokens, {speed}first after {stats.ttft_ms:.0f} ms, "
                f"prompt {stats.prompt_tokens} ({stats.reused_tokens} reused), ended: {stats.stop_reason}]",
                file=sys.stderr,
            )
        return "".join(pieces), finished

    def _until(self, wanted: type[Any], pieces: list[str] | None = None) -> Any:
        """Take events until one of class ``wanted``. Raises what the engine says went wrong."""
        while True:
            event = self._events.get()
            self._note(event, pieces)
            if isinstance(event, wanted):
                return event

    def _note(self, event: EngineEvent, pieces: list[str] | None) -> None:
        from kvdesk import paths
        from kvdesk.backend.engine import engine_event
        from kvdesk.backend.protocol import messages as m
        from kvdesk.backend.system.cpu_fallback import remember

        match event:
            case m.TextGenerated():
                if pieces is not None:
                    pieces.append(event.text)
                if not self._args.json:
                    print(event.text, end="", flush=True)
            case m.GrowWanted():
                self._engine.send(m.GrowAnswer("stop" if event.failed else "grow"))
                if event.failed:
                    print(f"kvdesk chat: {event.failed}", file=sys.stderr)
            case m.Grown():
                self._grown.append(dataclasses.asdict(event.step))
            case m.ContextMade():
                made = event.context
                self._conversions.append(
                    {"how": made.how, "tokens": made.kept_tokens, "ms": made.elapsed_ms, **made.settings.to_dict()}
                )
            case m.Forgot():
                what = f"{event.n_turns} of the oldest turns" if event.n_turns else f"{event.n_tokens} tokens"
                print(f"kvdesk chat: the context is full; the model no longer sees {what}.", file=sys.stderr)
            case m.Loaded() if event.model.template_problem:
                print(f"kvdesk chat: {event.model.template_problem}", file=sys.stderr)
            case m.Failed():
                raise EngineError(event.sentence)
            case engine_event.FellBack():
                self._settings = event.settings
                remember(paths.fallback_file())
                print(
                    "kvdesk chat: this machine cannot compute with repacked weights (the engine crashed in its warm-up); "
                    "started again without them, and remembered.",
                    file=sys.stderr,
                )
            case engine_event.Died():
                raise event.error
            case _:
                pass

    def _report(self, loaded: Any, turns: list[dict[str, Any]], kv: Any) -> dict[str, Any]:
        """The JSON contract: bytes, milliseconds, tokens. Keys stay once they are named."""
        sample = self._record.last_sample()
        ram = next(d for d in sample.domains if d.kind == "ram")
        return {
            "model": dataclasses.asdict(loaded.model),
            "settings": {**self._settings.to_dict(), "sampling": self._sampling.to_dict()},
            "turns": turns,
            "kv": {**dataclasses.asdict(kv), "grow_events": self._grown, "conversions": self._conversions},
            "memory": {
                "rss_bytes": ram.engine_bytes,
                "peak_rss_bytes": sample.machine.engine_peak_bytes,
                "anonymous_bytes": ram.engine_anonymous_bytes,
                "file_bytes": ram.engine_file_bytes,
                "devices": [
                    {"name": d.name, "used_bytes": d.engine_bytes, "total_bytes": d.capacity_bytes}
                    for d in sample.domains
                    if d.kind != "ram"
                ],
            },
        }
