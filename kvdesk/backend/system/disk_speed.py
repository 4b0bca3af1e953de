"""How fast a file can be read from its disk, past the system's cache. Reads 64 MiB once for each disk; any thread, blocking.

Linux: O_DIRECT. macOS: F_NOCACHE (written, never run). Elsewhere, and where the file system refuses: unknown.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import time
from pathlib import Path

from kvdesk.sizes import MIB

READ_BYTES = 64 * MIB
CHUNK_BYTES = 4 * MIB

_known: dict[int, float | None] = {}
"""st_dev -> bytes/s."""


def disk_speed(path: Path) -> float | None:
    """Bytes/s that ``path`` is read at in order, measured once for its disk; None where it cannot be told."""
    try:
        disk = os.stat(path).st_dev
    except OSError:
        return None
    if disk not in _known:
        _known[disk] = _measured(path)
    return _known[disk]


def _measured(path: Path) -> float | None:
    if not hasattr(os, "preadv"):
        return None
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECT", 0))
        try:
            if sys.platform == "darwin":
                import fcntl

                fcntl.fcntl(descriptor, fcntl.F_NOCACHE, 1)
            elif not hasattr(os, "O_DIRECT"):
                return None
            return _timed(descriptor)
        finally:
            os.close(descriptor)
    return None


def _timed(descriptor: int) -> float | None:
    """Whole chunks only, into memory that is aligned as O_DIRECT wants it; None for a file too short to say."""
    done = 0
    with mmap.mmap(-1, CHUNK_BYTES) as buffer:
        started = time.perf_counter()
        while done < READ_BYTES and os.preadv(descriptor, [buffer], done) == CHUNK_BYTES:
            done += CHUNK_BYTES
        elapsed = time.perf_counter() - started
    return done / elapsed if done and elapsed > 0 else None
