"""What tells one state of a file from another, so that nobody goes by the header of a file that has changed. Any thread."""

from __future__ import annotations

import os
from pathlib import Path

FileStamp = tuple[int, int, int]
"""Size in bytes, time of the last change in ns, inode: another once the file was written to or replaced, also by one of
the same size and time."""


def stamp_of(facts: os.stat_result) -> FileStamp:
    """The stamp out of what the system says of a file."""
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


def read_stamp(path: Path) -> FileStamp | None:
    """The stamp of the file ``path`` as it is now; None where there is none."""
    try:
        return stamp_of(os.stat(path))
    except (OSError, ValueError):
        return None
