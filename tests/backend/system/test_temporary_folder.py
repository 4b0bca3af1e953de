"""Temporary folders: gone with their process, and where it was killed, with the next one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kvdesk.backend.system.temporary_folder import LEFT_AFTER_S, clear_left_behind, temporary_folder


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def aged(path: Path, seconds: float) -> Path:
    """A folder with a file in it that was last changed so long ago."""
    path.mkdir()
    (path / "header.gguf").write_bytes(b"GGUF")
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_what_a_killed_process_left_is_cleared_and_nothing_else(tmp_path: Path, gone: int) -> None:
    old = LEFT_AFTER_S + 60
    left = aged(tmp_path / f"kvdesk-plan-{gone}-ab_c12", old)
    others = [
        aged(tmp_path / f"kvdesk-plan-{gone}-young", LEFT_AFTER_S - 60),
        aged(tmp_path / f"kvdesk-plan-{os.getpid()}-alive", old),
        aged(tmp_path / "kvdesk-plan-unnumbered", old),
        aged(tmp_path / "anything", old),
    ]
    link = tmp_path / f"kvdesk-plan-{gone}-link"
    link.symlink_to(others[-1], target_is_directory=True)
    clear_left_behind(tmp_path)
    assert not left.exists()
    assert all((path / "header.gguf").exists() for path in others)
    assert link.is_symlink()
    clear_left_behind(tmp_path / "missing")


def test_a_folder_is_named_for_its_process_and_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_folder("plan") as name:
        assert Path(name).parent == tmp_path
        assert Path(name).name.startswith(f"kvdesk-plan-{os.getpid()}-")
    assert not list(tmp_path.iterdir())


def test_a_process_that_is_killed_leaves_one_that_the_next_clears(tmp_path: Path) -> None:
    script = (
        "import os, signal\nfrom kvdesk.backend.system.temporary_folder import temporary_folder\n"
        "folder = temporary_folder('header')\nos.kill(os.getpid(), signal.SIGTERM)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    (left,) = tmp_path.iterdir()
    os.utime(left, (time.time() - LEFT_AFTER_S - 60,) * 2)
    fine = script.replace("os.kill(os.getpid(), signal.SIGTERM)", "folder.cleanup()")
    subprocess.run([sys.executable, "-c", fine], env=environment, check=True)
    assert not list(tmp_path.iterdir())
