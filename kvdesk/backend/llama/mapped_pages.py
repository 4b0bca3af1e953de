"""Which pages of a mapped model file are needed, and giving back those that are not. Engine and helper processes only.

llama.cpp maps the whole file and keeps it mapped. A weight that it repacks for the CPU, or copies to a device, is never
read there again, but its pages stay resident beside the copy: an 8B model in Q4_0 takes 9 GiB instead of 5. They are clean
pages of a file, so nothing is lost.
"""

from __future__ import annotations

import ctypes
import itertools
import logging
import mmap
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence

from kvdesk.backend.gguf.header import Tensor
from kvdesk.backend.llama.shim import Weight

log = logging.getLogger(__name__)

Range = tuple[int, int]
"""First byte and the one after the last."""
_DONTNEED = 4
"""MADV_DONTNEED, on Linux and macOS."""


def pages(ranges: Iterable[Range]) -> list[Range]:
    """The pages that ``ranges`` lie in, in order and merged; bounds are multiples of the page size."""
    merged: list[Range] = []
    for begin, end in sorted(
        (b // mmap.PAGESIZE * mmap.PAGESIZE, -(-e // mmap.PAGESIZE) * mmap.PAGESIZE) for b, e in ranges
    ):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        elif end > begin:
            merged.append((begin, end))
    return merged


def page_bytes(ranges: Iterable[Range]) -> int:
    """How much memory the pages that ``ranges`` lie in take."""
    return sum(end - begin for begin, end in pages(ranges))


def give_back(weights: Sequence[Weight], is_mapped: set[int], tensors: Sequence[Tensor]) -> int:
    """Give the system back the pages between the first and the last mapped weight of each file that none of them lies in;
    returns how many bytes of address space those are. llama.cpp has unmapped what is before and behind.

    ``is_mapped`` are the buffer types whose buffers are the file's pages, ``tensors`` the file's tensor table. Only where a
    mapping has one begin for all its weights is anything touched.
    """
    table = {tensor.name: tensor for tensor in tensors}
    mappings: dict[tuple[int, int], list[Range]] = defaultdict(list)
    for weight in weights:
        tensor = table.get(weight.name)
        if tensor and weight.address and weight.buffer_type in is_mapped:
            mapping = tensor.part, weight.address - tensor.offset
            mappings[mapping].append((weight.address, weight.address + weight.size_bytes))
    given = 0
    for (_, base), ranges in mappings.items():
        if base % mmap.PAGESIZE:
            continue  # no mapping of this file
        used = pages(ranges)
        for (_, begin), (end, _) in itertools.pairwise(used):
            given += end - begin if _release(begin, end - begin) else 0
    return given


def _release(address: int, size_bytes: int) -> bool:
    """Tell the system that these pages are not needed. Never an error: it is advice."""
    if sys.platform == "win32":
        # Written for Windows, never run: unlocking pages that are not locked takes them out of the working set.
        ctypes.windll.kernel32.VirtualUnlock(ctypes.c_void_p(address), ctypes.c_size_t(size_bytes))
        return True
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size_bytes), _DONTNEED) == 0:
        return True
    log.info("the system keeps pages of the model file: %s", os.strerror(ctypes.get_errno()))
    return False
