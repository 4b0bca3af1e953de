"""Asks the C library for huge pages in a process of ours that makes large buffers. Linux with glibc 2.35 or newer; elsewhere nothing."""

from __future__ import annotations

import os
import sys

_TUNABLE = "glibc.malloc.hugetlb"


def environment() -> dict[str, str]:
    """What to start such a process with: blocks of 2 MiB and more are advised for transparent huge pages, which the kernel
    clears five times as fast as small ones. A choice of the person's own stays."""
    chosen = os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or _TUNABLE in chosen:
        return {}
    return {"GLIBC_TUNABLES": f"{chosen}:{_TUNABLE}=1".lstrip(":")}
