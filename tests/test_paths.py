"""paths.py: what people tell a model is nobody else's business on a machine with other users."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
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


OPEN_LOGS = """
import os, sys
from pathlib import Path
os.umask(0)
from kvdesk import log
log.start(Path(sys.argv[1]))
import logging
logging.getLogger("kvdesk").warning("a line")
"""


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_logs_are_their_owners_alone_also_those_of_an_earlier_version(tmp_path: Path) -> None:
    for name in ("kvdesk.log", "faults.log"):
        (tmp_path / name).touch(0o644)
    subprocess.run([sys.executable, "-c", OPEN_LOGS, str(tmp_path)], check=True, capture_output=True)
    assert "a line" in (tmp_path / "kvdesk.log").read_text("utf-8")
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {
        "kvdesk.log": 0o600,
        "faults.log": 0o600,
    }
