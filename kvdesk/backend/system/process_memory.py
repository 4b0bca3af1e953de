"""What a process holds in RAM, split into what only it can give back and what the kernel can drop. Any thread.

Linux reads the kernel's counters; macOS and Windows paths are written from the systems' documents, never run there.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path

from kvdesk.backend.system.procfs import kib_fields, read_text


@dataclass(frozen=True)
class ProcessMemory:
    """Bytes; None where the system does not say.

    ``anonymous_bytes`` is memory without a file behind it (shared memory included): only ending or swapping gives
    it back. ``file_bytes`` are resident pages of mapped files. ``peak_bytes`` is the kernel's record of the largest
    ``resident_bytes``. ``source`` names the figures' origin.
    """

    resident_bytes: int | None
    anonymous_bytes: int | None
    file_bytes: int | None
    swap_bytes: int | None
    peak_bytes: int | None
    source: str


def engine_memory(pid: int, root: Path = Path("/"), *, exact: bool = False) -> ProcessMemory | None:
    """The process and all its descendants together; None when it is gone. The peak is that of ``pid`` alone.

    By default from ``/proc/PID/status``, 20 microseconds whatever the size. The kernel keeps those counters per CPU and may
    be off by some pages per CPU; ``exact`` walks the page tables (``smaps_rollup``), 16 ms for every GiB resident,
    which a reading after a load may cost and a reading twice a second may not.
    """
    return family_memory((pid, *descendants(pid, root)), root, exact=exact)


def family_memory(pids: tuple[int, ...], root: Path = Path("/"), *, exact: bool = False) -> ProcessMemory | None:
    """The processes together; the first is the engine, without which there is no figure."""
    family = [process_memory(pid, root, exact=exact) for pid in pids]
    if not family or family[0] is None:
        return None
    alive = [one for one in family if one is not None]
    return ProcessMemory(
        _sum([one.resident_bytes for one in alive]),
        _sum([one.anonymous_bytes for one in alive]),
        _sum([one.file_bytes for one in alive]),
        _sum([one.swap_bytes for one in alive]),
        family[0].peak_bytes,
        family[0].source,
    )


def process_memory(pid: int, root: Path = Path("/"), *, exact: bool = False) -> ProcessMemory | None:
    """One process; None when it is gone or not ours to look at. ``root`` stands for "/" (tests)."""
    if sys.platform != "linux":
        return _foreign_memory(pid)
    status = kib_fields(read_text(root / f"proc/{pid}/status") or "")
    if "VmRSS" not in status:  # gone, or a zombie
        return None
    peak, swap = status.get("VmHWM"), status.get("VmSwap")
    if exact:
        rollup = kib_fields(read_text(root / f"proc/{pid}/smaps_rollup") or "")
        if "Rss" in rollup:
            anonymous = rollup.get("Anonymous", 0) + rollup.get("Pss_Shmem", 0)
            return ProcessMemory(
                rollup["Rss"],
                anonymous,
                max(0, rollup["Rss"] - anonymous),
                rollup.get("Swap", swap),
                peak,
                "smaps_rollup",
            )
    parts = [status.get(name) for name in ("RssAnon", "RssShmem")]
    return ProcessMemory(status["VmRSS"], _sum(parts), status.get("RssFile"), swap, peak, "kernel counters")


def descendants(pid: int, root: Path = Path("/")) -> tuple[int, ...]:
    """The process ids of a process's children, and of theirs, and so on."""
    if sys.platform != "linux":
        return _foreign_descendants(pid)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        for task in (root / f"proc/{waiting.pop()}/task").glob("*/children"):
            children = [int(word) for word in (read_text(task) or "").split()]
            found += children
            waiting += children
    return tuple(found)


def _sum(values: list[int | None]) -> int | None:
    """The sum; None when a part of it is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _foreign_descendants(pid: int) -> tuple[int, ...]:
    import psutil

    try:
        return tuple(child.pid for child in psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return ()


def _foreign_memory(pid: int) -> ProcessMemory | None:
    """Windows: private bytes are committed, so they count as unevictable. macOS: the physical footprint does."""
    import psutil

    try:
        process = psutil.Process(pid)
        memory = process.memory_info()
        if sys.platform == "win32":
            return ProcessMemory(memory.rss, memory.private, None, None, memory.peak_wset, "private bytes")
        footprint = _macos_footprint_bytes(pid)
        if footprint is not None:
            return ProcessMemory(
                memory.rss, footprint, max(0, memory.rss - footprint), None, None, "physical footprint"
            )
        uss = int(process.memory_full_info().uss)
        return ProcessMemory(memory.rss, uss, max(0, memory.rss - uss), None, None, "unique set size")
    except psutil.Error:
        return None


class _RusageInfoV0(ctypes.Structure):
    """``struct rusage_info_v0`` of macOS <sys/resource.h>."""

    _fields_ = (
        ("uuid", ctypes.c_uint8 * 16),
        *((name, ctypes.c_uint64) for name in ("user_time", "system_time", "package_wakeups", "interrupt_wakeups")),
        *((name, ctypes.c_uint64) for name in ("pageins", "wired_size", "resident_size", "physical_footprint")),
        *((name, ctypes.c_uint64) for name in ("start_abstime", "exit_abstime")),
    )


def _macos_footprint_bytes(pid: int) -> int | None:
    """Activity Monitor's "Memory" of a process of the same user (``proc_pid_rusage``); needs no privilege."""
    try:
        usage = _RusageInfoV0()
        if ctypes.CDLL("/usr/lib/libproc.dylib").proc_pid_rusage(pid, 0, ctypes.byref(usage)) != 0:
            return None
        return int(usage.physical_footprint)
    except (OSError, AttributeError):
        return None
