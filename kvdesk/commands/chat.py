"""``kvdesk chat``: the engine from the terminal, without Qt. Streams replies; ``--json`` prints one object at the end."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import queue
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from kvdesk.commands.flags import add_flags, given
from kvdesk.commands.template import template_choice
from kvdesk.errors import EngineDied, EngineError, KvdeskError, SettingsError
from kvdesk.sizes import GIB
from kvdesk.terminal import say, say_beside, say_json

if TYPE_CHECKING:
    from types import TracebackType

    from kvdesk.backend.planning.headroom_watch import RoomChanged
    from kvdesk.backend.protocol.messages import Loaded, TextGenerated
    from kvdesk.backend.sampling import SamplingSettings
    from kvdesk.backend.session.session_event import Change
    from kvdesk.backend.session.state import Choice, SessionState
    from kvdesk.backend.settings import EngineSettings
    from kvdesk.backend.system.samples import Sample

PLANNER_NICENESS = 10
"""The price is for the record; the processor is the engine's (Linux)."""
PRICED_FIRST_BYTES = GIB
"""Weights from which on the price is asked before the load, not beside it: it takes half a second."""
COMPARISON_WAIT_S = 5.0
"""How long the end of a chat may wait for the planner's comparison, after everything is printed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags; defaults are those of backend/settings.py and backend/sampling.py."""
    from kvdesk.backend.sampling import SamplingSettings
    from kvdesk.backend.settings import OVERFLOWS

    parser.add_argument("model", type=Path, help="a GGUF file (of a split model: its first part)")
    parser.add_argument("-p", "--prompt", action="append", required=True, help="a message; several make several turns")
    parser.add_argument("--system", default="", help="system prompt")
    add_flags(
        parser,
        "n_ctx",
        "type_k",
        "type_v",
        "flash_attn",
        "n_gpu_layers",
        "n_cpu_moe",
        "offload_kqv",
        "n_threads",
        "n_batch",
        "n_ubatch",
    )
    add_flags(parser, "swa_full", "n_seq_max", "use_mmap", "allocation", "initial_ctx", "rpc_servers")
    add_flags(parser, *(field.name for field in dataclasses.fields(SamplingSettings)))
    parser.add_argument(
        "--chat-template",
        metavar="FILE|NAME",
        help="another template: a Jinja file, a built-in one of llama.cpp's (chatml, ...), or plain",
    )
    parser.add_argument("--grammar-file", type=Path, help="the grammar, or JSON schema, is in this file")
    parser.add_argument("--overflow", choices=OVERFLOWS, default="stop", help="what to do when the context is full")
    parser.add_argument("--snapshot-dir", type=Path, help="keep the conversation's KV cache here between runs")
    parser.add_argument("--anyway", action="store_true", help="load also what does not fit into this machine's memory")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the text")


def run(args: argparse.Namespace) -> int:
    """Chat. Raises KvdeskError with the sentence to print."""
    settings, sampling = _settings(args)
    with _TerminalChat(args, settings, sampling) as chat:
        chat.run()
    return 0


def _settings(args: argparse.Namespace) -> tuple[EngineSettings, SamplingSettings]:
    from kvdesk.backend.sampling import SamplingSettings, sampling_problems
    from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings, context_problems
    from kvdesk.backend.text_file import read_text

    context = given(args, ContextSettings)
    problems = context_problems(context)
    if problems:
        raise SettingsError("; ".join(problems.values()) + ".")
    sampling = given(args, SamplingSettings)
    if args.grammar_file:
        sampling = dataclasses.replace(sampling, grammar=read_text(args.grammar_file))
    problems = sampling_problems(sampling)
    if problems:
        raise SettingsError("; ".join(problems.values()) + ".")
    return EngineSettings(given(args, ModelSettings), context), sampling


