"""paths.py: what people tell a model is nobody else's business on a machine with other users."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from kvdesk import paths

FOLDERS = (
    paths.config_dir, paths.data_dir, paths.cache_dir, paths.log_dir, paths.sessions_dir, paths.snapshots_dir,
)  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.__name__)
def test_folders_are_closed_to_others_also_when_they_were_open(folder: Callable[[], Path]) -> None:
    before = os.umask(0)
    try:
        path = folder()
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        path.chmod(0o755)
        assert stat.S_IMODE(folder().stat().st_mode) == 0o700
    finally:
        os.umask(before)
