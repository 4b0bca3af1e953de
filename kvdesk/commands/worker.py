"""``kvdesk worker``: lends this machine's memory and devices to a kvdesk on another one, by llama.cpp's own RPC server.

The server runs in a child process (backend/processes/rpc_server_process.py); this one checks the address, says what is lent, and waits.
"""

from __future__ import annotations

import argparse
import ipaddress
import socket
import sys
import time
from typing import TYPE_CHECKING

from kvdesk.errors import EngineError, UsageError
from kvdesk.sizes import format_bytes
from kvdesk.terminal import say, say_beside

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kvdesk.backend.protocol.facts import Device
    from kvdesk.backend.system.child_process import ChildProcess

START_S = 60.0
"""How long llama.cpp's libraries may take to load and the server to listen."""
END_S = 5.0
NO_AUTHENTICATION = (
    "llama.cpp's RPC protocol has no authentication and no encryption: whoever reaches {0} can use this computer's "
    "memory and may take it over. Open it in a network that you trust alone."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    from kvdesk.backend.system.rpc_probe import DEFAULT_PORT

    parser.add_argument("--host", default="127.0.0.1", help="IPv4 address to listen on (this computer alone)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"port to listen on ({DEFAULT_PORT}); 0 is any")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 is one per core")
    parser.add_argument("--allow-remote", action="store_true", help="let other computers connect; see the warning")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl+C. Raises KvdeskError with the sentence to print."""
    import psutil

    address = _address(args.host)
    if not address.is_loopback and not args.allow_remote:
        raise UsageError(f"{args.host} lets other computers connect; if that is meant, add --allow-remote.")
    if args.threads < 0:
        raise UsageError("The number of threads is negative; 0 is one per core.")
    endpoint = f"{address}:{_free_port(address, args.port)}"
    if not address.is_loopback:
        say_beside(f"kvdesk worker: {NO_AUTHENTICATION.format(endpoint)}")
    _serve(endpoint, args.threads or psutil.cpu_count(logical=False) or 1)
    return 0


def _address(host: str) -> ipaddress.IPv4Address:
    """``host`` as the IPv4 address that llama.cpp's server needs."""
    try:
        return ipaddress.IPv4Address(socket.gethostbyname(host))
    except (OSError, UnicodeError, ValueError) as error:
        raise UsageError(f"{host!r} is no IPv4 address or name of this computer.") from error


def _free_port(address: ipaddress.IPv4Address, port: int) -> int:
    """``port``, or any free one for 0, after trying to take it: llama.cpp would only say that it failed."""
    if not 0 <= port < 65536:
        raise UsageError(f"{port} is no port; choose one from 1 to 65535, or 0 for any.")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        if sys.platform != "win32":  # there it would let two servers share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((str(address), port))
        except OSError as error:
            raise EngineError(
                f"{address}:{port} cannot be listened on ({error.strerror or error}); if another worker runs there, "
                "choose another --port."
            ) from error
        return sock.getsockname()[1]


def _serve(endpoint: str, n_threads: int) -> None:
    from kvdesk import paths
    from kvdesk.backend.processes.rpc_server_process import rpc_worker_main
    from kvdesk.backend.system.child_process import ChildProcess

    log_path = paths.log_dir() / f"worker-{endpoint.rpartition(':')[2]}.log"
    process = ChildProcess(rpc_worker_main, "kvdesk worker", str(log_path), endpoint, n_threads)
    try:
        devices = _lent_devices(process, log_path)
        _wait_until_listening(endpoint, process, log_path)
        say(f"listening on {endpoint}, {_offer(devices)}")
        while not process.wait(0.5):  # and not for ever: on Windows Ctrl+C would not end that
            pass
        raise EngineError(_why_ended(process, log_path))
    except KeyboardInterrupt:
        say("stopped")
    finally:
        process.end(END_S)


def _lent_devices(process: ChildProcess, log_path: Path) -> tuple[Device, ...]:
    from multiprocessing.connection import wait

    from kvdesk.backend.processes.rpc_server_process import Lending

    wait([process.connection, process.sentinel], START_S)
    answer = process.connection.recv() if process.connection.poll() else None
    if not isinstance(answer, Lending):
        raise EngineError(getattr(answer, "sentence", "") or _why_ended(process, log_path))
    return answer.devices


def _wait_until_listening(endpoint: str, process: ChildProcess, log_path: Path) -> None:
    from kvdesk.backend.system.rpc_probe import check_worker

    # a server on 0.0.0.0 is reached by way of this computer's own address
    own = endpoint.replace("0.0.0.0:", "127.0.0.1:", 1)
    until = time.monotonic() + START_S
    while True:
        try:
            return check_worker(own)
        except EngineError as error:
            if process.wait(0.05) or time.monotonic() > until:
                raise EngineError(f"llama.cpp's RPC server did not start; {log_path} says more.") from error


def _offer(devices: Sequence[Device]) -> str:
    """What is lent, in words; the CPU's is what this machine can still give."""
    from kvdesk.backend.system.machine import read_domains

    ram = next(domain for domain in read_domains() if domain.kind == "ram")
    sizes = [ram.available_bytes if device.kind == "cpu" else device.free_bytes for device in devices]
    total = sum(size or 0 for size in sizes)
    return f"{format_bytes(total)} ({', '.join(f'{d.name}: {d.description}' for d in devices)})"


def _why_ended(process: ChildProcess, log_path: Path) -> str:
    from kvdesk.backend.engine.crash_report import explain

    try:
        said = process.connection.recv() if process.connection.poll() else None
    except (EOFError, OSError):
        said = None
    if said is not None:
        return f"{said.sentence} {log_path} says more."
    log = log_path.read_text("utf-8", "replace") if log_path.exists() else ""
    return str(explain(process.exit_code, log, "serving", who="worker"))
