"""The plan: what a configuration costs in each memory domain, held against the OOM line. Pure: values in, values out.

MEMORY.md's words: ceiling = what the engine may hold in all now; OOM line = ceiling - margin. Footprints come from
dry_run.py or estimate.py, readings from machine.py, overheads from calibration.py; nothing here does I/O. Any thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from kvdesk.backend.protocol.facts import Buffer, BufferKind, Device
from kvdesk.backend.protocol.footprint import Footprint
from kvdesk.backend.settings import AUTOMATIC_MARGIN, EngineSettings, kept_free, short_room
from kvdesk.sizes import format_bytes

RAM = "RAM"
"""Name of the domain that the CPU device's buffers and a GPU's host buffers lie in (as machine.DomainReading has it)."""


class Reading(Protocol):
    """What a plan needs to know of a memory domain now; samples.DomainReading is one. None is unknown."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def capacity_bytes(self) -> int | None: ...
    @property
    def others_bytes(self) -> int | None: ...
    @property
    def ceiling_bytes(self) -> int | None: ...


@dataclass(frozen=True)
class Overhead:
    """What a domain holds beside llama.cpp's buffers: Python, libraries, vocabulary, graphs; a GPU's context.

    ``size_bytes`` None is unknown; ``learned`` when it was measured on this machine and not taken from a table.
    """

    size_bytes: int | None
    learned: bool = False


@dataclass(frozen=True)
class DevicePlan:
    """One memory domain's share of a plan; bytes, None where it cannot be told.

    ``weights_bytes`` is all weights, ``weights_mapped_bytes`` the part of them that are evictable pages of the model
    file. ``total_bytes`` is everything reserved, mapped weights included; ``resident_bytes`` what the system will
    really have given after the first batch (Linux gives a compute buffer page by page as it is written).
    """

    name: str
    kind: str
    description: str
    weights_bytes: int
    weights_mapped_bytes: int
    kv_bytes: int
    recurrent_bytes: int
    compute_bytes: int
    output_bytes: int
    overhead_bytes: int | None
    overhead_learned: bool
    total_bytes: int
    resident_bytes: int
    capacity_bytes: int | None = None
    others_bytes: int | None = None
    ceiling_bytes: int | None = None
    oom_line_bytes: int | None = None

    @property
    def weights_anonymous_bytes(self) -> int:
        """Weights that only unloading gives back."""
        return self.weights_bytes - self.weights_mapped_bytes

    @property
    def room_bytes(self) -> int | None:
        """What is left under the OOM line; negative: over it."""
        return None if self.oom_line_bytes is None else self.oom_line_bytes - self.total_bytes

    @property
    def fits(self) -> bool | None:
        """Whether the domain stays under its OOM line; a domain that nothing is asked of always does."""
        if self.total_bytes == 0:
            return True
        return None if self.room_bytes is None else self.room_bytes >= 0

    def to_json_dict(self) -> dict[str, Any]:
        """The contract of ``kvdesk plan --json``, and a little more."""
        return {
            "name": self.name,
            "kind": self.kind,
            "description": self.description,
            "weights_bytes": self.weights_bytes,
            "weights_mapped_bytes": self.weights_mapped_bytes,
            "weights_anonymous_bytes": self.weights_anonymous_bytes,
            "kv_bytes": self.kv_bytes,
            "recurrent_bytes": self.recurrent_bytes,
            "compute_bytes": self.compute_bytes,
            "output_bytes": self.output_bytes,
            "overhead_bytes": self.overhead_bytes,
            "overhead_learned": self.overhead_learned,
            "total_bytes": self.total_bytes,
            "resident_bytes": self.resident_bytes,
            "capacity_bytes": self.capacity_bytes,
            "others_bytes": self.others_bytes,
            "ceiling_bytes": self.ceiling_bytes,
            "oom_line_bytes": self.oom_line_bytes,
            "room_bytes": self.room_bytes,
            "fits": self.fits,
        }


@dataclass(frozen=True)
class KvPlan:
    """The KV cache in one line.

    ``bytes_per_token`` is what one more token of context costs at this length (a sliding-window layer that is full
    costs nothing more), ``formula_bytes`` the textbook figure (explain.formula_bytes; None without attention).
    """

    bytes_per_token: int
    cells: int
    total_bytes: int
    formula_bytes: int | None


