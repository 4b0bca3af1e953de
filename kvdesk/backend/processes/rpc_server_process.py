"""The process behind ``kvdesk worker``: runs llama.cpp's own RPC server, and ends when the pipe to its parent does.

It may die of what its clients send (llama.cpp aborts); commands/worker.py sees that and says so.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection

from kvdesk.backend.processes.compute_threads import share_processors
from kvdesk.backend.processes.output import print_to
from kvdesk.backend.protocol.facts import Device
from kvdesk.errors import KvdeskError


@dataclass(frozen=True)
class Lending:
    """The server is about to listen; ``devices`` are what it lends, memory of the CPU unknown."""

    devices: tuple[Device, ...]


@dataclass(frozen=True)
class Refused:
    """The server cannot run; why."""

    sentence: str


def rpc_worker_main(connection: Connection, log_path: str, endpoint: str, n_threads: int) -> None:
    """Entry of the process: sends Lending, and Refused if serving ends. What llama.cpp prints goes to ``log_path``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C in the terminal is the parent's to answer
    print_to(log_path)
    share_processors()
    threading.Thread(target=_leave_with_parent, args=(connection,), name="parent", daemon=True).start()
    try:
        from kvdesk.backend.llama import library, rpc_server

        library.start()
        library.rpc_function("ggml_backend_rpc_start_server")
        connection.send(Lending(rpc_server.lent_devices()))
        rpc_server.serve(endpoint, n_threads)
    except KvdeskError as error:
        connection.send(Refused(str(error)))


def _leave_with_parent(connection: Connection) -> None:
    try:
        connection.recv()
    except (EOFError, OSError):
        os._exit(0)  # the main thread is inside llama.cpp's accept or in a computation nobody waits for
