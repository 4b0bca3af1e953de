"""kvdesk_shim, a small C library built with llama.cpp (packaging/llama_shim): what its C API does not give. Engine and
helper processes only.

Missing where somebody brings llama.cpp libraries of their own (LLAMA_CPP_LIB_PATH): then ``is_there`` is false and the
callers have another way.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvdesk.backend.llama.library import ggml

log = logging.getLogger(__name__)

ABI = 1
"""KVDESK_SHIM_ABI that these declarations are for."""
_FILE_NAMES = {"win32": "kvdesk_shim.dll", "darwin": "libkvdesk_shim.dylib"}


class _Share(ctypes.Structure):
    """struct kvdesk_share."""

    _fields_ = [
        ("buffer_type", ctypes.c_void_p),
        ("model_bytes", ctypes.c_uint64),
        ("context_bytes", ctypes.c_uint64),
        ("compute_bytes", ctypes.c_uint64),
    ]


class _Weight(ctypes.Structure):
    """struct kvdesk_weight."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("buffer_type", ctypes.c_void_p),
        ("size_bytes", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
    ]


@dataclass(frozen=True)
class Weight:
    """One weight of a model. ``buffer_type`` is a ggml pointer, 0 where nothing is allocated; ``address`` is where its data
    begins, 0 where this process has none for it. A tied embedding that is needed on two devices occurs twice."""

    name: str
    buffer_type: int
    size_bytes: int
    address: int


@functools.cache
def _shim() -> Any:
    path = Path(ggml._name).with_name(_FILE_NAMES.get(sys.platform, "libkvdesk_shim.so"))
    try:
        shim = ctypes.CDLL(str(path))
    except OSError as error:
        log.warning(
            "%s cannot be used (%s): llama.cpp's own structures are read instead, some figures are rounded",
            path.name,
            error,
        )
        return None
    if shim.kvdesk_shim_abi() != ABI:
        log.warning("%s is of another version of kvdesk and is not used", path.name)
        return None
    shim.kvdesk_memory_breakdown.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Share), ctypes.c_int32]
    shim.kvdesk_weights.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Weight), ctypes.c_int32]
    shim.kvdesk_set.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    shim.kvdesk_set.restype = None
    return shim


def is_there() -> bool:
    """Whether the library is beside llama.cpp's and of this version."""
    return _shim() is not None


def memory_breakdown(context: int) -> list[tuple[int, int, int, int]] | None:
    """(buffer type, bytes of weights, of context, of compute) of ``context`` (a llama_context pointer), for each buffer
    type; None where it cannot be told."""
    shim = _shim()
    if shim is None:
        return None
    shares = (_Share * 64)()
    n = shim.kvdesk_memory_breakdown(context, shares, len(shares))
    if not 0 <= n <= len(shares):
        return None
    return [(s.buffer_type or 0, s.model_bytes, s.context_bytes, s.compute_bytes) for s in shares[:n]]


def weights(model: Any) -> tuple[Weight, ...] | None:
    """Every weight of ``model`` (a llama_model pointer) and its place; None where it cannot be told."""
    shim = _shim()
    if shim is None:
        return None
    n = shim.kvdesk_weights(model, None, 0)
    found = (_Weight * n)()
    shim.kvdesk_weights(model, found, n)
    return tuple(
        Weight(w.name.decode("utf-8", "replace"), w.buffer_type or 0, w.size_bytes, w.address or 0) for w in found
    )


def abort_flag() -> AbortFlag | None:
    """A new flag; None without the library."""
    shim = _shim()
    return AbortFlag(shim) if shim is not None else None


class AbortFlag:
    """A flag in memory that llama.cpp polls for every node of a graph, without Python. Any thread."""

    def __init__(self, shim: Any) -> None:
        self._shim = shim
        self._flag = ctypes.c_int32(0)
        self.callback = ctypes.cast(shim.kvdesk_is_set, ctypes.c_void_p)
        self.user_data = ctypes.cast(ctypes.pointer(self._flag), ctypes.c_void_p)

    def write(self, value: int) -> None:
        """Set it, or with 0 clear it."""
        self._shim.kvdesk_set(self.user_data, value)
