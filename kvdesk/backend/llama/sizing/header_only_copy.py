"""A model's headers alone, as a sparse file that llama.cpp can plan from. Helper process only.

Without the vocabulary a header opens in milliseconds where a whole one takes half a second; and a header by itself, a
cut-short download or a file that never had a vocabulary becomes something llama.cpp accepts.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvdesk.backend.llama.library import ggml
from kvdesk.errors import PlanError

_pointer = ctypes.c_void_p
_KEPT_TOKENIZER_KEYS = frozenset({"tokenizer.ggml.token_type_count"})


class _InitParams(ctypes.Structure):
    """struct gguf_init_params (gguf.h)."""

    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", _pointer)]


def _declare(name: str, restype: Any, *argtypes: Any) -> Any:
    function = getattr(ggml, name)
    function.restype = restype
    function.argtypes = list(argtypes)
    return function


_open = _declare("gguf_init_from_file", _pointer, ctypes.c_char_p, _InitParams)
_free = _declare("gguf_free", None, _pointer)
_n_kv = _declare("gguf_get_n_kv", ctypes.c_int64, _pointer)
_key = _declare("gguf_get_key", ctypes.c_char_p, _pointer, ctypes.c_int64)
_remove = _declare("gguf_remove_key", ctypes.c_int64, _pointer, ctypes.c_char_p)
_set_str = _declare("gguf_set_val_str", None, _pointer, ctypes.c_char_p, ctypes.c_char_p)
_set_u32 = _declare("gguf_set_val_u32", None, _pointer, ctypes.c_char_p, ctypes.c_uint32)
_n_tensors = _declare("gguf_get_n_tensors", ctypes.c_int64, _pointer)
_tensor_offset = _declare("gguf_get_tensor_offset", ctypes.c_size_t, _pointer, ctypes.c_int64)
_tensor_size = _declare("gguf_get_tensor_size", ctypes.c_size_t, _pointer, ctypes.c_int64)
_write = _declare("gguf_write_to_file", ctypes.c_bool, _pointer, ctypes.c_char_p, ctypes.c_bool)


def write_header_copies(parts: Sequence[Path], folder: Path, architecture: str, n_vocab: int) -> Path:
    """Copies of ``parts`` in ``folder``, with ``n_vocab`` nameless tokens in place of the vocabulary; the first one's path.

    Names are kept, because llama.cpp finds the parts of a split model by name. The data is a hole: it takes no room on
    the disk where files may have holes. Raises PlanError when a header cannot be read or written.
    """
    for number, part in enumerate(parts):
        params = _InitParams(True, None)
        gguf = _open(os.fsencode(part), params)
        if not gguf:
            raise PlanError(f"llama.cpp cannot read the header of {part.name}.")
        try:
            if number == 0:
                _drop_vocabulary(gguf, architecture, n_vocab)
            _write_sparse(gguf, folder / part.name)
        finally:
            _free(gguf)
    return folder / parts[0].name


def _drop_vocabulary(gguf: int, architecture: str, n_vocab: int) -> None:
    """What llama.cpp takes for a model without a vocabulary (llama-vocab.cpp, "no_vocab")."""
    keys = [_key(gguf, index).decode("utf-8", "surrogateescape") for index in range(_n_kv(gguf))]
    for key in keys:
        if key.startswith("tokenizer.") and key not in _KEPT_TOKENIZER_KEYS:
            _remove(gguf, key.encode("utf-8", "surrogateescape"))
    _set_str(gguf, b"tokenizer.ggml.model", b"none")
    _set_u32(gguf, f"{architecture}.vocab_size".encode(), n_vocab)


def _write_sparse(gguf: int, path: Path) -> None:
    if not _write(gguf, os.fsencode(path), True):
        raise PlanError(f"{path} cannot be written.")
    last = _n_tensors(gguf) - 1
    data_bytes = _tensor_offset(gguf, last) + _tensor_size(gguf, last) if last >= 0 else 0
    os.truncate(path, path.stat().st_size + data_bytes)
