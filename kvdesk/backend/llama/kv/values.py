"""Cached values as floats and back, by ggml's own conversions, and the rotation that quantized caches are kept in.

Reaches ggml through llama.cpp's handle: engine and helper processes only.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvdesk.backend.ggml_types import GgmlType
from kvdesk.backend.llama.kv.layout import CACHE_TYPES, CacheTensor, CannotConvert
from kvdesk.backend.llama.library import ggml

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def to_floats(rows: Bytes, tensor: CacheTensor) -> Floats:
    """(cells, n_values) from the stored bytes of whole cells."""
    cells = rows.shape[0]
    if tensor.type.name == "f32":
        return rows.reshape(-1).view(np.float32).reshape(cells, tensor.n_values)
    floats = np.empty((cells, tensor.n_values), np.float32)
    _traits(tensor.type.id).to_float(rows.ctypes.data, floats.ctypes.data, floats.size)
    return floats


def from_floats(floats: Floats, cache_type: GgmlType) -> Bytes:
    """(cells, bytes of a cell) of ``cache_type``."""
    cells, n_values = floats.shape
    if cache_type.name == "f32":
        return np.ascontiguousarray(floats).view(np.uint8)
    floats = np.ascontiguousarray(floats)
    rows = np.empty((cells, cache_type.row_bytes(n_values)), np.uint8)
    _from_float(cache_type.id)(floats.ctypes.data, rows.ctypes.data, floats.size)
    return rows


def rotated(values: Floats, size: int) -> Floats:
    """Each ``size`` values of every row times the orthonormal Walsh-Hadamard matrix; as they are with 0."""
    if not size:
        return values
    return (values.reshape(-1, size) @ _hadamard(size)).reshape(values.shape)


@cache
def _hadamard(size: int) -> Floats:
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return (matrix / np.sqrt(np.float32(size))).astype(np.float32)


class _TypeTraits(ctypes.Structure):
    """struct ggml_type_traits (ggml.h)."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float_ref", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    )


class _CpuTypeTraits(ctypes.Structure):
    """The part of struct ggml_type_traits_cpu (ggml-cpu.h) that is used here."""

    _fields_ = (("from_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),)


@cache
def _traits(type_id: int) -> Any:
    """ggml's own conversions for a type, once its description has proved to be laid out as we read it."""
    get = ggml.ggml_get_type_traits
    get.restype, get.argtypes = ctypes.POINTER(_TypeTraits), [ctypes.c_int]
    traits = get(type_id).contents
    ours = CACHE_TYPES[type_id]
    if (traits.type_name or b"").decode() != ours.name or (traits.blck_size, traits.type_size) != (
        ours.block_values,
        ours.block_bytes,
    ):
        raise CannotConvert(f"ggml describes {ours.name} differently")
    return traits


@cache
def _from_float(type_id: int) -> Any:
    """What turns floats into a type: the CPU backend's own, which is several times as fast and rounds as decoding does,
    where the library has it and it agrees with ggml's reference; else the reference.
    """
    reference = _traits(type_id).from_float_ref
    try:
        get = ggml.ggml_get_type_traits_cpu
    except AttributeError:  # a build that loads its backends when it runs
        return reference
    get.restype, get.argtypes = ctypes.POINTER(_CpuTypeTraits), [ctypes.c_int]
    fast = get(type_id).contents.from_float
    floats = np.sin(np.arange(1024, dtype=np.float32))
    rows = [np.zeros(CACHE_TYPES[type_id].row_bytes(floats.size), np.uint8) for _ in range(2)]
    for convert, row in zip((reference, fast), rows, strict=True):
        if convert:
            convert(floats.ctypes.data, row.ctypes.data, floats.size)
    tensor = CacheTensor(CACHE_TYPES[type_id], floats.size, 0)
    expected, got = (to_floats(row.reshape(1, -1), tensor) for row in rows)
    return fast if np.abs(got - expected).max() <= np.abs(expected - floats).max() else reference