class _TerminalChat:
    """One run: load, turns, report, all of it on record."""

    def __init__(self, args: argparse.Namespace, settings: EngineSettings, sampling: SamplingSettings) -> None:
        from kvdesk import paths
        from kvdesk.backend.system.cpu_fallback import remembered

        self._args = args
        self._sampling = sampling
        self._settings = dataclasses.replace(settings, model=remembered(settings.model, paths.fallback_file()))
        self._changes: queue.SimpleQueue[Change] = queue.SimpleQueue()
        self._grown: list[dict[str, Any]] = []
        self._conversions: list[dict[str, Any]] = []
        self._last: Sample | None = None
        self._start_services()

    def _start_services(self) -> None:
        from kvdesk import __version__, paths
        from kvdesk.backend.conversations.snapshots import DEFAULT_BUDGET_BYTES
        from kvdesk.backend.engine.engine import Engine
        from kvdesk.backend.planning.planner import Planner
        from kvdesk.backend.preferences import FILE_NAME, load_preferences
        from kvdesk.backend.protocol.messages import SnapshotPlace
        from kvdesk.backend.session.session import Session
        from kvdesk.backend.session_log.recorder import Recorder
        from kvdesk.backend.session_log.recording import Recording
        from kvdesk.backend.system.machine import Machine, read_domains
        from kvdesk.backend.system.monitor import Monitor

        chosen, _ = load_preferences(paths.config_dir() / FILE_NAME)
        versions = {"llama-cpp-python": importlib.metadata.version("llama-cpp-python")}
        self._recorder = Recorder(paths.sessions_dir(), "chat", __version__, versions, chosen.log_budget_bytes)
        self._monitor = monitor = Monitor(Machine().read)
        monitor.set_margin(chosen.margin_bytes)
        self._recording = Recording(self._recorder, monitor, on_room=self._on_room)
        self._session = session = Session(monitor.held, chosen.margin_bytes)
        folder = self._args.snapshot_dir
        place = SnapshotPlace(str(folder.absolute()), DEFAULT_BUDGET_BYTES) if folder else None
        self._engine = Engine(session.take, paths.log_dir(), place)
        self._planner = Planner(
            session.take,
            lambda: monitor.latest.domains if monitor.latest else read_domains(),
            paths.calibration_file(),
            chosen.margin_bytes,
            niceness=PLANNER_NICENESS,
        )
        session.attach(self._engine, self._planner)
        session.add_listener(self._recording.on_change)
        session.add_listener(self._changes.put)
        monitor.add_callback(self._recording.on_sample)
        monitor.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from kvdesk.backend.session_log.recording import Row

        is_interrupted = isinstance(error, KeyboardInterrupt)
        if is_interrupted:
            self._recording.note(Row("cancel", "Interrupted from the terminal"))
        self._last_sample()
        self._engine.shutdown()
        self._planner.stop()
        self._recorder.close("interrupted" if is_interrupted else "failed" if error else "closed")

    def _last_sample(self) -> Sample:
        """One more sample, the last, taken while the engine still lives, so that its peak is on record."""
        if self._last is None:
            self._monitor.stop()
            self._last = self._monitor.sample()
            self._recorder.sample(self._last)
        return self._last

    def _on_room(self, change: RoomChanged) -> None:
        """On the monitor's thread."""
        from kvdesk.backend.session_log.recording import room_sentence

        if change.worse:
            self._say(room_sentence(change))

    def _say(self, sentence: str) -> None:
        say_beside(f"kvdesk chat: {sentence}")

    def run(self) -> None:
        """Load, answer every prompt, report. Raises what the engine says went wrong."""
        from kvdesk.backend.protocol.facts import ChatTurn

        loaded = self._load()
        turns = [ChatTurn("system", self._args.system)] if self._args.system else []
        report: list[dict[str, Any]] = []
        kv = loaded.context.kv
        for number, prompt in enumerate(self._args.prompt, 1):
            turns.append(ChatTurn("user", prompt))
            text, thought, finished = self._turn(number, tuple(turns))
            turns.append(ChatTurn("assistant", text, thought))
            kv = finished.kv
            report.append({"text": text, "reasoning": thought, **dataclasses.asdict(finished.stats)})
        if self._args.json:
            say_json(self._report(loaded, report, kv))
        self._wait_for_comparison()

    def _load(self) -> Loaded:
        from kvdesk.backend.gguf.model_file import read_model_file
        from kvdesk.backend.protocol import messages as m
        from kvdesk.backend.session.state import Choice
        from kvdesk.backend.session_log.recording import Row
        from kvdesk.backend.system.rpc_probe import check_worker

        for endpoint in self._settings.model.rpc_servers:
            check_worker(endpoint)
        try:
            choice = Choice(
                read_model_file(self._args.model.absolute()), self._settings, template_choice(self._args.chat_template)
            )
            self._check_room(choice)
        except KvdeskError as error:
            self._recording.note(Row("warning", str(error)))
            raise
        self._session.load(choice)
        loaded = self._until(m.Loaded)
        recommended = {n: v for n, v in loaded.model.recommended_sampling if getattr(self._args, n) is None}
        self._sampling = dataclasses.replace(self._sampling, **recommended)
        return loaded

    def _check_room(self, choice: Choice) -> None:
        """Have a load that could be too large priced first. Raises EngineError with the plan's verdict when it does not fit
        and was not asked for all the same. What grows step by step is priced at each step instead."""
        assert choice.file
        choice.file.check_loadable()
        grows = self._settings.context.allocation == "grow"
        rpc_servers = self._settings.model.rpc_servers  # a network worker serves one client at a time
        if grows and not rpc_servers and choice.file.tensor_bytes < PRICED_FIRST_BYTES:
            return
        self._session.ask_load(choice)
        while (asked := self._session.state.asked) and not asked.is_priced:
            self._note(self._changes.get(), None)
        verdict = asked.plan.verdict if asked and asked.plan else None
        too_large = ("will-be-killed", "does-not-fit") if grows else ("will-be-killed", "does-not-fit", "fits-up-to")
        if verdict and verdict.kind in too_large and not self._args.anyway:
            raise EngineError(f"{verdict.sentence}. Nothing was loaded; --anyway loads it all the same.")

    def _wait_for_comparison(self) -> None:
        """Predicted against actual is on record when the chat ends, if it can be known soon."""
        until = time.monotonic() + COMPARISON_WAIT_S
        with contextlib.suppress(queue.Empty):
            while not self._session.state.comparison:
                self._changes.get(timeout=max(0.0, until - time.monotonic()))

    def _turn(self, number: int, turns: tuple[Any, ...]) -> tuple[str, str, Any]:
        """Have the last message answered: answer, thought and TurnFinished."""
        from kvdesk.backend.protocol import messages as m

        self._session.generate(m.Generate(number, "terminal", turns, self._sampling, self._args.overflow))
        pieces: list[TextGenerated] = []
        finished = self._until(m.TurnFinished, pieces)
        if not self._args.json:
            stats = finished.stats
            speed = f"{stats.tokens_per_second:.1f} tokens/s, " if stats.tokens_per_second else ""
            say()
            say_beside(
                f"[{stats.completion_tokens} tokens, {speed}first after {stats.ttft_ms:.0f} ms, "
                f"prompt {stats.prompt_tokens} ({stats.reused_tokens} reused), ended: {stats.stop_reason}]"
            )
        thought = "".join(piece.thought for piece in pieces).strip()
        return "".join(piece.text for piece in pieces), thought, finished

    def _until(self, wanted: type[Any], pieces: list[TextGenerated] | None = None) -> Any:
        """Take events until one of class ``wanted``. Raises what the engine says went wrong."""
        while True:
            change = self._changes.get()
            self._note(change, pieces)
            if isinstance(change.event, wanted):
                return change.event

    def _note(self, change: Change, pieces: list[TextGenerated] | None) -> None:
        from kvdesk.backend.engine.engine_event import Died
        from kvdesk.backend.protocol import messages as m

        match change.event:
            case m.TextGenerated() as event:
                if pieces is not None:
                    pieces.append(event)
                if not self._args.json:
                    say_beside(event.thought, end="")
                    say(event.text, end="")
            case m.GrowWanted() as event:
                self._session.answer_growth(m.GrowAnswer("stop" if event.failed else "grow"))
                if event.failed:
                    self._say(event.failed)
            case m.Grown(step=step):
                self._grown.append(dataclasses.asdict(step))
            case m.ContextMade(context=made):
                self._conversions.append(
                    {"how": made.how, "tokens": made.kept_tokens, "ms": made.elapsed_ms, **made.settings.to_dict()}
                )
            case m.Failed() as event:
                raise (SettingsError if event.kind == SettingsError.__name__ else EngineError)(event.sentence)
            case Died() as event:
                raise _with_way_out(event.error, change.now)
            case _:
                self._warn(change)

    def _warn(self, change: Change) -> None:
        """Say what the person should know beside the reply."""
        from kvdesk import paths
        from kvdesk.backend.engine.engine_event import FellBack
        from kvdesk.backend.protocol import messages as m
        from kvdesk.backend.system.cpu_fallback import remember

        match change.event:
            case m.Forgot() as event:
                what = f"{event.n_turns} of the oldest turns" if event.n_turns else f"{event.n_tokens} tokens"
                self._say(f"the context is full; the model no longer sees {what}.")
            case m.Loaded() as event if event.model.template_problem:
                self._say(event.model.template_problem)
            case FellBack():
                remember(paths.fallback_file())
                self._say(
                    "this machine cannot compute with repacked weights (the engine crashed in its warm-up); "
                    "started again without them, and remembered."
                )
            case _:
                pass

    def _report(self, loaded: Any, turns: list[dict[str, Any]], kv: Any) -> dict[str, Any]:
        """The JSON contract: bytes, milliseconds, tokens. Keys stay once they are named."""
        sample = self._last_sample()
        ram = next(d for d in sample.domains if d.kind == "ram")
        return {
            "model": {
                **dataclasses.asdict(loaded.model),
                "recommended_sampling": dict(loaded.model.recommended_sampling),
            },
            "settings": {**self._session.state.settings.to_dict(), "sampling": self._sampling.to_dict()},
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


def _with_way_out(error: EngineDied, state: SessionState) -> EngineError:
    """The crash, and what to try where a graphics card was in use."""
    if not state.may_be_a_gpus_fault:
        return error
    return EngineError(f"{error} Without the GPU (`--gpu-layers 0`) it may go on.")
