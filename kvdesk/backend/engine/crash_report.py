"""Why the engine process ended, in words, from its exit code, its log and the kernel's out-of-memory counter. Pure."""

from __future__ import annotations

import re
from typing import Any

from kvdesk.backend.ggml_log import failed_allocation
from kvdesk.backend.system.child_process import signal_name
from kvdesk.errors import EngineDied
from kvdesk.sizes import MIB, format_bytes

_SIGNALS = {
    "SIGSEGV": "crashed (segmentation fault)",
    "SIGILL": "met an instruction that this CPU does not have",
    "SIGABRT": "gave up",
    "SIGBUS": "could not read its memory any more (the model file was changed, or its disk is gone)",
}
_NO_MEMORY = 0xC0000017
_NTSTATUS = {
    0xC0000005: "crashed (access violation)",
    _NO_MEMORY: "ran out of memory",
    0xC000001D: "met an instruction that this CPU does not have",
    0xC0000374: "crashed (damaged heap)",
    0xC0000409: "gave up",
    0xC00000FD: "crashed (stack overflow)",
}
"""Windows exit codes that mean a crash (never seen there by us)."""

_FRESH_START = re.compile(r"constructing llama_context|llama_model_loader: loaded meta data")
"""With these lines a new try begins: what failed before them was survived."""
_WORKER_LOST = re.compile(
    r"ggml-rpc\.cpp:\d+: (?:Remote RPC server crashed|Failed to connect to (\S+)|RPC handshake failed for (\S+))"
)
"""What ggml-rpc.cpp aborts with when a worker is gone."""
_WORKER = re.compile(r"using device RPC\d+ \(([^()\s]+)\)")
_COMPLAINT = re.compile(
    r"GGML_ASSERT|GGML_ABORT|CUDA error|(?<!Python )error:|terminate called|what\(\)|^\S+\.(?:c|cpp|cu|cuh|h|m|mm):\d+: "
)


def explain(
    exit_code: int | None, log: str, doing: str, *, who: str = "engine", oom_killed: bool = False, hung: bool = False
) -> EngineDied:
    """The error to show. ``doing`` completes "while ..."; ``oom_killed``: the kernel's counter rose meanwhile.

    ``exit_code`` is multiprocessing's: negative is a signal; None when it could not be had.
    """
    name, recent = signal_name(exit_code), _recent(log)
    asked, free = asked_and_free_bytes(log)
    words, worker = _last_words(recent), _lost_worker(log)
    more, memory = ".", True
    if hung:
        cause, memory = "did not answer any more and was ended", False
    elif worker:
        cause, more, memory = f"lost {worker}", ". Start `kvdesk worker` there again, then reload.", False
    elif "GGML_ASSERT(id_to_token.size() == token_to_id.size())" in recent:  # llama-vocab.cpp
        cause, memory = "gave up", False
        more = ": the file has the same token twice in its vocabulary, so it is damaged. Download it again."
    elif asked is not None:
        room = f", {format_bytes(free)} was free" if free is not None else ""
        cause, more = "ran out of memory", f": it asked for {format_bytes(asked)}{room}."
    elif re.search(r"CUDA error: out of memory|OutOfDeviceMemory", recent):
        cause = "ran out of GPU memory"
    elif "std::bad_alloc" in recent:
        cause = "ran out of memory"
    elif oom_killed and name in ("SIGKILL", None):
        cause = "was killed by the system because memory ran out"
    elif name == "SIGKILL":
        cause, memory = "was killed from outside (SIGKILL), by hand or by a system short of memory,", False
    else:
        cause, more = _ending(exit_code, name), f". Its last words: {words}" if words else "."
        memory = (exit_code or 0) & 0xFFFFFFFF == _NO_MEMORY
    return EngineDied(
        f"The {who} {cause} while {doing}{more}",
        exit_code,
        name,
        "\n".join(log.splitlines()[-40:]),
        asked_bytes=asked,
        free_bytes=free,
        last_words=words,
        is_out_of_memory=memory,
    )


FAULTS = frozenset({"SIGSEGV", "SIGILL", "SIGABRT"})
WINDOWS_FAULTS = frozenset({0xC0000005, 0xC000001D, 0xC0000409})
"""Exit codes of an access violation, an illegal instruction and an abort."""


def is_computing_fault(error: EngineDied) -> bool:
    """Whether a kernel of llama.cpp may have done it: a fault of the process's own, no lack of memory, no kill from
    outside."""
    is_fault = error.signal_name in FAULTS or (error.exit_code or 0) & 0xFFFFFFFF in WINDOWS_FAULTS
    return is_fault and not error.is_out_of_memory


def crash_values(error: EngineDied) -> dict[str, Any]:
    """The values of a "crash" event in the session log (docs/MEMORY_LOG.md); unknown ones are left out."""
    values = {
        "exit_code": error.exit_code,
        "signal": error.signal_name,
        "asked_bytes": error.asked_bytes,
        "free_bytes": error.free_bytes,
        "last_words": error.last_words or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def asked_and_free_bytes(log: str) -> tuple[int | None, int | None]:
    """(bytes asked for, bytes free then) of the failed allocation that ``log`` ends with; None where it does not say."""
    failed = failed_allocation(_recent(log).splitlines())
    return (failed.asked_bytes, _free_bytes(log, failed.device)) if failed else (None, None)


def _free_bytes(log: str, device: str) -> int | None:
    """What was free on ``device``: as it was when loading began (llama.cpp, "using device"), less the buffers made since."""
    free: int | None = None
    weights = context = 0
    name = re.escape(device)
    for line in log.splitlines():
        if found := re.search(rf"using device {name} .* (\d+) MiB free", line):
            free, weights, context = int(found[1]) * MIB, 0, 0
        elif "constructing llama_context" in line:  # the one before it is freed by then
            context = 0
        elif found := re.search(rf" {name} +(model|KV|RS|compute|output) buffer size = *([\d.]+) MiB", line):
            size = round(float(found[2]) * MIB)
            weights, context = (weights + size, context) if found[1] == "model" else (weights, context + size)
    return None if free is None or not device else max(0, free - weights - context)


def _lost_worker(log: str) -> str:
    """The network worker whose loss llama.cpp aborted with, in words; "" when that was not it."""
    found = _WORKER_LOST.search(_recent(log))
    if not found:
        return ""
    known = list(dict.fromkeys(_WORKER.findall(log)))
    named = [name for name in found.groups() if name] or known
    several = "one of the network workers" if len(named) > 1 else "the network worker"
    return f"{several} {', '.join(named)}".rstrip()


def _recent(log: str) -> str:
    """The log from its last fresh start on."""
    starts = list(_FRESH_START.finditer(log))
    return log[starts[-1].start() :] if starts else log


def _last_words(recent: str) -> str:
    """llama.cpp's own last complaint, if it made one, without the folders of the machine that it was built on."""
    for line in reversed(recent.splitlines()):
        if _COMPLAINT.search(line):
            return re.sub(r"^\S*[/\\](?=[^/\\\s]+:\d+: )", "", line.strip())[:300]
    return ""


def _ending(exit_code: int | None, signal_name: str | None) -> str:
    """What the exit code alone says."""
    if signal_name:
        return _SIGNALS.get(signal_name, f"was ended by {signal_name}")
    if exit_code is not None and (exit_code & 0xFFFFFFFF) in _NTSTATUS:
        return _NTSTATUS[exit_code & 0xFFFFFFFF]
    return "ended unexpectedly" + ("" if exit_code is None else f" (exit code {exit_code})")
