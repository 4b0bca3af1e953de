"""One memory domain's share of a plan, held against what is free there. Pure; the whole plan is plan.py's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from kvdesk.backend.protocol.facts import Buffer, BufferKind, Device
from kvdesk.backend.protocol.footprint import Footprint
from kvdesk.backend.settings import kept_free

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
    file. ``checkpoints_bytes`` is what the engine's checkpoints of a long conversation hold. ``total_bytes`` is everything
    reserved, mapped weights and checkpoints included; ``resident_bytes`` what the system will really have given after the
    first batch (Linux gives a compute buffer page by page as it is written; no checkpoint is there yet).

    Three questions decide whether it runs: ``must_hold_bytes`` cannot be taken back, so that beyond the ceiling RAM the
    engine is killed; ``working_set_bytes`` is that and the mapped weights that a token reads (of a mixture's experts as
    many as are chosen, ``mapped_read_share`` of all), read from the disk again where they do not stay; the rest of the
    mapped weights can go.
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
    mapped_read_share: float = 1.0
    checkpoints_bytes: int = 0

    @property
    def weights_anonymous_bytes(self) -> int:
        """Weights that only unloading gives back."""
        return self.weights_bytes - self.weights_mapped_bytes

    @property
    def must_hold_bytes(self) -> int:
        """What nobody can take back: anonymous memory in RAM, everything on a device."""
        return self.total_bytes - self.weights_mapped_bytes

    @property
    def working_set_bytes(self) -> int:
        """What has to be there for a token, again and again: what must be held and the mapped weights that it reads."""
        return self.must_hold_bytes + round(self.weights_mapped_bytes * self.mapped_read_share)

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
            "checkpoints_bytes": self.checkpoints_bytes,
            "total_bytes": self.total_bytes,
            "must_hold_bytes": self.must_hold_bytes,
            "working_set_bytes": self.working_set_bytes,
            "resident_bytes": self.resident_bytes,
            "capacity_bytes": self.capacity_bytes,
            "others_bytes": self.others_bytes,
            "ceiling_bytes": self.ceiling_bytes,
            "oom_line_bytes": self.oom_line_bytes,
            "room_bytes": self.room_bytes,
            "fits": self.fits,
        }


def domain_name(device: str) -> str:
    """The memory domain of llama.cpp's device: the CPU's is RAM."""
    return RAM if device == "CPU" else device


def device_plan(
    device: Device,
    footprint: Footprint,
    first_batch: Footprint | None,
    reading: Reading | None,
    overheads: Mapping[str, Overhead],
    margin_bytes: int,
    mapped_read_share: float = 1.0,
    checkpoints_bytes: int = 0,
) -> DevicePlan:
    """The share of ``footprint`` that lies on ``device``, held against ``reading`` (as in plan.make_plan)."""
    name = domain_name(device.name)
    kinds = {kind: footprint.bytes_on(device.name, kind) for kind in BufferKind}
    overhead = overheads.get(name, Overhead(None))
    in_buffers = sum(kinds.values())
    used = in_buffers > 0 or name == RAM
    checkpoints = checkpoints_bytes if name == RAM else 0
    total = in_buffers + (overhead.size_bytes or 0) + checkpoints if used else 0
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
        resident_bytes=total - untouched - checkpoints,
        capacity_bytes=capacity,
        others_bytes=others,
        ceiling_bytes=ceiling,
        oom_line_bytes=_oom_line(ceiling, capacity, margin_bytes),
        mapped_read_share=mapped_read_share,
        checkpoints_bytes=checkpoints,
    )


def with_reading(row: DevicePlan, reading: Reading, margin_bytes: int) -> DevicePlan:
    """``row`` with the domain as it is read now; what the model takes of it stays."""
    capacity, ceiling = reading.capacity_bytes, reading.ceiling_bytes
    return replace(
        row,
        capacity_bytes=capacity,
        others_bytes=reading.others_bytes,
        ceiling_bytes=ceiling,
        oom_line_bytes=_oom_line(ceiling, capacity, margin_bytes),
    )


def _oom_line(ceiling: int | None, capacity: int | None, margin_bytes: int) -> int | None:
    return None if ceiling is None else max(0, ceiling - kept_free(margin_bytes, capacity))


def _room(device: Device, reading: Reading | None) -> tuple[int | None, int | None, int | None]:
    """(capacity, others, ceiling) of a domain: as read now, or else as llama.cpp's device list had it."""
    if reading:
        return reading.capacity_bytes, reading.others_bytes, reading.ceiling_bytes
    total, free = device.total_bytes, device.free_bytes
    return total, None if total is None or free is None else total - free, free


def _weights(footprint: Footprint, device: str) -> list[Buffer]:
    return [b for b in footprint.buffers if b.device == device and b.kind is BufferKind.WEIGHTS]
