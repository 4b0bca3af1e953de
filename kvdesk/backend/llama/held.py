"""What a context that really exists holds, buffer by buffer, exact where llama.cpp can be asked. Engine process only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvdesk.backend.llama import breakdown, report
from kvdesk.backend.messages import Buffer, BufferKind, CacheBlock


def buffers(context_ptr: int, lines: list[str]) -> tuple[Buffer, ...]:
    """Weights, KV, recurrent state, compute and output of the model and context behind ``context_ptr``.

    ``lines`` is what was logged while both were made; it alone tells recurrent state from KV and names the output
    buffer, and stands in for all where the breakdown cannot be read (report.py).
    """
    logged = report.buffers(lines)
    shares = breakdown.read(context_ptr)
    if shares is None:
        return logged
    recurrent = {b.name: 0 for b in logged if b.kind is BufferKind.RECURRENT}
    for buffer in logged:
        if buffer.kind is BufferKind.RECURRENT:
            recurrent[buffer.name] += buffer.size_bytes
    found: list[Buffer] = []
    for share in shares:
        state = min(recurrent.get(share.name, 0), share.context_bytes)
        sizes = {
            BufferKind.WEIGHTS: share.model_bytes,
            BufferKind.KV: share.context_bytes - state,
            BufferKind.RECURRENT: state,
            BufferKind.COMPUTE: share.compute_bytes,
        }
        is_mapped = share.name.endswith("_Mapped")
        found += [Buffer(share.device, share.name, kind, size, is_mapped) for kind, size in sizes.items() if size]
    return (*found, *(b for b in logged if b.kind is BufferKind.OUTPUT))


def caches(lines: list[str], held: Sequence[Buffer]) -> tuple[CacheBlock, ...]:
    """The caches that the log names, their sizes brought from its two decimals to the bytes that are held."""
    named = report.caches(lines)
    exact = sum(b.size_bytes for b in held if b.kind is BufferKind.KV)
    rounded = sum(c.size_bytes for c in named)
    if not exact or not rounded:
        return named
    sizes = [round(c.size_bytes * exact / rounded) for c in named]
    sizes[-1] += exact - sum(sizes)
    return tuple(replace(cache, size_bytes=size) for cache, size in zip(named, sizes, strict=True))
