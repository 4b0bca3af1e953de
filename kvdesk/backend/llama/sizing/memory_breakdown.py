"""llama.cpp's own memory breakdown, exact to the byte, of a real context or of a planned one. Helper and engine only.

llama_get_memory_breakdown (src/llama-ext.h) is C++: it returns a std::map from buffer type to three sizes, which the
shim turns into plain C. Without the shim the map's nodes are read in place; where the symbol or the layout is not as expected, ``read`` says so and the caller uses the log.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kvdesk.backend.llama import library, shim
from kvdesk.backend.llama.library import ggml

_Word = ctypes.c_size_t
_NODE_WORDS = 8
"""A map node: three links, the colour, then key and value; libstdc++ has the colour first, libc++ last."""
_MAX_BUFFER_TYPES = 64
_TENSOR_MAP = "_Z29llama_internal_get_tensor_map%sPK11llama_model" % ("" if sys.platform == "darwin" else "B5cxx11")
_STRING_BYTES = 24 if sys.platform == "darwin" else 32
"""sizeof(std::string): libc++ 24, libstdc++ 32."""


class _Map(ctypes.Structure):
    """A returned std::map: 48 bytes in libstdc++ (compare, header node, size), 24 in libc++ (first, root, size)."""

    _fields_ = [("words", _Word * (3 if sys.platform == "darwin" else 6))]


def _function(name: str, restype: Any, *argtypes: Any) -> Callable[..., Any]:
    """A private handle on ``name``, so that other modules' declarations of it stay as they are."""
    address = ctypes.cast(getattr(ggml, name), ctypes.c_void_p).value or 0
    return ctypes.CFUNCTYPE(restype, *argtypes)(address)


_pointer = ctypes.c_void_p
_buft_name = _function("ggml_backend_buft_name", ctypes.c_char_p, _pointer)
_buft_device = _function("ggml_backend_buft_get_device", _pointer, _pointer)
_buft_is_host = _function("ggml_backend_buft_is_host", ctypes.c_bool, _pointer)
_dev_buft = _function("ggml_backend_dev_buffer_type", _pointer, _pointer)
_dev_host_buft = _function("ggml_backend_dev_host_buffer_type", _pointer, _pointer)
_dev_by_type = _function("ggml_backend_dev_by_type", _pointer, ctypes.c_int)
_buffer_type = _function("ggml_backend_buffer_get_type", _pointer, _pointer)
_tensor_name = _function("ggml_get_name", ctypes.c_char_p, _pointer)


@dataclass(frozen=True)
class Share:
    """What one buffer type holds: bytes of weights, of context (KV and recurrent state together) and of compute.

    ``device`` is the memory domain; host buffers of a GPU ("CUDA_Host") lie in "CPU", that is RAM. ``can_map`` is
    true where a mapped load puts pages of the file instead of copies (llama-model.cpp, load_tensors), ``pinned`` for such a
    host buffer: RAM that the GPU's driver keeps in place.
    """

    buffer_type: int
    name: str
    device: str
    can_map: bool
    model_bytes: int
    context_bytes: int
    compute_bytes: int
    pinned: bool = False


def read(context: int) -> tuple[Share, ...] | None:
    """The breakdown of ``context`` (a llama_context pointer), one Share per buffer type; None where it cannot be read."""
    shares = shim.memory_breakdown(context)
    if shares is not None:
        return tuple(_share(*share) for share in shares)
    try:
        breakdown = _function("_Z26llama_get_memory_breakdownPK13llama_context", _Map, _pointer)
    except AttributeError:  # a compiler with other mangling (MSVC)
        return None
    words = breakdown(context).words
    root, count = (words[1], words[2]) if sys.platform == "darwin" else (words[2], words[5])
    if not 0 < count <= _MAX_BUFFER_TYPES:
        return None
    nodes = list(_nodes(root, 0))
    if len(nodes) != count:
        return None
    # the nodes stay allocated: some 100 bytes a call, and no portable way to run their destructor
    return tuple(_share(*node) for node in nodes)


def _nodes(node: int, depth: int) -> Iterator[tuple[int, int, int, int]]:
    if not node or depth > _MAX_BUFFER_TYPES:
        return
    words = (_Word * _NODE_WORDS).from_address(node)
    left, right = (words[0], words[1]) if sys.platform == "darwin" else (words[2], words[3])
    yield from _nodes(left, depth + 1)
    yield words[4], words[5], words[6], words[7]
    yield from _nodes(right, depth + 1)


def _share(buffer_type: int, model: int, context: int, compute: int) -> Share:
    device = _buft_device(buffer_type)
    in_ram = _buft_is_host(buffer_type) or not device
    owner = device or _dev_by_type(0)  # the CPU's default buffer type names no device
    can_map = library.device_props(owner).caps.buffer_from_host_ptr and buffer_type == _dev_buft(owner)
    name = _buft_name(buffer_type).decode("utf-8", "replace")
    domain = "CPU" if in_ram or library.device_kind(owner) in ("cpu", "accel") else library.device_name(owner)
    pinned = bool(device) and buffer_type == _dev_host_buft(device)
    return Share(buffer_type, name, domain, bool(can_map), model, context, compute, pinned)


def mapped_weights_in_ram(shares: Sequence[Share]) -> list[Share]:
    """``shares`` as a load that maps the file has them: weights that the dry run, which maps nothing, has in a GPU's host
    buffers are pages of the file in the CPU's buffer type (llama-model-loader.cpp: "avoid using a host buffer when using
    mmap")."""
    moved = sum(share.model_bytes for share in shares if share.pinned)
    if not moved:
        return list(shares)
    plain = library.cpu_buffer_type()
    rest = [replace(share, model_bytes=0) if share.pinned else share for share in shares]
    if all(share.buffer_type != plain for share in rest):
        rest.append(_share(plain, 0, 0, 0))
    return [replace(s, model_bytes=s.model_bytes + moved) if s.buffer_type == plain else s for s in rest]


def tensor_buffer_types(model: int) -> list[tuple[str, int]] | None:
    """(tensor name, buffer type) of every weight of ``model`` (a llama_model pointer); None where it cannot be read.

    A tied embedding that is needed on two devices occurs twice. Source: llama_internal_get_tensor_map, a reference to
    std::vector<std::pair<std::string, ggml_tensor *>>.
    """
    weights = shim.weights(model)
    if weights is not None:
        return [(weight.name, weight.buffer_type) for weight in weights]
    try:
        tensor_map = _function(_TENSOR_MAP, _pointer, _pointer)
    except AttributeError:
        return None
    begin, end = (_Word * 2).from_address(tensor_map(model))
    step = _STRING_BYTES + ctypes.sizeof(_Word)
    if (end - begin) % step:
        return None
    found: list[tuple[str, int]] = []
    for item in range(begin, end, step):
        tensor = _Word.from_address(item + _STRING_BYTES).value
        buffer = _Word.from_address(tensor + 8).value  # struct ggml_tensor: type, padding, buffer
        found.append((_tensor_name(tensor).decode("utf-8", "replace"), _buffer_type(buffer) if buffer else 0))
    return found
