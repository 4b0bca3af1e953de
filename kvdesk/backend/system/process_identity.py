"""Telling a process from a later one that was given the same number. Any thread."""

from __future__ import annotations

import sys

from kvdesk.backend.system.procfs import read_text


def process_identity(pid: int) -> str | None:
    """What tells a process from any other that ever had its number; None when there is none now."""
    if sys.platform == "linux":
        # Ticks since boot, which no change of the clock moves; the name before them may hold blanks and brackets.
        words = (read_text(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
        if len(words) < 20 or words[0] in ("Z", "X"):
            return None
        return f"{(read_text('/proc/sys/kernel/random/boot_id') or '').strip()} {words[19]}"
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return None
