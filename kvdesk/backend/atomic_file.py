"""Writes a file whole or not at all: readers, crashes and full disks never meet half of it. The one place for this.

A new file, which only its owner may read (0600), takes the old one's place once it is on the disk. Any thread or process.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import tempfile
from collections.abc import Generator
from pathlib import Path

SUFFIX = ".tmp"
"""A file being written is called ``<name>.<random>.<process id>.tmp``, beside the one that it will replace."""


def write_file(path: Path, content: str | bytes) -> None:
    """Make ``content`` (text as UTF-8, its line ends as they are, half a character as "?") what ``path`` holds. Raises OSError; the old file is
    still there then."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode("utf-8", "replace") if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path) -> Generator[Path]:
    """An empty file to write to in ``path``'s place: it becomes ``path`` when the block ends, and is removed when it raises.

    The block closes what it opens. Links are followed. What is no regular file (a pipe, /dev/stdout) and what may be
    written in a folder that may not is written straight. Raises OSError.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not os.access(target, os.W_OK):  # a rename would pass over its protection
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    descriptor = _temporary(target)
    if descriptor is None:
        yield target
        return
    handle, name = descriptor
    os.close(handle)
    try:
        yield Path(name)
        _sync(name, os.O_RDWR)
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    if os.name == "posix":  # makes the rename last through a power cut; Windows has no such call and needs none
        _sync(str(target.parent), os.O_RDONLY)


def remove_abandoned(folder: Path, name: str = "*") -> None:
    """Remove what writers that are gone have left of ``name`` (a pattern) in ``folder``. Never raises."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{name}.*{SUFFIX}"):
            with contextlib.suppress(OSError):
                if not _is_written(path):
                    path.unlink()


def _temporary(target: Path) -> tuple[int, str] | None:
    """An open new file beside ``target`` and its name; None where ``target`` itself has to be written."""
    if target.exists() and not target.is_file():
        return None
    remove_abandoned(target.parent, glob.escape(target.name))
    try:
        return tempfile.mkstemp(prefix=f"{target.name}.", suffix=f".{os.getpid()}{SUFFIX}", dir=target.parent)
    except PermissionError:
        if target.is_file():
            return None
        raise


def _is_written(path: Path) -> bool:
    """Whether the process that began ``path`` lives: one that started after the last write has only the same number."""
    import psutil  # slow, and most writes meet no such file

    number = path.name.split(".")[-2]
    if not number.isdigit():
        return True  # not one of ours
    try:
        return psutil.Process(int(number)).create_time() <= path.stat().st_mtime + 1.0  # ticks are rounded
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _sync(path: str, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
