"""The buffers that a loaded model and its context really have: named one by one by llama.cpp's log, put on the right
device and made exact by its own breakdown. Engine process only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kvdesk.backend.llama.sizing import log_parser, memory_breakdown
from kvdesk.backend.llama.sizing.memory_breakdown import Share
from kvdesk.backend.protocol.facts import Buffer, BufferKind, CacheBlock

_CONTEXT = (BufferKind.KV, BufferKind.RECURRENT)
_ROUNDED_BYTES = 1024 * 1024 // 100
"""The log's sizes are MiB with two decimals; a line is off by no more."""


def buffers(
    context: int, model_lines: list[str], context_lines: list[str], mapped_bytes: Mapping[str, int]
) -> tuple[Buffer, ...]:
    """Every buffer of ``context`` (a llama_context pointer) and of its model, which logged these lines when they were made.

    ``mapped_bytes``: buffer type's name -> bytes of the pages of the file that its weights lie in, where that is known.
    ``Buffer.device`` is ggml's device name; without a breakdown (MSVC) it is guessed from the buffer type's name.
    """
    found = list(log_parser.buffers([*model_lines, *context_lines]))
    for share in memory_breakdown.read(context) or ():
        found = [replace(b, device=share.device) if b.name == share.name else b for b in found]
        _make_exact(found, share)
    return tuple(_in_use(found, mapped_bytes))


def _in_use(found: Sequence[Buffer], mapped_bytes: Mapping[str, int]) -> list[Buffer]:
    """``found`` with mapped weights counted by what is needed of them. llama.cpp names one buffer for each file of a split
    model: the first stands for all of a type."""
    result: list[Buffer] = []
    counted: set[str] = set()
    for buffer in found:
        if not buffer.mapped or buffer.name not in mapped_bytes:
            result.append(buffer)
        elif buffer.name not in counted:
            counted.add(buffer.name)
            span = sum(b.size_bytes for b in found if b.mapped and b.name == buffer.name)
            result.append(replace(buffer, size_bytes=mapped_bytes[buffer.name], span_bytes=span))
    return result


def _make_exact(found: list[Buffer], share: Share) -> None:
    """Let the logged sizes of one buffer type add up to what the breakdown has for it, where they do but for rounding.

    The breakdown has KV and recurrent state in one sum, and no output buffer.
    """
    for kinds, size in (
        ((BufferKind.WEIGHTS,), share.model_bytes),
        (_CONTEXT, share.context_bytes),
        ((BufferKind.COMPUTE,), share.compute_bytes),
    ):
        places = [i for i, b in enumerate(found) if b.name == share.name and b.kind in kinds]
        rest = size - sum(found[i].size_bytes for i in places)
        if places and abs(rest) <= _ROUNDED_BYTES * len(places):
            largest = max(places, key=lambda i: found[i].size_bytes)
            found[largest] = replace(found[largest], size_bytes=found[largest].size_bytes + rest)


def caches(lines: list[str], held: Sequence[Buffer]) -> tuple[CacheBlock, ...]:
    """The caches that the log names, their sizes brought from its two decimals to the bytes that are held."""
    named = log_parser.caches(lines)
    exact = sum(b.size_bytes for b in held if b.kind is BufferKind.KV)
    rounded = sum(c.size_bytes for c in named)
    if not exact or not rounded:
        return named
    sizes = [round(c.size_bytes * exact / rounded) for c in named]
    sizes[-1] += exact - sum(sizes)
    return tuple(replace(cache, size_bytes=size) for cache, size in zip(named, sizes, strict=True))
