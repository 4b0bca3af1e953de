"""The context profile: memory and speed of a model against context length and cache type, measured on this machine.

Drives an engine that is given to it for the run; blocks, for a thread of its own. Each step is planned first, and none
is taken that would cross the OOM line. No Qt: the caller takes the events.
"""

from __future__ import annotations

import csv
import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from kvdesk.backend.engine.engine_event import Died, EngineEvent, FellBack
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ContextFacts, Device
from kvdesk.backend.settings import EngineSettings
from kvdesk.backend.system.cpu_fallback import remember, remembered
from kvdesk.errors import EngineError, SettingsError

if TYPE_CHECKING:
    from kvdesk.backend.engine.engine import Engine
    from kvdesk.backend.planning.plan import MemoryPlan
    from kvdesk.backend.planning.pricer import Pricer
    from kvdesk.backend.system.machine import Machine
    from kvdesk.backend.system.samples import DomainReading

SHORTEST = 512
CELL_STEP = 256
DECODE_TOKENS = 16
"""Tokens written to measure the speed of writing."""
POINT_S = 60.0
"""Default of ProfileRequest.point_s."""

CSV_COLUMNS = (
    "type_k", "type_v", "n_ctx", "depth", "predicted_kv_bytes", "kv_bytes", "kv_share",
    "predicted_total_bytes", "measured_total_bytes", "prompt_tokens_per_second", "tokens_per_second",
)  # fmt: skip


@dataclass(frozen=True)
class ProfileRequest:
    """What to measure. ``types`` are (K, V) pairs, ``max_n_ctx`` the longest context (0: the model's own length).

    Filling a context costs time that grows with its length: where that would take more than ``point_s`` seconds only its
    memory is measured. Of ``settings`` the context length, types and allocation are not used.
    """

    path: Path
    settings: EngineSettings
    types: tuple[tuple[str, str], ...]
    max_n_ctx: int = 0
    point_s: float = POINT_S


@dataclass(frozen=True)
class ProfilePoint:
    """One context as it was really made.

    ``kv_bytes`` is the cache with all its cells, recurrent state included, and ``predicted_kv_bytes`` the plan's; the
    totals are what the engine holds in all domains together, by the plan and by the system (None where it cannot tell).
    Speeds are those at ``depth`` tokens in the cache; None where filling it would have taken too long, and ``depth`` is
    then what the memory was measured with.
    """

    n_ctx: int
    type_k: str
    type_v: str
    predicted_kv_bytes: int
    kv_bytes: int
    predicted_total_bytes: int
    measured_total_bytes: int | None
    depth: int
    prompt_tokens_per_second: float | None
    tokens_per_second: float | None

    @property
    def kv_share(self) -> float | None:
        """KV's part of the measured total, 0 to 1."""
        return self.kv_bytes / self.measured_total_bytes if self.measured_total_bytes else None


@dataclass(frozen=True)
class ProfileProgress:
    """``done`` of at most ``total`` points are measured; ``fraction`` 0.0 to 1.0 of the one under way is done."""

    n_ctx: int
    type_k: str
    type_v: str
    done: int
    total: int
    fraction: float


@dataclass(frozen=True)
class ProfileStopped:
    """Contexts of ``n_ctx`` tokens and more are not measured with these types: why, as a sentence."""

    n_ctx: int
    type_k: str
    type_v: str
    reason: str


ProfileEvent = ProfilePoint | ProfileProgress | ProfileStopped


