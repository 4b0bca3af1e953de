"""A flag that llama.cpp polls for every node of a graph, without touching Python. Engine process only."""

from __future__ import annotations

import ctypes
import os

from kvdesk.backend.llama import shim
from kvdesk.backend.llama.library import lib

_libc = ctypes.CDLL("msvcrt" if os.name == "nt" else None)


class AbortFlag:
    """Set and cleared by any thread. A Python callback would cost the interpreter lock a thousand times per token, so the
    callback is the shim's. Without the shim it is libc's ``strlen``: it has the callback's shape, and on a buffer of two
    bytes it answers exactly "is the first byte set" (0 or 1)."""

    def __init__(self) -> None:
        self._flag = shim.abort_flag()
        self._buffer = ctypes.create_string_buffer(2)
        address = self._flag.callback if self._flag else _libc.strlen
        self.callback = ctypes.cast(address, lib.ggml_abort_callback)
        self.user_data = self._flag.user_data if self._flag else ctypes.cast(self._buffer, ctypes.c_void_p)

    def set(self) -> None:
        """Have llama.cpp give up the computation under way at its next check."""
        self._write(1)

    def clear(self) -> None:
        """Let the next computation run."""
        self._write(0)

    def is_set(self) -> bool:
        """Whether an end was asked for."""
        return self._buffer[0] != b"\x00"

    def _write(self, value: int) -> None:
        self._buffer[0] = bytes((value,))
        if self._flag:
            self._flag.write(value)
