"""llama-cpp-python's source archive as `make setup` keeps it beside the virtual environment, with all of llama.cpp in it.

Tests read real chat templates, vocabularies and llama.cpp's own tests out of it; nothing of it is in the repository.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import BinaryIO

FOLDER = Path(sys.prefix).resolve().parent / ".wheels"
"""Beside the environment that runs the tests, also where a checkout borrows that of another (a git worktree)."""


@functools.cache
def llama_cpp_source() -> Path:
    """The folder of llama.cpp's sources (200 MB), unpacked beside the archive by whoever asks first.

    Raises FileNotFoundError when there is no archive.
    """
    archive = next(FOLDER.glob("llama_cpp_python-*.tar.gz"), None)
    if archive is None:
        raise FileNotFoundError(f"no llama_cpp_python-*.tar.gz in {FOLDER}; `make setup` keeps it there")
    unpacked = FOLDER / archive.name.removesuffix(".tar.gz")
    if not unpacked.exists():
        draft = Path(tempfile.mkdtemp(dir=FOLDER))
        with tarfile.open(archive) as source:
            source.extractall(draft, filter="data")
        try:
            os.rename(draft / unpacked.name, unpacked)
        except OSError:  # another test process was first
            assert unpacked.exists()
        shutil.rmtree(draft, ignore_errors=True)
    return unpacked / "vendor" / "llama.cpp"


def open_member(path: str) -> BinaryIO:
    """A file of llama.cpp's sources, e.g. "models/templates/Qwen-Qwen3-0.6B.jinja", to read from."""
    return (llama_cpp_source() / path).open("rb")
