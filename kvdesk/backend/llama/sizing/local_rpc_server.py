"""A network worker that is busy, replaced for planning by llama.cpp's own server on a thread of the helper. Helper only.

A worker serves one client at a time; while the engine uses it, a dry run would wait for ever. What buffers a device asks
for does not depend on whose memory it is, so a server here gives the same plan (a GPU behind the worker may pad more).
"""

from __future__ import annotations

import ctypes
import dataclasses
import socket
import threading
from collections.abc import Callable
from typing import Any

from kvdesk.backend.llama import library
from kvdesk.backend.llama.library import ggml
from kvdesk.backend.protocol.footprint import Footprint
from kvdesk.backend.system.rpc_probe import check_worker
from kvdesk.errors import EngineError, PlanError, UsageError, WorkerBusy

_pointer = ctypes.c_void_p
_ANSWER_S = 1.0
_START_S = 5.0


def is_busy(endpoint: str) -> bool:
    """Whether the worker at ``endpoint`` (host:port) takes a connection but does not answer: it serves someone else.

    Raises PlanError when nobody is there, or no worker that this computer can use.
    """
    try:
        check_worker(endpoint, _ANSWER_S)
    except WorkerBusy:
        return True
    except (EngineError, UsageError) as error:
        raise PlanError(str(error)) from error
    return False


def start() -> str:
    """Serve this process's own CPU on a port of the loopback device for the life of the process; returns host:port."""
    library.start()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    threading.Thread(target=_serve, args=(endpoint,), name="stand-in", daemon=True).start()
    deadline = threading.Event()
    for _ in range(int(_START_S / 0.01)):
        try:
            if not is_busy(endpoint):
                return endpoint
        except PlanError:
            deadline.wait(0.01)
    raise PlanError("The network worker is busy, and llama.cpp's own server could not be started in its place.")


def renamed(footprint: Footprint, endpoints: dict[str, str]) -> Footprint:
    """``footprint`` with the real workers' addresses in place of their stand-ins' (``endpoints``: stand-in -> worker);
    whose memory is not known here, so that is None."""
    if not endpoints:
        return footprint

    def real(text: str) -> str:
        for ours, theirs in endpoints.items():
            text = text.replace(ours, theirs)
        return text

    return dataclasses.replace(
        footprint,
        buffers=tuple(dataclasses.replace(b, name=real(b.name)) for b in footprint.buffers),
        devices=tuple(
            dataclasses.replace(d, description=real(d.description), free_bytes=None, total_bytes=None)
            if d.kind == "rpc"
            else d
            for d in footprint.devices
        ),
        warnings=(
            *footprint.warnings,
            f"The network worker {', '.join(endpoints.values())} is in use, so its share is planned without asking it.",
        ),
    )


def as_described(footprint: Footprint, names: dict[str, str]) -> Footprint:
    """``footprint`` with devices of ``names`` (stand-in -> name) in place of the stand-ins: GPUs, by their own names."""
    by_device = {d.name: names[d.description] for d in footprint.devices if d.description in names}
    return dataclasses.replace(
        footprint,
        buffers=tuple(
            dataclasses.replace(b, device=by_device[b.device], name=by_device[b.device]) if b.device in by_device else b
            for b in footprint.buffers
        ),
        devices=tuple(
            dataclasses.replace(
                d, name=by_device[d.name], description="described", kind="gpu", free_bytes=None, total_bytes=None
            )
            if d.name in by_device
            else d
            for d in footprint.devices
        ),
    )


def _serve(endpoint: str) -> None:
    def function(name: str, *types: type[ctypes._SimpleCData[Any]]) -> Callable[..., Any]:  # pyright: ignore[reportPrivateUsage]
        return ctypes.CFUNCTYPE(_pointer, *types)(ctypes.cast(getattr(ggml, name), _pointer).value or 0)

    by_type = function("ggml_backend_dev_by_type", ctypes.c_int)
    by_name = function("ggml_backend_reg_by_name", ctypes.c_char_p)
    address_of = function("ggml_backend_reg_get_proc_address", _pointer, ctypes.c_char_p)
    address = address_of(by_name(b"RPC"), b"ggml_backend_rpc_start_server")
    cpu = (_pointer * 1)(by_type(0))
    serve = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, _pointer)(
        address
    )
    serve(endpoint.encode(), None, 1, 1, ctypes.cast(cpu, _pointer))