class Profiler:
    """One run. ``engine`` and what its ``on_event`` fills (``events``) are this run's alone until it is over; the caller
    ends the engine, and ends ``pricer``'s helper process."""

    def __init__(
        self,
        engine: Engine,
        events: queue.SimpleQueue[EngineEvent],
        pricer: Pricer,
        machine: Machine,
        fallback_path: Path,
    ) -> None:
        self._engine = engine
        self._events = events
        self._pricer = pricer
        self._machine = machine
        self._fallback_path = fallback_path
        self._cancelled = threading.Event()
        self._devices: tuple[Device, ...] = ()
        self._context: ContextFacts | None = None
        self._request: ProfileRequest
        self._base: EngineSettings
        self._done = self._total = 0

    @property
    def is_cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """End the run soon; what was measured so far stays. Any thread."""
        self._cancelled.set()
        self._engine.stop()

    def run(self, request: ProfileRequest) -> Iterator[ProfileEvent]:
        """Measure. The points of one pair of types come in order of length.

        Raises EngineDied when the engine dies, and other KvdeskErrors for a model that does not load or cannot be planned.
        """
        lengths = profile_lengths(request.max_n_ctx or self._pricer.model.n_ctx_train)
        self._request, self._done, self._total = request, 0, len(lengths) * len(request.types)
        context = replace(request.settings.context, allocation="reserve", n_seq_max=1)
        self._base = replace(request.settings, context=context)
        self._take_remembered()
        self._price_all(lengths)
        self._take_remembered()  # pricing may have found out
        for types in request.types:
            if not self.is_cancelled:
                self._context = None
                yield from self._measure_types(types, lengths)

    def _take_remembered(self) -> None:
        self._base = replace(self._base, model=remembered(self._base.model, self._fallback_path))

    def _price_all(self, lengths: Sequence[int]) -> None:
        """Have every plan before the engine loads: a network worker serves one of both at a time."""
        readings = self._readings()
        for types in self._request.types:
            for n_ctx in lengths:
                try:
                    self._pricer.plan(self._settings(types, n_ctx), readings, with_max=False)
                except SettingsError:
                    break  # said when its turn comes
        self._pricer.let_go()

    def _measure_types(self, types: tuple[str, str], lengths: Sequence[int]) -> Iterator[ProfileEvent]:
        speeds: tuple[float, float] | None = None
        may_fill = True
        for place, n_ctx in enumerate(lengths):
            left = len(lengths) - place
            settings = self._settings(types, n_ctx)
            yield self._progress(settings, 0.0)
            try:
                plan = self._pricer.plan(settings, self._readings(), with_max=False)
                problem = "" if plan.fits is not False else f"{plan.verdict.sentence}."
            except SettingsError as error:
                plan, problem = None, str(error)
            made = (yield from self._make(settings)) if plan and not problem else None
            if isinstance(made, m.Failed):
                problem = made.sentence
            if self.is_cancelled:
                return
            if problem or plan is None:
                self._total -= left
                yield ProfileStopped(n_ctx, *types, problem)
                return
            may_fill = may_fill and (speeds is None or self._fill_s(n_ctx, speeds) <= self._request.point_s)
            measured = yield from self._measure(settings, may_fill)
            if self.is_cancelled:
                return
            may_fill = may_fill and measured.tokens_per_second is not None
            if measured.prompt_tokens_per_second and measured.tokens_per_second:
                speeds = measured.prompt_tokens_per_second, measured.tokens_per_second
            self._done += 1
            yield self._point(settings, plan, measured, is_filled=may_fill)

    # --- one context ----------------------------------------------------------------------------------------------

    def _make(self, settings: EngineSettings) -> Generator[ProfileEvent, None, m.Event]:
        """The context of ``settings``, with the cells of the one before where there is room to copy them."""
        if self._context and self._may_grow(self._context, settings):
            self._engine.send(m.SetContext(settings.context))
        else:
            self._engine.load(self._request.path, settings)
        event = yield from self._answer(settings, m.Loaded, m.ContextMade)
        if isinstance(event, m.Loaded | m.ContextMade):
            self._context = event.context
        elif isinstance(event, m.Failed) and event.kind != "ContextFailed" and not self.is_cancelled:
            raise EngineError(event.sentence)
        return event

    def _may_grow(self, before: ContextFacts, settings: EngineSettings) -> bool:
        used = before.kv.bytes_used
        cost = self._pricer.growth(settings, before.n_ctx, settings.context.n_ctx, used, self._readings())
        return cost.fits is not False

    def _measure(self, settings: EngineSettings, may_fill: bool) -> Generator[ProfileEvent, None, m.Measured]:
        """At the end of the context, or where that takes too long after the first batch of an empty one."""
        n_past, n_prompt = self._parts(settings.context.n_ctx)
        n_decode = DECODE_TOKENS if may_fill else 0
        self._engine.send(m.Measure(1, n_past if may_fill else 0, n_prompt, n_decode, self._request.point_s))
        event = yield from self._answer(settings, m.Measured)
        if isinstance(event, m.Failed):
            raise EngineError(event.sentence)
        assert isinstance(event, m.Measured)
        assert self._context
        self._context = replace(self._context, kv=event.kv)
        return event

    def _parts(self, n_ctx: int) -> tuple[int, int]:
        """(tokens to be there before, tokens to read against the clock): one full batch, so that all of the compute
        buffer is used."""
        n_prompt = min(self._base.context.n_ubatch, n_ctx - DECODE_TOKENS)
        return n_ctx - DECODE_TOKENS - n_prompt, n_prompt

    def _fill_s(self, n_ctx: int, speeds: tuple[float, float]) -> float:
        """How long filling to the end will take, from the speeds of a shorter context."""
        there = self._context.kept_tokens if self._context else 0
        return (n_ctx - DECODE_TOKENS - there) / speeds[0] + DECODE_TOKENS / speeds[1]

    def _point(
        self, settings: EngineSettings, plan: MemoryPlan, measured: m.Measured, *, is_filled: bool
    ) -> ProfilePoint:
        used = {device.name for device in plan.devices if device.total_bytes}
        held = [domain.engine_bytes for domain in self._readings() if domain.name in used]
        context = settings.context
        return ProfilePoint(
            n_ctx=context.n_ctx,
            type_k=context.type_k,
            type_v=context.type_v,
            predicted_kv_bytes=sum(device.kv_bytes + device.recurrent_bytes for device in plan.devices),
            kv_bytes=measured.kv.bytes_allocated,
            predicted_total_bytes=plan.total_bytes if is_filled else plan.resident_bytes,
            measured_total_bytes=None if None in held else sum(size or 0 for size in held),
            depth=measured.n_tokens,
            prompt_tokens_per_second=measured.prompt_tokens_per_second if is_filled else None,
            tokens_per_second=measured.tokens_per_second if is_filled else None,
        )

    # --- engine and machine ---------------------------------------------------------------------------------------

    def _answer(self, settings: EngineSettings, *wanted: type[m.Event]) -> Generator[ProfileEvent, None, m.Event]:
        """Take events up to one of the classes ``wanted``, or Failed."""
        if self.is_cancelled:  # just now, and its stop may have come before the command
            self._engine.stop()
        while True:
            event = self._events.get()
            match event:
                case m.Started() | m.Loaded():
                    self._devices = event.devices
                case m.PromptProgress():
                    yield self._progress(settings, event.done / event.total)
                case FellBack():
                    remember(self._fallback_path)
                    self._base = replace(self._base, model=event.settings.model)
                case Died():
                    raise event.error
                case _:
                    pass
            if isinstance(event, (*wanted, m.Failed)):
                return event

    def _readings(self) -> tuple[DomainReading, ...]:
        buffers = self._context.buffers if self._context else ()
        return self._machine.read(self._engine.pid, self._devices, buffers).domains

    def _settings(self, types: tuple[str, str], n_ctx: int) -> EngineSettings:
        context = replace(self._base.context, n_ctx=n_ctx, type_k=types[0], type_v=types[1])
        return replace(self._base, context=context)

    def _progress(self, settings: EngineSettings, fraction: float) -> ProfileProgress:
        context = settings.context
        return ProfileProgress(context.n_ctx, context.type_k, context.type_v, self._done, self._total, fraction)


def profile_lengths(longest: int) -> tuple[int, ...]:
    """512 and its doublings up to ``longest``, and that itself (down to a whole number of llama.cpp's 256 cells)."""
    longest = max(CELL_STEP, longest // CELL_STEP * CELL_STEP)
    lengths = [SHORTEST]
    while lengths[-1] < longest:
        lengths.append(2 * lengths[-1])
    return (*(n for n in lengths if n < longest), longest)


def write_csv(points: Iterable[ProfilePoint], file: TextIO) -> None:
    """One line per point, bytes and tokens; unknown is an empty cell. ``file`` is open for text with ``newline=""``."""
    writer = csv.writer(file)
    writer.writerow(CSV_COLUMNS)
    writer.writerows([getattr(point, column) for column in CSV_COLUMNS] for point in points)
