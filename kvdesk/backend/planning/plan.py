"""The plan: what a configuration costs in each memory domain, held against the OOM line. Pure: values in, values out.

MEMORY.md's words: ceiling = what the engine may hold in all now; OOM line = ceiling - margin. Footprints come from
dry_run.py or estimate.py, readings from machine.py, overheads from calibration.py; nothing here does I/O. Any thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kvdesk.backend.planning.device_plan import (
    RAM,
    DevicePlan,
    Overhead,
    Reading,
    device_plan,
    domain_name,
    with_reading,
)
from kvdesk.backend.planning.verdict import Verdict, find_verdict, tightest
from kvdesk.backend.protocol.facts import BufferKind, Device
from kvdesk.backend.protocol.footprint import Footprint
from kvdesk.backend.settings import AUTOMATIC_MARGIN, EngineSettings


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
class Option:
    """A way to make it fit, priced. ``change``: "swa_full", "n_ubatch", "type_kv", "n_cpu_moe", "n_gpu_layers", "n_ctx".

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
        """The value as JSON values, keys as in docs/COMMAND_LINE.md."""
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
    disk_bytes_per_s: float | None = None
    footprint: Footprint | None = field(default=None, repr=False)

    @property
    def total_bytes(self) -> int:
        """Bytes of all domains together."""
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
        return tightest(self.devices)

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
            "must_hold_bytes": sum(device.must_hold_bytes for device in self.devices),
            "working_set_bytes": sum(device.working_set_bytes for device in self.devices),
            "resident_bytes": self.resident_bytes,
            "fits": self.fits,
            "max_n_ctx": self.max_n_ctx,
            "verdict": self.verdict.sentence,
            "verdict_kind": self.verdict.kind,
            "disk_bytes_per_s": self.disk_bytes_per_s,
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
    mapped_read_share: float = 1.0,
    checkpoints_bytes: int = 0,
) -> MemoryPlan:
    """Hold ``footprint`` against the machine.

    ``overheads`` by domain name; ``first_batch`` is the footprint of the same settings with just the cells of one
    batch: its compute buffers are what the first batch touches. ``max_n_ctx`` is the longest context known to fit.
    ``mapped_read_share`` of the mapped weights is read for a token (less than all in a mixture of experts);
    ``checkpoints_bytes`` are held in RAM in a long conversation (checkpoints.py).
    """
    by_name = {reading.name: reading for reading in readings}
    cpu = next((d for d in footprint.devices if d.kind == "cpu"), Device("CPU", "", "cpu", None, None))
    domains = [cpu, *(d for d in footprint.devices if d.kind not in ("cpu", "accel"))]
    rows = tuple(
        device_plan(
            domain,
            footprint,
            first_batch,
            by_name.get(domain_name(domain.name)),
            overheads,
            margin_bytes,
            mapped_read_share,
            checkpoints_bytes,
        )
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


def held_against(plan: MemoryPlan, readings: Sequence[Reading], margin_bytes: int) -> MemoryPlan:
    """``plan`` with the machine as it is read now: other programs have come or gone since. The longest context that fits
    is the one found before."""
    by_name = {reading.name: reading for reading in readings}
    rows = tuple(
        with_reading(row, by_name[row.name], margin_bytes) if row.name in by_name else row for row in plan.devices
    )
    told = replace(plan, devices=rows)
    return replace(told, verdict=_verdict(told, plan.max_n_ctx))


def with_disk_speed(plan: MemoryPlan, bytes_per_s: float | None) -> MemoryPlan:
    """``plan`` with how fast weights can be read from the disk, which the sentence tells where they do not stay."""
    told = replace(plan, disk_bytes_per_s=bytes_per_s)
    return replace(told, verdict=_verdict(told, plan.max_n_ctx))


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


def _is_split(footprint: Footprint) -> bool:
    return footprint.n_ctx > footprint.n_ctx_seq


def _unknown_overheads(rows: Sequence[DevicePlan]) -> tuple[str, ...]:
    return tuple(
        f"What {row.name} holds beside llama.cpp's buffers is unknown until the first load there."
        for row in rows
        if row.overhead_bytes is None and row.kind in ("gpu", "igpu")
    )


def _verdict(plan: MemoryPlan, max_n_ctx: int | None) -> Verdict:
    return find_verdict(plan.devices, plan.n_ctx, max_n_ctx, plan.disk_bytes_per_s)
