"""The other side of llama.cpp's RPC backend: lends this machine's devices to one program after another. Worker process
only; the address and the process are backend/processes/rpc_server_process.py's."""

from __future__ import annotations

import ctypes

from kvdesk.backend.llama import library
from kvdesk.backend.protocol.facts import Device
from kvdesk.errors import EngineError

_pointer = ctypes.c_void_p
_START = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, _pointer)
"""ggml_backend_rpc_start_server (ggml-rpc.h): endpoint, cache folder, threads, number of devices, devices."""


def lent_devices() -> tuple[Device, ...]:
    """What a worker here lends: every GPU, or the CPU where there is none."""
    return tuple(device for device, _ in _lent())


def serve(endpoint: str, n_threads: int) -> None:
    """Serve programs at ``endpoint``, one at a time, as long as the process lives.

    Raises EngineError when llama.cpp gives up (its log says why) or was built without RPC.
    """
    start = _START(library.rpc_function("ggml_backend_rpc_start_server"))
    pointers = [pointer for _, pointer in _lent()]
    devices = (_pointer * len(pointers))(*pointers)
    start(endpoint.encode(), None, n_threads, len(pointers), ctypes.cast(devices, _pointer))
    raise EngineError(f"llama.cpp's RPC server could not serve at {endpoint}.")


def _lent() -> list[tuple[Device, int]]:
    found = list(zip(library.devices(), library.device_pointers(), strict=True))
    gpus = [one for one in found if one[0].kind in ("gpu", "igpu")]
    return gpus or [one for one in found if one[0].kind == "cpu"][:1]
