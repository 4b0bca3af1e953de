"""The buffers of a dry run from llama.cpp's log and the tensor table, where its own breakdown cannot be read (Windows).

The log gives compute, output and recurrent buffers and whole caches with two decimals of a MiB; weights and caches are
put on devices by llama.cpp's rule. Pure, but for the types of the llama room. Never run on Windows.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence

from kvdesk.backend.gguf.header import Tensor
from kvdesk.backend.llama.sizing import log_parser
from kvdesk.backend.protocol.facts import Buffer, BufferKind, Device
from kvdesk.backend.settings import ModelSettings

_LAYER = re.compile(r"blk\.(\d+)\.")


def buffers(
    lines: list[str], tensors: Sequence[Tensor], devices: Sequence[Device], n_layer: int, settings: ModelSettings
) -> tuple[Buffer, ...]:
    """Every buffer of the context whose making logged ``lines``, weights included, to about 10 KiB each."""
    layers = layer_devices(n_layer, settings.n_gpu_layers, devices)
    weights = Counter[str]()
    for tensor in tensors:
        weights[_device_of(tensor.name, layers)] += tensor.size_bytes
    found = [
        Buffer(name, "CPU_Mapped", BufferKind.WEIGHTS, size, mapped=True)
        if name == "CPU" and settings.use_mmap
        else Buffer(name, name, BufferKind.WEIGHTS, size)
        for name, size in weights.items()
    ]
    kv = sum(cache.size_bytes for cache in log_parser.caches(lines))
    shares = Counter(layers[:-1])
    found += [Buffer(name, name, BufferKind.KV, kv * n // n_layer) for name, n in shares.items() if kv]
    logged = (BufferKind.RECURRENT, BufferKind.COMPUTE, BufferKind.OUTPUT)
    found += [b for b in log_parser.buffers(lines) if b.kind in logged and b.size_bytes]
    return tuple(found)


def layer_devices(n_layer: int, n_gpu_layers: int, devices: Sequence[Device]) -> list[str]:
    """The device of every layer, the output's last (llama-model.cpp, load_tensors: the last ``n_gpu_layers`` of
    ``n_layer`` + 1, shared out by free memory)."""
    gpus = [device for device in devices if device.kind in ("gpu", "igpu", "rpc")]
    wanted = n_layer + 1 if n_gpu_layers < 0 else min(n_gpu_layers, n_layer + 1)
    if not gpus or not wanted:
        return ["CPU"] * (n_layer + 1)
    ends: list[float] = []
    for device in gpus:
        ends.append((ends[-1] if ends else 0) + (device.free_bytes or 1))
    shares = [end / ends[-1] for end in ends]
    first = n_layer + 1 - wanted
    return ["CPU" if n < first else gpus[bisect_right(shares, (n - first) / wanted)].name for n in range(n_layer + 1)]


def _device_of(tensor: str, layers: Sequence[str]) -> str:
    """The device of a weight: its layer's, the output's, or the CPU's for the input."""
    layer = _LAYER.match(tensor)
    if layer:
        return layers[min(int(layer[1]), len(layers) - 1)]
    return layers[-1] if tensor.startswith("output") else "CPU"
