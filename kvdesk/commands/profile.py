"""``kvdesk profile``: a model's memory and speed on this machine against context length and cache type, without Qt.

Prints a row as each point is measured, or with ``--json`` one object at the end. The measuring is backend/planning/context_profile.py's.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import queue
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvdesk.commands.flags import add_flags, given
from kvdesk.errors import StoreError, UsageError
from kvdesk.sizes import format_bytes
from kvdesk.terminal import say, say_beside, say_json, say_progress

if TYPE_CHECKING:
    from kvdesk.backend.engine.engine_event import EngineEvent
    from kvdesk.backend.planning.context_profile import ProfileEvent, ProfilePoint, ProfileRequest, ProfileStopped

WIDTHS = (13, 9, 11, 7, 12, 12, 14, 14)
HEADS = ("K/V", "tokens", "KV", "share", "predicted", "measured", "read tokens/s", "write tokens/s")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags; defaults are those of backend/settings.py."""
    from kvdesk.backend.planning.context_profile import POINT_S

    parser.add_argument("model", type=Path, help="a GGUF file (of a split model: its first part)")
    parser.add_argument("--types", default="f16,q8_0,q4_0", help="cache types, or K/V pairs: f16,q8_0/f16")
    parser.add_argument("--max-ctx", type=int, default=0, help="longest context in tokens; 0 is the model's own")
    parser.add_argument("--point-seconds", type=float, default=POINT_S, help="longest time to fill one context")
    add_flags(
        parser,
        "flash_attn",
        "n_gpu_layers",
        "n_cpu_moe",
        "offload_kqv",
        "n_threads",
        "n_batch",
        "n_ubatch",
        "rpc_servers",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the points as CSV too")


def run(args: argparse.Namespace) -> int:
    """Measure. Raises KvdeskError with the sentence to print."""
    from kvdesk.backend.atomic_file import replacing
    from kvdesk.backend.planning.context_profile import write_csv

    request = _request(args)
    if args.output:
        with _written_to(args.output):  # what cannot be written is said before an hour of measuring
            args.output.open("a").close()
    outcome = _Outcome(args.json)
    try:
        _measure(request, outcome)
    except KeyboardInterrupt:
        outcome.is_cancelled = True
    if args.output:
        with (
            _written_to(args.output),
            replacing(args.output) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            write_csv(outcome.points, file)
    if args.json:
        say_json(outcome.to_json_dict(request))
    return 130 if outcome.is_cancelled else 0


def _request(args: argparse.Namespace) -> ProfileRequest:
    from kvdesk.backend.planning.context_profile import ProfileRequest
    from kvdesk.backend.settings import CACHE_TYPES, ContextSettings, EngineSettings, ModelSettings, context_problems

    pairs: list[tuple[str, str]] = []
    for word in filter(None, args.types.split(",")):
        type_k, _, type_v = word.partition("/")
        pairs.append((type_k, type_v or type_k))
    unknown = sorted({name for pair in pairs for name in pair} - set(CACHE_TYPES))
    if unknown or not pairs:
        raise UsageError(f"{args.types!r} names no cache types; possible: {', '.join(CACHE_TYPES)}.")
    if args.max_ctx < 0 or args.point_seconds <= 0:
        raise UsageError("The longest context and the time for a point cannot be negative.")
    context = given(args, ContextSettings)
    problems = context_problems(context)
    if problems:
        raise UsageError("; ".join(problems.values()) + ".")
    settings = EngineSettings(given(args, ModelSettings), context)
    return ProfileRequest(
        args.model.absolute(), settings, tuple(dict.fromkeys(pairs)), args.max_ctx, args.point_seconds
    )


def _measure(request: ProfileRequest, outcome: _Outcome) -> None:
    from kvdesk import paths
    from kvdesk.backend.engine.engine import Engine
    from kvdesk.backend.gguf.model_file import read_model_file
    from kvdesk.backend.planning.calibration import Calibration
    from kvdesk.backend.planning.context_profile import Profiler
    from kvdesk.backend.planning.pricer import Pricer
    from kvdesk.backend.preferences import FILE_NAME, load_preferences
    from kvdesk.backend.system.machine import Machine
    from kvdesk.backend.system.rpc_probe import check_worker

    for endpoint in request.settings.model.rpc_servers:
        check_worker(endpoint)
    model = read_model_file(request.path)
    model.check_loadable()
    margin_bytes = load_preferences(paths.config_dir() / FILE_NAME)[0].margin_bytes
    events: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()
    engine = Engine(events.put, paths.log_dir())
    try:
        with Pricer(model, Calibration(paths.calibration_file()), margin_bytes) as pricer:
            profiler = Profiler(engine, events, pricer, Machine(), paths.fallback_file())
            for event in profiler.run(request):
                outcome.add(event)
    finally:
        engine.shutdown()


class _Outcome:
    """What was measured so far; shown as it comes unless it is to be JSON."""

    def __init__(self, is_json: bool) -> None:
        self.points: list[ProfilePoint] = []
        self.stopped: list[ProfileStopped] = []
        self.is_cancelled = False
        self._is_json = is_json

    def add(self, event: ProfileEvent) -> None:
        from kvdesk.backend.planning.context_profile import ProfilePoint, ProfileProgress, ProfileStopped

        match event:
            case ProfileProgress():
                words = f"{event.type_k}/{event.type_v} {event.n_ctx:,} tokens {event.fraction:4.0%}"
                say_progress(f"{event.done + 1} of {event.total}: {words} ")
            case ProfilePoint():
                self.points.append(event)
                self._show(event)
            case ProfileStopped():
                self.stopped.append(event)
                types = f"{event.type_k}/{event.type_v}"
                say_progress("")
                say_beside(f"kvdesk profile: {types} ends before {event.n_ctx:,} tokens: {event.reason}")

    def _show(self, point: ProfilePoint) -> None:
        if self._is_json:
            return
        if len(self.points) == 1:
            say(_row(HEADS))
        share = "unknown" if point.kv_share is None else f"{point.kv_share:.1%}"
        speeds = (point.prompt_tokens_per_second, point.tokens_per_second)
        sizes = (point.predicted_total_bytes, point.measured_total_bytes)
        cells = (f"{point.type_k}/{point.type_v}", f"{point.n_ctx:,}", format_bytes(point.kv_bytes), share)
        say(_row((*cells, *map(format_bytes, sizes), *("-" if s is None else f"{s:,.1f}" for s in speeds))))

    def to_json_dict(self, request: ProfileRequest) -> dict[str, Any]:
        """The contract of ``kvdesk profile --json``: bytes, tokens, tokens per second; null is unknown."""
        return {
            "model": str(request.path),
            "settings": request.settings.to_dict(),
            "cancelled": self.is_cancelled,
            "points": [{**dataclasses.asdict(point), "kv_share": point.kv_share} for point in self.points],
            "stopped": [dataclasses.asdict(one) for one in self.stopped],
        }


def _row(cells: tuple[str, ...]) -> str:
    first, *others = (
        cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, WIDTHS, strict=True))
    )
    return "  ".join((first, *others))


@contextlib.contextmanager
def _written_to(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"The profile cannot be written to {path}: {error.strerror or error}.") from error
