"""Who answers at a network worker's address, asked in llama.cpp's RPC protocol before llama.cpp is: it aborts the
process when nobody answers (ggml-rpc.cpp, rpc_dispatcher::start). Sockets only; blocks, any thread or process."""

from __future__ import annotations

import re
import socket
import struct

from kvdesk.errors import EngineError, UsageError, WorkerBusy

DEFAULT_PORT = 50052
PROTOCOL = (7, 0)
"""RPC_PROTO_MAJOR_VERSION and RPC_PROTO_MINOR_VERSION of the llama.cpp we are built with (ggml-rpc.h)."""
ANSWER_S = 5.0
"""How long a worker may take to answer; one that serves another program answers when that one leaves."""

_HELLO = 14
"""RPC_CMD_HELLO; ggml-rpc.cpp promises never to change it."""
_CAPS_BYTES = 24
_REQUEST = struct.pack("<BQ", _HELLO, _CAPS_BYTES) + bytes(_CAPS_BYTES)
_RESPONSE = struct.Struct(f"<QBBB{1 + _CAPS_BYTES}x")
"""Size of what follows, then the version's three numbers, padding and capabilities."""


def parse_endpoint(endpoint: str) -> tuple[str, int]:
    """Host and port of "host:port". Raises UsageError; llama.cpp knows names and IPv4 addresses only."""
    found = re.fullmatch(r"([^\s:]+):(\d{1,5})", endpoint)
    if not found or not 0 < int(found[2]) < 65536:
        raise UsageError(f"{endpoint!r} is no network worker's address; write host:port, for example 192.0.2.7:50052.")
    return found[1], int(found[2])


def check_worker(endpoint: str, timeout_s: float = ANSWER_S) -> None:
    """Return if a worker at ``endpoint`` is free to serve this program.

    Raises UsageError (no address), WorkerBusy or EngineError with a sentence: nobody there, another version, no worker at all.
    """
    host, port = parse_endpoint(endpoint)
    try:
        address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4]
    except (OSError, UnicodeError) as error:
        raise EngineError(f"The network worker's host {host!r} cannot be found.") from error
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect(address)
        except OSError as error:
            raise EngineError(f"No network worker answers at {endpoint}; is `kvdesk worker` running there?") from error
        try:
            version = _say_hello(sock)
        except TimeoutError as error:
            raise WorkerBusy(
                f"The network worker at {endpoint} is busy: it serves one program at a time, and another is using it."
            ) from error
        except (OSError, ValueError) as error:
            raise EngineError(f"What answers at {endpoint} is no llama.cpp RPC worker.") from error
    if version[0] != PROTOCOL[0] or version[1] > PROTOCOL[1]:
        theirs, ours = (".".join(map(str, one)) for one in (version, PROTOCOL))
        raise EngineError(
            f"The network worker at {endpoint} speaks llama.cpp's RPC protocol {theirs} and this computer {ours}; "
            "install the same version of kvdesk on both."
        )


def _say_hello(sock: socket.socket) -> tuple[int, int]:
    """The protocol's major and minor version. Raises ValueError for an answer in another protocol."""
    sock.sendall(_REQUEST)
    answer = b""
    while len(answer) < _RESPONSE.size:
        more = sock.recv(_RESPONSE.size - len(answer))
        if not more:
            raise ValueError("closed")
        answer += more
    size, major, minor, _ = _RESPONSE.unpack(answer)
    if size != _RESPONSE.size - 8:
        raise ValueError("not hello")
    return major, minor
