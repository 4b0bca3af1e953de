"""What llama.cpp's log says of the buffers and caches that it makes. Pure text in, values out.

The log is the only place where llama.cpp tells caches apart; sizes there are MiB with two decimals.
"""

from __future__ import annotations

import re

from kvdesk.backend.protocol.facts import Buffer, BufferKind, CacheBlock
from kvdesk.sizes import MIB

_BUFFER = re.compile(r"\s(\S+) +(model|KV|RS|compute|output) buffer size = *([\d.]+) MiB")
_CACHE = re.compile(
    r"size = *([\d.]+) MiB \( *(\d+) cells, *(\d+) layers, .*K \((\S+)\): *([\d.]+) MiB(?:, V \((\S+)\): *([\d.]+) MiB)?"
)
_CACHE_NAME = re.compile(r"creating +(.+?) KV cache, size")
_KINDS = {
    "model": BufferKind.WEIGHTS,
    "KV": BufferKind.KV,
    "RS": BufferKind.RECURRENT,
    "compute": BufferKind.COMPUTE,
    "output": BufferKind.OUTPUT,
}
_HOST_BUFFERS = re.compile(r"^(CPU|AMX|\w+_Host|BLAS)")


def device_of(buffer_type: str) -> str:
    """The memory domain of a buffer type by its name: "CPU_Mapped", "CPU_REPACK", "AMX", "CUDA_Host" lie in RAM."""
    if _HOST_BUFFERS.match(buffer_type):
        return "CPU"
    return re.sub(r"_(Split|Mapped|Private)$", "", buffer_type)


def buffers(lines: list[str]) -> tuple[Buffer, ...]:
    """Every "... buffer size = X MiB" line (llama-model.cpp, llama-kv-cache.cpp, llama-context.cpp)."""
    found: list[Buffer] = []
    for line in lines:
        match = _BUFFER.search(line)
        if match:
            name, kind, mib = match.groups()
            size = round(float(mib) * MIB)
            found.append(Buffer(device_of(name), name, _KINDS[kind], size, mapped=name.endswith("_Mapped")))
    return tuple(found)


def caches(lines: list[str]) -> tuple[CacheBlock, ...]:
    """Every "llama_kv_cache: size = ..." line; a sliding-window model has two."""
    found: list[CacheBlock] = []
    name = ""
    for line in lines:
        named = _CACHE_NAME.search(line)
        if named:
            name = named.group(1)
        match = _CACHE.search(line)
        if match:
            _, cells, layers, type_k, k_mib, type_v, v_mib = match.groups()
            size = round((float(k_mib) + float(v_mib or 0)) * MIB)
            found.append(CacheBlock(name or "KV", int(cells), int(layers), size, type_k, type_v or ""))
            name = ""
    return tuple(found)


def flash_attention(lines: list[str], wanted: str) -> bool:
    """Whether flash attention is in use: as ``wanted``, or what "auto" came to (llama-context.cpp, resolve_fused_ops)."""
    if wanted != "auto":
        return wanted == "on"
    return not any("Flash Attention not supported" in line or "Flash Attention disabled" in line for line in lines)