@dataclass(frozen=True)
class Verdict:
    """The plan in one sentence. ``kind``: "fits", "fits-up-to", "does-not-fit", "unknown".

    ``room_bytes`` under the line of ``device`` (negative: over it), ``max_n_ctx`` the longest context that fits.
    ``alarm``: "" (fine), "amber" (little room), "red" (half of that), by ``alarm()``.
    """

    kind: str
    sentence: str
    alarm: str
    device: str
    room_bytes: int | None
    max_n_ctx: int | None


@dataclass(frozen=True)
class Option:
    """A way to make it fit, priced. ``change``: "swa_full", "n_ubatch", "type_kv", "n_gpu_layers", "n_ctx".

    ``difference_bytes`` is against the plan it belongs to, on the device that is short there (negative: saves).
    ``max_n_ctx`` is the longest context that fits with it.
    """

    change: str
    label: str
    settings: EngineSettings
    total_bytes: int
    difference_bytes: int
    fits: bool | None
    max_n_ctx: int | None

    def to_json_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "change": self.change,
            "label": self.label,
            "settings": flat_settings(self.settings),
            "total_bytes": self.total_bytes,
            "difference_bytes": self.difference_bytes,
            "fits": self.fits,
            "max_n_ctx": self.max_n_ctx,
        }


