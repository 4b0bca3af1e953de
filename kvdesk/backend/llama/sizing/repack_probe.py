"""Tries the CPU's extra buffer types (AMX, repacking) on one small product; kills this process where they do not work.

Some machines announce AMX and then fault in its kernels (ENGINE.md, Process). Helper process only: whoever asks must
expect the process to be gone instead of an answer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from kvdesk.backend.ggml_types import BY_NAME
from kvdesk.backend.llama import library
from kvdesk.backend.llama.library import ggml

_pointer, _size, _int64 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64
_K, _N, _M = 256, 64, 32
"""Sizes that every extra kernel takes; ``_M`` columns, because a single one goes another way."""
_Q4_0_BYTES = _K // 32 * 18 * _N
_CONTEXT_BYTES = 1024 * 1024
"""Room for the metadata of a handful of tensors and one graph."""


class _InitParams(ctypes.Structure):
    """struct ggml_init_params (ggml.h)."""

    _fields_ = [("mem_size", _size), ("mem_buffer", _pointer), ("no_alloc", ctypes.c_bool)]


def _function(name: str, restype: Any, *argtypes: Any) -> Callable[..., Any]:
    address = ctypes.cast(getattr(ggml, name), _pointer).value or 0
    return ctypes.CFUNCTYPE(restype, *argtypes)(address)


def try_extra_buffer_types() -> None:
    """Multiply a q4_0 matrix in every extra buffer type of the CPU. Returns when all went well."""
    library.start()
    device = _function("ggml_backend_dev_by_type", _pointer, ctypes.c_int)(0)
    registry = _function("ggml_backend_dev_backend_reg", _pointer, _pointer)(device)
    address = _function("ggml_backend_reg_get_proc_address", _pointer, _pointer, ctypes.c_char_p)(
        registry, b"ggml_backend_dev_get_extra_bufts"
    )
    if not address:
        return
    types = ctypes.CFUNCTYPE(ctypes.POINTER(_pointer), _pointer)(address)(device)
    backend = _function("ggml_backend_dev_init", _pointer, _pointer, ctypes.c_char_p)(device, None)
    index = 0
    while types and types[index]:
        _multiply(device, backend, types[index])
        index += 1
    _function("ggml_backend_free", None, _pointer)(backend)


def _multiply(device: int, backend: int, buffer_type: int) -> None:
    """One product with its weights in ``buffer_type``, if the CPU says it can."""
    init = _function("ggml_init", _pointer, _InitParams)
    matrix = _function("ggml_new_tensor_2d", _pointer, _pointer, ctypes.c_int, _int64, _int64)
    place = _function("ggml_backend_alloc_ctx_tensors_from_buft", _pointer, _pointer, _pointer)
    write = _function("ggml_backend_tensor_set", None, _pointer, ctypes.c_char_p, _size, _size)
    default = _function("ggml_backend_dev_buffer_type", _pointer, _pointer)(device)
    weights_context, context = (init(_InitParams(_CONTEXT_BYTES, None, True)) for _ in range(2))
    weights = matrix(weights_context, BY_NAME["q4_0"].id, _K, _N)
    weights_buffer = place(weights_context, buffer_type)
    vectors = matrix(context, BY_NAME["f32"].id, _K, _M)
    product = _function("ggml_mul_mat", _pointer, _pointer, _pointer, _pointer)(context, weights, vectors)
    buffer = place(context, default)
    if _function("ggml_backend_dev_supports_op", ctypes.c_bool, _pointer, _pointer)(device, product):
        write(weights, bytes(_Q4_0_BYTES), 0, _Q4_0_BYTES)
        write(vectors, bytes(4 * _K * _M), 0, 4 * _K * _M)
        graph = _function("ggml_new_graph", _pointer, _pointer)(context)
        _function("ggml_build_forward_expand", None, _pointer, _pointer)(graph, product)
        _function("ggml_backend_graph_compute", ctypes.c_int, _pointer, _pointer)(backend, graph)
    for part in (buffer, weights_buffer):
        _function("ggml_backend_buffer_free", None, _pointer)(part)
    for part in (context, weights_context):
        _function("ggml_free", None, _pointer)(part)
