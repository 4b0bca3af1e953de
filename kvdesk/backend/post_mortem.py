"""Why the engine process ended, in words, from its exit code, its log and the kernel's out-of-memory counter. Pure."""

from __future__ import annotations

import re
import signal

from kvdesk.errors import EngineDied

_NTSTATUS = {
    0xC0000005: "an access violation",
    0xC000001D: "an instruction that this CPU does not have",
    0xC0000017: "running out of memory",
    0xC0000409: "an abort",
}
"""Windows exit codes that mean a crash (never seen there by us)."""

_MIB = 1024 * 1024


def asked_and_free_bytes(log: str) -> tuple[int | None, int | None]:
    """(bytes asked for, bytes free then) of the last failed allocation in ``log``; None where it does not say.

    Lines of ggml-cuda.cu ("allocating 36.00 MiB on device 0: cudaMalloc failed: out of memory"), ggml-alloc.c
    ("failed to allocate CUDA0 buffer of size 123") and ggml-vulkan.cpp ("Requested buffer size (123) exceeds ...").
    """
    asked: int | None = None
    free: int | None = None
    for line in log.splitlines():
        if found := re.search(r"allocating ([\d.]+) MiB on device", line):
            asked = round(float(found[1]) * _MIB)
        elif found := re.search(r"fail\w* to allocate .*?of size (\d+)", line) or re.search(
            r"Requested buffer size \((\d+)\)", line
        ):
            asked = int(found[1])
        if found := re.search(r"([\d.]+) MiB (?:is |are )?free", line):
            free = round(float(found[1]) * _MIB)
    return asked, free


def _amount(n: int) -> str:
    return f"{n / 1024**3:.1f} GiB" if n >= 1024**3 else f"{n / _MIB:.0f} MiB"


def _last_words(log: str) -> str:
    """llama.cpp's own last complaint, if it made one."""
    for line in reversed(log.splitlines()):
        if re.search(r"GGML_ASSERT|GGML_ABORT|CUDA error|error:|Fatal Python error|terminate called|what\(\)", line):
            return line.strip()[-300:]
    return ""


def explain(exit_code: int | None, log: str, doing: str, *, oom_killed: bool = False, hung: bool = False) -> EngineDied:
    """The error to show. ``doing`` completes "while ..."; ``oom_killed``: the kernel's counter rose meanwhile.

    ``exit_code`` is multiprocessing's: negative is a signal; None when it could not be had.
    """
    name = _signal_name(exit_code)
    asked, free = asked_and_free_bytes(log)
    if hung:
        cause = "did not answer any more and was ended"
    elif asked is not None:
        room = f", {_amount(free)} was free" if free is not None else ""
        cause = f"ran out of memory: it asked for {_amount(asked)}{room}"
    elif oom_killed or name == "SIGKILL":
        cause = "was killed by the system" + (" because memory ran out" if oom_killed else ", most likely for memory")
    elif name == "SIGSEGV":
        cause = "crashed (segmentation fault)"
    elif name == "SIGILL":
        cause = "met an instruction that this CPU does not have"
    elif name == "SIGABRT":
        cause = "gave up"
    elif exit_code is not None and (exit_code & 0xFFFFFFFF) in _NTSTATUS:
        cause = f"crashed with {_NTSTATUS[exit_code & 0xFFFFFFFF]}"
    elif name:
        cause = f"was ended by {name}"
    else:
        cause = f"ended unexpectedly (exit code {exit_code})"
    words = "" if asked is not None or hung else _last_words(log)
    sentence = f"The engine {cause} while {doing}." + (f" Its last words: {words}" if words else "")
    return EngineDied(sentence, exit_code, name, "\n".join(log.splitlines()[-40:]))


def _signal_name(exit_code: int | None) -> str | None:
    if exit_code is None or exit_code >= 0:
        return None
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"
