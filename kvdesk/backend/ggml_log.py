"""What ggml's backends log when memory is refused: how much was asked for, and of which device. Pure.

The only place that knows these sentences; every backend of ggml has its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from kvdesk.sizes import MIB

_SENTENCES = (
    # ggml-cuda.cu: "allocating 36.00 MiB on device 0: cudaMalloc failed: out of memory"; ggml-cann.cpp alike
    r"allocating +(?P<mib>[\d.]+) MiB on device (?P<number>\d+): (?P<by>\w+) failed",
    # llama-context.cpp: "failed to allocate output buffer of size 12.00 MiB"
    r"failed to allocate output buffer of size +(?P<mib>[\d.]+) MiB",
    # ggml-alloc.c, ggml-backend.cpp: "failed to allocate CUDA0 buffer of size 123"
    r"failed to allocate (?:(?P<device>\S+) )?buffer of size (?P<bytes>\d+)",
    # ggml-vulkan: "Requested buffer size (123) exceeds device memory allocation limit", "Memory allocation of size 123 failed."
    r"Requested buffer size \((?P<bytes>\d+)\)",
    r"emory allocation of size (?P<bytes>\d+) failed",
    # ggml-metal: "failed to allocate buffer, size =    12.00 MiB"
    r"failed to allocate buffer, size = +(?P<mib>[\d.]+)",
    # ggml.c: "insufficient memory (attempted to allocate  12.00 MB)", which are MiB
    r"attempted to allocate +(?P<mib>[\d.]+) MB",
)


class FailedAllocation(NamedTuple):
    """Bytes that were asked for and not given; ``device`` is ggml's name for it ("CUDA0"), "" where it is not said."""

    asked_bytes: int
    device: str


def failed_allocation(lines: Iterable[str]) -> FailedAllocation | None:
    """The last allocation that failed in these lines of a log; None when none did, or none of them says its size."""
    last: FailedAllocation | None = None
    device = ""
    for line in lines:
        for sentence in _SENTENCES:
            if found := re.search(sentence, line):
                facts = found.groupdict()
                size = facts.get("bytes")
                asked_bytes = int(size) if size else round(float(facts["mib"]) * MIB)
                device = f"CUDA{facts['number']}" if facts.get("by") == "cudaMalloc" else facts.get("device") or device
                last = FailedAllocation(asked_bytes, device)
                break
    return last
