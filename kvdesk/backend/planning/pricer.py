"""Joins dry run, estimate, calibration and plan: one model's configurations priced, fitted, drawn and compared.

Blocking calls, for one thread at a time: planner.py's thread behind the window, or the command line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.planning import options
from kvdesk.backend.planning.calibration import Calibration
from kvdesk.backend.planning.checkpoints import checkpoints_bytes
from kvdesk.backend.planning.cost_curve import CostLine
from kvdesk.backend.planning.device_plan import Reading
from kvdesk.backend.planning.dry_run import DryRun, HelperDiedError
from kvdesk.backend.planning.estimate import estimate
from kvdesk.backend.planning.explain import TABLE_LENGTHS, TABLE_TYPES, formula_bytes
from kvdesk.backend.planning.plan import (
    CapacityCell,
    Curve,
    CurvePoint,
    GrowthCost,
    MemoryPlan,
    growth_cost,
    make_plan,
    with_disk_speed,
    with_max_n_ctx,
)
from kvdesk.backend.protocol.facts import BufferKind, Device
from kvdesk.backend.protocol.footprint import Footprint
from kvdesk.backend.settings import AUTOMATIC_MARGIN, ContextSettings, EngineSettings, pad256
from kvdesk.backend.system.disk_speed import disk_speed
from kvdesk.backend.system.machine import match_devices
from kvdesk.backend.system.nvml import GpuReading, Nvml
from kvdesk.errors import PlanError, SettingsError

log = logging.getLogger(__name__)

SHORTEST = 256
NO_REPACKING = (
    "llama.cpp's planning process crashed with repacked weights; if the engine does too, it goes on without them."
)
CURVE_POINTS = 128


class Pricer:
    """Prices configurations of ``model``. The helper process starts with the first question."""

    def __init__(self, model: ModelFile, calibration: Calibration, margin_bytes: int = AUTOMATIC_MARGIN) -> None:
        self.model = model
        self.margin_bytes = margin_bytes
        self._calibration = calibration
        self._dry_run = DryRun(model)
        self._nvml = Nvml()
        self._failed = ""
        self._lines: dict[tuple[EngineSettings, int], CostLine] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.let_go()

    @property
    def helper_pid(self) -> int | None:
        """The dry-run helper's process id while it lives."""
        return self._dry_run.pid

    def let_go(self) -> None:
        """End the helper process; what it answered stays known."""
        self._dry_run.let_go()

    def check(self, settings: EngineSettings) -> None:
        """Raise SettingsError, with the nearest possible settings, for what llama.cpp would refuse."""
        options.check(settings, self.model)

    def footprint(self, settings: EngineSettings) -> Footprint:
        """What ``settings`` would allocate: by dry run, or by arithmetic where llama.cpp cannot be asked.

        Raises SettingsError, with the nearest possible settings, when llama.cpp refuses them or dies of them, and
        PlanError when a network worker cannot be reached or a part of the model is missing.
        """
        self.check(settings)
        settings = self._within_positions(settings)
        if self._failed:
            return estimate(self.model, settings, (self._failed,))
        try:
            return self._asked(settings)
        except SettingsError as error:
            raise SettingsError(str(error), self._nearest(settings)) from error
        except PlanError as error:
            if isinstance(error, HelperDiedError) and self._answers_plain(settings):
                raise SettingsError(str(error), self._nearest(settings)) from error
            if settings.model.rpc_servers or self.model.missing_parts:
                raise  # arithmetic knows nothing of other machines, nor of parts that are not here
            log.warning("dry run of %s failed: %s", self.model.path, error)
            self._failed = f"{error} The figures are an estimate."
            return estimate(self.model, settings, (self._failed,))

    def plan(
        self,
        settings: EngineSettings,
        readings: Sequence[Reading],
        *,
        with_max: bool = True,
        with_options: bool = False,
    ) -> MemoryPlan:
        """``settings`` held against the machine. ``with_max`` also finds the longest context that fits; ``with_options``
        prices ways out when it does not fit. Raises as ``footprint``."""
        footprint = self.footprint(settings)
        footprint = replace(footprint, helper_device_bytes=self._helper_bytes(footprint))
        batch = min(footprint.n_ctx, settings.context.n_ubatch * settings.context.n_seq_max)
        draft = make_plan(
            footprint,
            readings,
            self._calibration.overheads(self.model, footprint),
            self.margin_bytes,
            first_batch=self.footprint(_with_n_ctx(settings, pad256(batch))),
            formula_bytes=formula_bytes(self.model, footprint.n_ctx, settings.context),
            mapped_read_share=self.model.n_params_active / max(1, self.model.n_params),
            checkpoints_bytes=checkpoints_bytes(self.model, footprint),
        )
        draft = replace(draft, warnings=(*draft.warnings, *self._warnings(settings, footprint)))
        if with_max:
            draft = with_max_n_ctx(draft, self.longest(settings, readings))
        if draft.verdict.kind == "runs-slowly":
            draft = with_disk_speed(draft, disk_speed(self.model.path))
        if with_options and draft.fits is False:
            priced = options.ranked(draft, self.model, lambda changed: self._priced(changed, readings))
            draft = replace(draft, options=priced)
        return draft

    def longest(self, settings: EngineSettings, readings: Sequence[Reading]) -> int | None:
        """The longest context (a multiple of 256 for every sequence) that stays under every line, at most the model's
        own; None when not even the shortest does or no line is known. Confirmed by a dry run of just that length."""
        limits = self._limits(settings, readings)
        if all(limit is None for limit in limits.values()):
            return None
        line = self._line(settings)
        longest = line.longest_within(limits)
        step = SHORTEST * settings.context.n_seq_max
        while longest and not _within(self._price(_with_n_ctx(settings, longest)), limits):
            longest = longest - step if longest > step else None
        return longest

    def curve(
        self, settings: EngineSettings, types: Sequence[tuple[str, str]], readings: Sequence[Reading],
        points: int = CURVE_POINTS,
    ) -> tuple[Curve, ...]:  # fmt: skip
        """Memory against context length for each pair of cache types; a pair that llama.cpp refuses is left out."""
        curves: list[Curve] = []
        for type_k, type_v in types:
            chosen = _with(settings, type_k=type_k, type_v=type_v)
            try:
                curves.append(self._curve(chosen, readings, points))
            except SettingsError:
                continue
        return tuple(curves)

    def choices(
        self, settings: EngineSettings, choices: Mapping[str, Sequence[str]]
    ) -> dict[str, dict[str, int | None]]:
        """What each of ``choices`` (field of ContextSettings, or several with spaces between that take the same value ->
        values) would take more than ``settings``, in bytes of all domains; None where llama.cpp refuses it, or ``settings``."""
        now = self._total(settings)
        deltas: dict[str, dict[str, int | None]] = {}
        for field, values in choices.items():
            totals = {value: self._total(_with(settings, **dict.fromkeys(field.split(), value))) for value in values}
            deltas[field] = {
                value: None if now is None or total is None else total - now for value, total in totals.items()
            }
        return deltas

    def capacity(
        self, settings: EngineSettings, n_seqs: Sequence[int], lengths: Sequence[int], readings: Sequence[Reading]
    ) -> tuple[CapacityCell, ...]:
        """How many conversations of how many tokens fit: each of ``n_seqs`` against each of ``lengths``."""
        cells: list[CapacityCell] = []
        for n_seq in n_seqs:
            for length in lengths:
                shape = _with(settings, n_seq_max=n_seq, n_ctx=pad256(length) * n_seq)
                plan = self.plan(shape, readings, with_max=False)
                cells.append(CapacityCell(n_seq, plan.n_ctx_seq, plan.total_bytes, plan.kv.total_bytes, plan.fits))
        return tuple(cells)

    def growth(
        self, settings: EngineSettings, from_cells: int, to_cells: int, occupied_bytes: int,
        readings: Sequence[Reading], *, margin_ignored: bool = False,
    ) -> GrowthCost:  # fmt: skip
        """What growing each sequence from ``from_cells`` to ``to_cells`` needs with ``occupied_bytes`` in use."""
        before, after = (
            self.plan(_with_n_ctx(settings, cells * settings.context.n_seq_max), readings, with_max=False)
            for cells in (from_cells, to_cells)
        )
        return growth_cost(before, after, occupied_bytes, margin_ignored)

    def kv_table(self, settings: EngineSettings) -> dict[int, dict[str, int | None]]:
        """Context length -> cache type -> KV bytes, at 8K, 32K, 128K and the model's own length; None where refused."""
        lengths = sorted({*TABLE_LENGTHS, self.model.n_ctx_train or TABLE_LENGTHS[0]})
        return {length: {name: self._kv_bytes(settings, length, name) for name in TABLE_TYPES} for length in lengths}

    # --- inner workings ------------------------------------------------------------------------------------------

    def _asked(self, settings: EngineSettings) -> Footprint:
        """The dry run's answer, without repacked weights where this CPU fails with them: in computing, or (llama.cpp
        has no backend for some operation on them) in planning already. Asking changes nothing: what is remembered of
        this machine is the engine's to find out."""
        plain = replace(settings, model=replace(settings.model, use_extra_bufts=False))
        try:
            footprint = self._dry_run.ask(settings)
            if not _is_repacked(footprint) or self._dry_run.repacking_works():
                return footprint
            footprint = self._dry_run.ask(plain)
        except HelperDiedError:
            if plain == settings:
                raise
            footprint = self._dry_run.ask(plain)
        return replace(footprint, warnings=(*footprint.warnings, NO_REPACKING))

    def _helper_bytes(self, footprint: Footprint) -> dict[str, int]:
        """What the helper process itself holds on each NVIDIA device (its context), where the driver tells."""
        gpus = [device for device in footprint.devices if device.kind in ("gpu", "igpu")]
        pid = self._dry_run.pid
        if not gpus or pid is None:
            return {}
        return held_by(pid, match_devices(self._nvml.read(), gpus))

    def _kv_bytes(self, settings: EngineSettings, length: int, cache_type: str) -> int | None:
        try:
            chosen = _with(settings, n_ctx=pad256(length), type_k=cache_type, type_v=cache_type)
            return self.footprint(chosen).bytes_of(BufferKind.KV)
        except SettingsError:
            return None

    def _priced(self, settings: EngineSettings, readings: Sequence[Reading]) -> MemoryPlan | None:
        """A plan for an option; None when llama.cpp refuses it."""
        try:
            return self.plan(settings, readings)
        except SettingsError:
            return None

    def _total(self, settings: EngineSettings) -> int | None:
        """Bytes of all domains; None when llama.cpp refuses ``settings``."""
        try:
            return sum(self._price(settings).values())
        except SettingsError:
            return None

    def _price(self, settings: EngineSettings) -> dict[str, int]:
        """What ``settings`` take in each domain, in bytes."""
        footprint = self.footprint(settings)
        overheads, held = self._calibration.overheads(self.model, footprint), checkpoints_bytes(self.model, footprint)
        plan = make_plan(footprint, (), overheads, self.margin_bytes, checkpoints_bytes=held)
        return {device.name: device.total_bytes for device in plan.devices}

    def _line(self, settings: EngineSettings) -> CostLine:
        """Cost against context length for these settings, to the model's own length or the one asked for; kept."""
        context = settings.context
        step = SHORTEST * context.n_seq_max
        own = min(pad256(self.model.n_ctx_train) * context.n_seq_max, options.MOST_N_CTX)
        highest = max(step, own, pad256(self._within_positions(settings).context.n_ctx))
        key = (_with_n_ctx(settings, 0), highest)
        if key not in self._lines:
            window = self.model.sliding_window or 0
            bends = (context.n_ubatch, *(pad256(n) * context.n_seq_max for n in (window, window + context.n_ubatch)))
            self._lines[key] = CostLine(lambda n: self._price(_with_n_ctx(settings, n)), step, highest, step, bends)
        return self._lines[key]

    def _limits(self, settings: EngineSettings, readings: Sequence[Reading]) -> dict[str, int | None]:
        """The OOM line of each domain, in bytes."""
        plan = self.plan(_with_n_ctx(settings, SHORTEST * settings.context.n_seq_max), readings, with_max=False)
        return {device.name: device.oom_line_bytes for device in plan.devices}

    def _curve(self, settings: EngineSettings, readings: Sequence[Reading], points: int) -> Curve:
        line = self._line(settings)
        limits = self._limits(settings, readings)
        crossing = line.longest_within(limits) if any(limits.values()) else None
        device = _first_to_fill(line, limits)
        lengths = curve_lengths(line.highest, points, SHORTEST * settings.context.n_seq_max)
        drawn = tuple(CurvePoint(n, sum((price := line.at(n)).values()), price[device]) for n in lengths)
        context = settings.context
        return Curve(context.type_k, context.type_v, drawn, device, limits.get(device), crossing)

    def _within_positions(self, settings: EngineSettings) -> EngineSettings:
        """``settings`` with no longer a context than the model knows positions for, as the engine makes it."""
        n_seq = settings.context.n_seq_max
        most = pad256(self.model.positions.within(settings.context.n_ctx // n_seq)) * n_seq
        return settings if settings.context.n_ctx <= most else _with_n_ctx(settings, most)

    def _warnings(self, settings: EngineSettings, footprint: Footprint) -> tuple[str, ...]:
        trained, known = self.model.n_ctx_train, self.model.positions.most
        lacking = (self.model.lacking,) if self.model.lacking else ()
        if known is not None and settings.context.n_ctx > known * settings.context.n_seq_max:
            return (*lacking, f"The model knows {known:,} positions and no more: that is its longest context.")
        if trained and footprint.n_ctx_seq > pad256(trained):
            return (*lacking, f"The model was trained for {trained:,} tokens; beyond that its answers get worse.")
        return lacking

    def _answers_plain(self, settings: EngineSettings) -> bool:
        """Whether llama.cpp can plan this model at all, so that only the settings killed it."""
        try:
            self._dry_run.ask(replace(settings, context=ContextSettings(n_ctx=512)))
        except (PlanError, SettingsError):
            return False
        return True

    def _nearest(self, settings: EngineSettings) -> EngineSettings | None:
        """The first of a few changes that llama.cpp accepts."""
        for changed in options.neighbours(settings):
            if changed == settings:
                continue
            try:
                self.check(changed)
                self._dry_run.ask(changed)
            except (SettingsError, PlanError):
                continue
            return changed
        return None


def held_by(pid: int, gpus: Iterable[tuple[Device, GpuReading]]) -> dict[str, int]:
    """Device name -> bytes that process ``pid`` holds there, as far as NVML tells."""
    return {
        device.name: gpu.process_bytes[pid] for device, gpu in gpus if gpu.process_bytes and pid in gpu.process_bytes
    }


def curve_lengths(highest: int, points: int = CURVE_POINTS, step: int = SHORTEST) -> tuple[int, ...]:
    """At most ``points`` multiples of ``step`` from ``step`` to ``highest``, evenly spread."""
    count = max(1, highest // step)
    if count <= points:
        return tuple(step * n for n in range(1, count + 1))
    return tuple(sorted({step * round(1 + (count - 1) * n / (points - 1)) for n in range(points)}))


def _is_repacked(footprint: Footprint) -> bool:
    """Whether weights lie in one of the CPU's extra buffer types (CPU_REPACK, AMX)."""
    weights = (b for b in footprint.buffers if b.kind is BufferKind.WEIGHTS and b.device == "CPU")
    return any(b.name not in ("CPU", "CPU_Mapped") and not b.name.endswith("_Host") for b in weights)


def _with(settings: EngineSettings, **changes: Any) -> EngineSettings:
    return replace(settings, context=replace(settings.context, **changes))


def _with_n_ctx(settings: EngineSettings, n_ctx: int) -> EngineSettings:
    return _with(settings, n_ctx=n_ctx)


def _within(price: Mapping[str, int], limits: Mapping[str, int | None]) -> bool:
    return all((limit := limits.get(name)) is None or size <= limit for name, size in price.items())


def _first_to_fill(line: CostLine, limits: Mapping[str, int | None]) -> str:
    """The domain whose line is crossed first, or else comes nearest at full length."""
    room: Callable[[str], int] = lambda name: (limits[name] or 0) - full[name]  # noqa: E731
    full = line.at(line.highest)
    known = [name for name in full if limits.get(name) is not None and full[name]]
    return min(known, key=room) if known else next(iter(full))