@dataclass(frozen=True)
class MemoryPlan:
    """Everything the plan table shows. ``source`` is "dry-run" (exact) or "estimate"."""

    settings: EngineSettings
    source: str
    n_ctx: int
    n_ctx_seq: int
    flash_attn: bool
    devices: tuple[DevicePlan, ...]
    kv: KvPlan
    verdict: Verdict
    max_n_ctx: int | None = None
    options: tuple[Option, ...] = ()
    warnings: tuple[str, ...] = ()
    footprint: Footprint | None = field(default=None, repr=False)

    @property
    def total_bytes(self) -> int:
        """All domains together."""
        return sum(device.total_bytes for device in self.devices)

    @property
    def resident_bytes(self) -> int:
        """As total_bytes, of what is really given after the first batch."""
        return sum(device.resident_bytes for device in self.devices)

    @property
    def fits(self) -> bool | None:
        """Whether every domain stays under its line; None while one cannot be told and none fails."""
        answers = {device.fits for device in self.devices}
        return False if False in answers else None if None in answers else True

    @property
    def tightest(self) -> DevicePlan:
        """The domain with the least room under its line; RAM where no line is known."""
        known = [device for device in self.devices if device.room_bytes is not None and device.total_bytes]
        return min(known, key=lambda device: device.room_bytes or 0) if known else self.devices[0]

    def device(self, name: str) -> DevicePlan | None:
        """The domain of that name."""
        return next((device for device in self.devices if device.name == name), None)

    def to_json_dict(self) -> dict[str, Any]:
        """The plan's part of the contract of ``kvdesk plan --json``."""
        return {
            "settings": flat_settings(self.settings)
            | {"n_ctx": self.n_ctx, "n_ctx_seq": self.n_ctx_seq, "flash_attn_used": self.flash_attn},
            "source": self.source,
            "devices": [device.to_json_dict() for device in self.devices],
            "kv": {
                "bytes_per_token": self.kv.bytes_per_token,
                "cells": self.kv.cells,
                "total_bytes": self.kv.total_bytes,
                "formula_bytes": self.kv.formula_bytes,
            },
            "total_bytes": self.total_bytes,
            "resident_bytes": self.resident_bytes,
            "fits": self.fits,
            "max_n_ctx": self.max_n_ctx,
            "verdict": self.verdict.sentence,
            "options": [option.to_json_dict() for option in self.options],
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class GrowthCost:
    """The next growth step. ``copied_bytes`` of occupied cells wait in RAM while the old context is gone and the new one
    is made; ``peak_bytes`` is each domain's total then, ``total_bytes`` its total afterwards."""

    from_cells: int
    to_cells: int
    copied_bytes: int
    total_bytes: Mapping[str, int]
    peak_bytes: Mapping[str, int]
    fits: bool | None


@dataclass(frozen=True)
class CurvePoint:
    """A configuration with ``n_ctx`` cells: bytes in all domains, and in the one the curve is drawn for."""

    n_ctx: int
    total_bytes: int
    device_bytes: int


@dataclass(frozen=True)
class Curve:
    """Memory against context length for one pair of cache types.

    ``device`` is the domain that runs out first, ``oom_line_bytes`` its line, ``crossing_n_ctx`` the longest context
    under it (None: not even the shortest fits, or no line is known).
    """

    type_k: str
    type_v: str
    points: tuple[CurvePoint, ...]
    device: str
    oom_line_bytes: int | None
    crossing_n_ctx: int | None

    def at(self, n_ctx: int) -> CurvePoint | None:
        """The cost of ``n_ctx`` tokens, between the points by proportion, beyond them the nearest; None without points."""
        if not self.points:
            return None
        for left, right in itertools.pairwise(self.points):
            if left.n_ctx <= n_ctx <= right.n_ctx:
                share = (n_ctx - left.n_ctx) / (right.n_ctx - left.n_ctx)
                return CurvePoint(
                    n_ctx,
                    round(left.total_bytes + share * (right.total_bytes - left.total_bytes)),
                    round(left.device_bytes + share * (right.device_bytes - left.device_bytes)),
                )
        return self.points[0] if n_ctx < self.points[0].n_ctx else self.points[-1]


@dataclass(frozen=True)
class CapacityCell:
    """``n_seq`` conversations of ``n_ctx_seq`` tokens each: total bytes in all domains, and whether they fit."""

    n_seq: int
    n_ctx_seq: int
    total_bytes: int
    kv_bytes: int
    fits: bool | None


def make_plan(
    footprint: Footprint,
    readings: Sequence[Reading],
    overheads: Mapping[str, Overhead],
    margin_bytes: int = AUTOMATIC_MARGIN,
    *,
    first_batch: Footprint | None = None,
    formula_bytes: int | None = None,
    max_n_ctx: int | None = None,
) -> MemoryPlan:
    """Hold ``footprint`` against the machine.

    ``overheads`` by domain name; ``first_batch`` is the footprint of the same settings with just the cells of one
    batch: its compute buffers are what the first batch touches. ``max_n_ctx`` is the longest context known to fit.
    """
    by_name = {reading.name: reading for reading in readings}
    cpu = next((d for d in footprint.devices if d.kind == "cpu"), Device("CPU", "", "cpu", None, None))
    domains = [cpu, *(d for d in footprint.devices if d.kind not in ("cpu", "accel"))]
    rows = tuple(
        _device_plan(domain, footprint, first_batch, by_name.get(domain_name(domain.name)), overheads, margin_bytes)
        for domain in domains
    )
    draft = MemoryPlan(
        settings=footprint.settings,
        source=footprint.source,
        n_ctx=footprint.n_ctx,
        n_ctx_seq=footprint.n_ctx_seq,
        flash_attn=footprint.flash_attn,
        devices=rows,
        kv=kv_plan(footprint, formula_bytes),
        verdict=Verdict("unknown", "", "", RAM, None, None),
        warnings=footprint.warnings + _unknown_overheads(rows),
        footprint=footprint,
    )
    return with_max_n_ctx(draft, max_n_ctx)


def with_max_n_ctx(plan: MemoryPlan, max_n_ctx: int | None) -> MemoryPlan:
    """``plan`` with the longest context that fits, which its sentence may name."""
    return replace(plan, max_n_ctx=max_n_ctx, verdict=_verdict(plan, max_n_ctx))


def domain_name(device: str) -> str:
    """The memory domain of llama.cpp's device: the CPU's is RAM."""
    return RAM if device == "CPU" else device


def kv_plan(footprint: Footprint, formula_bytes: int | None) -> KvPlan:
    """The KV cache of ``footprint``; every sequence has cells of its own."""
    per_token = sum(
        cache.size_bytes // cache.cells // (footprint.settings.context.n_seq_max if _is_split(footprint) else 1)
        for cache in footprint.caches
        if cache.cells == footprint.n_ctx_seq
    )
    return KvPlan(
        per_token, footprint.n_ctx if footprint.caches else 0, footprint.bytes_of(BufferKind.KV), formula_bytes
    )


def growth_cost(before: MemoryPlan, after: MemoryPlan, occupied_bytes: int, margin_ignored: bool = False) -> GrowthCost:
    """What growing from ``before`` to ``after`` needs with ``occupied_bytes`` of cells in use.

    The occupied cells are copied to RAM, the old context is freed and the new one made (ENGINE.md, State), so the copy
    comes on top of the larger total. With ``margin_ignored`` the ceiling itself is the limit.
    """
    total = {device.name: device.total_bytes for device in after.devices}
    peak = {name: size + (occupied_bytes if name == RAM else 0) for name, size in total.items()}
    limits = {d.name: d.ceiling_bytes if margin_ignored else d.oom_line_bytes for d in after.devices}
    answers = [None if (limit := limits[name]) is None else size <= limit for name, size in peak.items() if size]
    fits = False if False in answers else None if None in answers else True
    return GrowthCost(before.n_ctx, after.n_ctx, occupied_bytes, total, peak, fits)


def flat_settings(settings: EngineSettings) -> dict[str, Any]:
    """Model and context settings in one JSON-able dict."""
    return {**settings.model.to_dict(), **settings.context.to_dict()}


def alarm(room_bytes: int | None, capacity_bytes: int | None) -> str:
    """ "", "amber" or "red" for the room under the line of a domain of that size: little room, and half of it
    (settings.short_room)."""
    little = short_room(capacity_bytes)
    if room_bytes is None or room_bytes >= little:
        return ""
    return "amber" if room_bytes >= little // 2 else "red"


def _device_plan(
    device: Device,
    footprint: Footprint,
    first_batch: Footprint | None,
    reading: Reading | None,
    overheads: Mapping[str, Overhead],
    margin_bytes: int,
) -> DevicePlan:
    name = domain_name(device.name)
    kinds = {kind: footprint.bytes_on(device.name, kind) for kind in BufferKind}
    overhead = overheads.get(name, Overhead(None))
    in_buffers = sum(kinds.values())
    used = in_buffers > 0 or name == RAM
    total = in_buffers + (overhead.size_bytes or 0) if used else 0
    untouched = 0
    if first_batch is not None and name == RAM:
        untouched = max(0, kinds[BufferKind.COMPUTE] - first_batch.bytes_on(device.name, BufferKind.COMPUTE))
    capacity, others, ceiling = _room(device, reading)
    helper = footprint.helper_device_bytes.get(device.name, 0)  # goes before the engine comes
    others = None if others is None else max(0, others - helper)
    ceiling = None if ceiling is None else ceiling + helper
    return DevicePlan(
        name=name,
        kind="ram" if name == RAM else device.kind,
        description=device.description,
        weights_bytes=kinds[BufferKind.WEIGHTS],
        weights_mapped_bytes=sum(b.size_bytes for b in _weights(footprint, device.name) if b.mapped),
        kv_bytes=kinds[BufferKind.KV],
        recurrent_bytes=kinds[BufferKind.RECURRENT],
        compute_bytes=kinds[BufferKind.COMPUTE],
        output_bytes=kinds[BufferKind.OUTPUT],
        overhead_bytes=overhead.size_bytes if used else 0,
        overhead_learned=overhead.learned,
        total_bytes=total,
        resident_bytes=total - untouched,
        capacity_bytes=capacity,
        others_bytes=others,
        ceiling_bytes=ceiling,
        oom_line_bytes=None if ceiling is None else max(0, ceiling - kept_free(margin_bytes, capacity)),
    )


def _room(device: Device, reading: Reading | None) -> tuple[int | None, int | None, int | None]:
    """(capacity, others, ceiling) of a domain: as read now, or else as llama.cpp's device list had it."""
    if reading:
        return reading.capacity_bytes, reading.others_bytes, reading.ceiling_bytes
    total, free = device.total_bytes, device.free_bytes
    return total, None if total is None or free is None else total - free, free


def _weights(footprint: Footprint, device: str) -> list[Buffer]:
    return [b for b in footprint.buffers if b.device == device and b.kind is BufferKind.WEIGHTS]


def _is_split(footprint: Footprint) -> bool:
    return footprint.n_ctx > footprint.n_ctx_seq


def _unknown_overheads(rows: Sequence[DevicePlan]) -> tuple[str, ...]:
    return tuple(
        f"What {row.name} holds beside llama.cpp's buffers is unknown until the first load there"
        " (a CUDA device's context: 250 to 600 MiB)."
        for row in rows
        if row.overhead_bytes is None and row.kind in ("gpu", "igpu")
    )


def _verdict(plan: MemoryPlan, max_n_ctx: int | None) -> Verdict:
    tightest = plan.tightest
    room = tightest.room_bytes
    where = "" if tightest.name == RAM and len(plan.devices) == 1 else f" on {tightest.name}"
    if room is None:
        kind = "unknown"
        sentence = f"Needs {format_bytes(plan.total_bytes)}; how much is free cannot be told"
    elif room >= 0:
        kind, sentence = "fits", f"Fits, {format_bytes(room)} under the line{where}"
    elif max_n_ctx:
        kind, sentence = (
            "fits-up-to",
            f"Fits up to {max_n_ctx:,} tokens; {format_bytes(-room)} over the line{where} at {plan.n_ctx:,}",
        )
    else:
        kind, sentence = "does-not-fit", f"Does not fit by {format_bytes(-room)}{where}"
    return Verdict(kind, sentence, alarm(room, tightest.capacity_bytes), tightest.name, room, max_n_ctx)
