"""The plan: what a configuration costs in each memory domain, held against the OOM line. Pure: values in, values out.

MEMORY.md's words: ceiling = what the engine may hold in all now; OOM line = ceiling - margin. Footprints come from
dry_run.py or estimate.py, readings from machine.py, constants from calibration.py; nothing here does I/O. Any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kvdesk.backend.footprint import Footprint
from kvdesk.backend.settings import EngineSettings

DEFAULT_MARGIN_BYTES = 1024 * 1024 * 1024
AMBER_ROOM_BYTES = 1024 * 1024 * 1024
RED_ROOM_BYTES = 512 * 1024 * 1024


class Reading(Protocol):
    """What plan.py needs to know of a memory domain now (machine.DomainReading has it). None is unknown."""

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
class DevicePlan:
    """One memory domain's share of a plan; bytes, None where it cannot be told.

    ``weights_bytes`` is all weights, ``weights_mapped_bytes`` the part of them that are evictable pages of the model
    file. ``total_bytes`` is everything reserved; ``resident_bytes`` what the system will really have given after the
    first batch (compute buffers are touched lazily on Linux). ``overhead_bytes`` is what lies in no buffer: Python, libraries, vocabulary, graphs, a GPU's
    context. ``room_bytes`` = OOM line - total, negative when it does not fit.
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
    capacity_bytes: int | None
    others_bytes: int | None
    ceiling_bytes: int | None
    oom_line_bytes: int | None

    @property
    def room_bytes(self) -> int | None: ...
    @property
    def fits(self) -> bool | None: ...


@dataclass(frozen=True)
class KvPlan:
    """The KV cache in one line.

    ``bytes_per_token`` is what one more token of context costs at this length (sliding-window layers are full and cost
    nothing more), ``formula_bytes`` the textbook figure (2 x layers x KV heads x head size x tokens x bytes).
    """

    bytes_per_token: int
    cells: int
    total_bytes: int
    formula_bytes: int | None


@dataclass(frozen=True)
class GrowthCost:
    """The next growth step: ``peak_bytes`` per device while both the new cells and the copy of the old exist."""

    from_cells: int
    to_cells: int
    copied_bytes: int
    added_bytes: Mapping[str, int]
    peak_bytes: Mapping[str, int]
    fits: bool | None


@dataclass(frozen=True)
class Option:
    """A way to make it fit, priced. ``change`` is what it does: "n_ctx", "type_kv", "n_gpu_layers", "n_ubatch",
    "swa_full". ``difference_bytes`` is against the plan it belongs to, on the device that is short (negative: saves)."""

    change: str
    label: str
    settings: EngineSettings
    total_bytes: int
    difference_bytes: int
    fits: bool | None
    max_n_ctx: int | None = None


@dataclass(frozen=True)
class Verdict:
    """The plan in one sentence. ``kind``: "fits", "fits-up-to", "does-not-fit", "unknown".

    ``room_bytes`` under the line of ``device`` (negative: over it), ``max_n_ctx`` the longest context that fits.
    ``alarm``: "" (fine), "amber" (under 1 GiB of room), "red" (under 512 MiB).
    """

    kind: str
    sentence: str
    alarm: str
    device: str
    room_bytes: int | None
    max_n_ctx: int | None


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
    max_n_ctx: int | None
    options: tuple[Option, ...] = ()
    warnings: tuple[str, ...] = ()
    footprint: Footprint | None = None

    @property
    def total_bytes(self) -> int: ...
    @property
    def resident_bytes(self) -> int: ...
    @property
    def fits(self) -> bool | None: ...
    def device(self, name: str) -> DevicePlan: ...
    def to_json_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class CurvePoint:
    """Bytes of the whole configuration with ``n_ctx`` cells, in all and on the device that is nearest its line."""

    n_ctx: int
    total_bytes: int
    tightest_bytes: int


@dataclass(frozen=True)
class Curve:
    """Memory against context length for one pair of cache types. ``crossing_n_ctx``: the longest that fits."""

    type_k: str
    type_v: str
    points: tuple[CurvePoint, ...]
    crossing_n_ctx: int | None


@dataclass(frozen=True)
class CapacityCell:
    """``n_seq`` conversations of ``n_ctx_seq`` tokens each: total bytes and whether they fit."""

    n_seq: int
    n_ctx_seq: int
    total_bytes: int
    fits: bool | None


def curve_lengths(n_ctx_train: int, points: int = 128) -> tuple[int, ...]:
    """Context lengths for a curve: multiples of 256 from 256 to the model's own, at most ``points`` of them."""
    ...


def difference(now: MemoryPlan, then: MemoryPlan) -> int:
    """Bytes that changing from ``now`` to ``then`` adds (negative: saves)."""
    ...
