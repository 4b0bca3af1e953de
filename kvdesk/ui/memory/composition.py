"""What a measured total is made of: the engine's bytes in one domain poured into llama.cpp's known buffers. Pure.

The measurement is the truth: the parts always add up to it. Buffers say how it splits; what no buffer explains is
overhead (Python, libraries, vocabulary, a GPU's context). Nothing measured means nothing is shown, not zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kvdesk.backend.planning.device_plan import domain_name
from kvdesk.backend.protocol.facts import Buffer, BufferKind, KvState
from kvdesk.backend.system.samples import DomainReading

LAYERS: tuple[str, ...] = ("weights_mapped", "weights", "overhead", "compute", "kv_used", "kv_free")
"""The parts in the order they are stacked, from the bottom: what stays still below, what moves on top."""

WEIGHT_LAYERS = frozenset({"weights_mapped", "weights"})
KV_LAYERS = frozenset({"kv_used", "kv_free"})


@dataclass(frozen=True, slots=True)
class Parts:
    """One domain's engine memory by what it is, in bytes; the sum is what was measured.

    ``kv_used`` and ``kv_free`` include recurrent state. ``compute`` includes the output buffer and is at most what
    llama.cpp reserved: where pages are given on first touch, its border with ``overhead`` is not exact.
    """

    weights_mapped: int = 0
    weights: int = 0
    kv_used: int = 0
    kv_free: int = 0
    compute: int = 0
    overhead: int = 0

    @property
    def total(self) -> int:
        """All parts: the measured bytes."""
        return sum(getattr(self, name) for name in LAYERS)


def split(reading: DomainReading, buffers: Iterable[Buffer], kv: KvState | None) -> Parts | None:
    """``reading``'s engine bytes split by the ``buffers`` that lie in its domain; None when they were not measured.

    ``kv`` tells which share of the KV bytes is occupied (the same on every device: a token's cells lie in all layers).
    """
    if reading.engine_bytes is None:
        return None
    size: dict[str, int] = dict.fromkeys(("mapped", "weights", "kv", "compute"), 0)
    for buffer in buffers:
        if domain_name(buffer.device) == reading.name:
            size[_group(buffer)] += buffer.size_bytes
    evictable = reading.engine_file_bytes
    mapped = min(size["mapped"], reading.engine_bytes if evictable is None else min(evictable, reading.engine_bytes))
    rest = reading.engine_bytes - mapped
    weights = min(size["weights"], rest)
    kv_bytes = min(size["kv"], rest - weights)
    compute = min(size["compute"], rest - weights - kv_bytes)
    used = round(kv_bytes * _occupied(kv))
    return Parts(
        weights_mapped=mapped,
        weights=weights,
        kv_used=used,
        kv_free=kv_bytes - used,
        compute=compute,
        overhead=rest - weights - kv_bytes - compute,
    )


def room_under_line(reading: DomainReading, margin_bytes: int) -> int | None:
    """Bytes between what the engine holds now and the OOM line, negative above it; None when either is unknown."""
    line = reading.oom_line(margin_bytes)
    return None if line is None or reading.engine_bytes is None else line - reading.engine_bytes


def _group(buffer: Buffer) -> str:
    if buffer.kind is BufferKind.WEIGHTS:
        return "mapped" if buffer.mapped else "weights"
    return "kv" if buffer.kind in (BufferKind.KV, BufferKind.RECURRENT) else "compute"


def _occupied(kv: KvState | None) -> float:
    if kv is None or kv.bytes_allocated <= 0:
        return 0.0
    return min(1.0, kv.bytes_used / kv.bytes_allocated)
