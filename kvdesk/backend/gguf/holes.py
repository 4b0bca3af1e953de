"""Which weights of a file were never written: the system keeps a sparse file's holes on no disk and reads them as zeros,
as in a download that reserved its place and was broken off. Blocking (a system call for each hole); any thread.

Linux and macOS (written, never run there). Elsewhere, and where the file system cannot tell, nothing counts as a hole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

MOST_HOLES = 10_000
"""Looked at in one file; what lies beyond counts as written."""


def hollow_bytes(path: Path, spans: Sequence[tuple[int, int]]) -> int:
    """How much of ``spans`` (first byte, size; in ascending order, not overlapping) lies in holes of the file ``path``."""
    if not spans or not hasattr(os, "SEEK_HOLE"):
        return 0
    first, last = spans[0][0], spans[-1][0] + spans[-1][1]
    total, index = 0, 0
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            for start, end in _holes(descriptor, first, min(last, os.fstat(descriptor).st_size)):
                while index < len(spans) and sum(spans[index]) <= start:
                    index += 1
                for span_start, size in spans[index:]:
                    if span_start >= end:
                        break
                    total += max(0, min(end, span_start + size) - max(start, span_start))
        finally:
            os.close(descriptor)
    except (OSError, OverflowError):
        return 0
    return total


def _holes(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The holes between two places of a file (lseek(2), SEEK_HOLE and SEEK_DATA)."""
    for _ in range(MOST_HOLES):
        if start >= end:
            return
        hole = os.lseek(descriptor, start, os.SEEK_HOLE)
        if hole >= end:
            return
        try:
            start = os.lseek(descriptor, hole, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole to the end
            start = end
        yield hole, min(start, end)
