"""Temporary folders named for their process, so that the next one clears what a killed one left behind. Any thread."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

from kvdesk.backend.system.process_identity import process_identity

_NAME = re.compile(r"kvdesk-[a-z]+-(\d+)-\w+")
LEFT_AFTER_S = 24 * 3600
"""A folder this old whose process is gone was left behind. A process of another container that shares the folder seems gone
all its life, hence the wait."""


def temporary_folder(purpose: str) -> tempfile.TemporaryDirectory[str]:
    """A folder of this process for ``purpose`` (a word of small letters), gone when it is cleaned up or the process ends.

    Raises OSError where there is no room or right to make one.
    """
    _clear_once()
    prefix = f"kvdesk-{purpose}-{os.getpid()}-"
    return tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)


def clear_left_behind(parent: Path) -> None:
    """Remove what killed processes of this user left in ``parent``; whatever cannot be read or removed stays."""
    with contextlib.suppress(OSError):
        for path in list(parent.iterdir()):
            if _is_left_behind(path):
                shutil.rmtree(path, ignore_errors=True)


@functools.cache
def _clear_once() -> None:
    clear_left_behind(Path(tempfile.gettempdir()))


def _is_left_behind(path: Path) -> bool:
    name = _NAME.fullmatch(path.name)
    if not name or path.is_symlink() or not path.is_dir():
        return False
    about = path.stat()
    is_ours = not hasattr(os, "getuid") or about.st_uid == os.getuid()
    return is_ours and time.time() - about.st_mtime > LEFT_AFTER_S and process_identity(int(name[1])) is None
