"""llama.cpp's own RPC server with this machine's CPU as its device: ``python rpc_server.py HOST:PORT``; runs until killed."""

from __future__ import annotations

import ctypes
import sys

from kvdesk.backend.llama import library

_pointer = ctypes.c_void_p


def main(endpoint: str) -> None:
    """Serve at ``endpoint``. Its words come out line by line, also into a pipe."""
    library.start()
    ggml = library.ggml
    by_type, by_name, address_of = (
        getattr(ggml, name)
        for name in ("ggml_backend_dev_by_type", "ggml_backend_reg_by_name", "ggml_backend_reg_get_proc_address")
    )
    by_type.restype = by_name.restype = address_of.restype = _pointer
    cpu = (_pointer * 1)(by_type(0))
    start = address_of(_pointer(by_name(b"RPC")), b"ggml_backend_rpc_start_server")
    libc = ctypes.CDLL(None)
    libc.setvbuf(_pointer.in_dll(libc, "stdout"), None, 1, 0)  # by the line
    serve = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, _pointer)(start)
    serve(endpoint.encode(), None, 1, 1, ctypes.cast(cpu, _pointer))


if __name__ == "__main__":
    main(sys.argv[1])
