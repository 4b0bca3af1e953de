"""Files written whole or not at all: rights, failures, links, devices, leftovers."""

from __future__ import annotations

import ast
import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kvdesk.backend.atomic_file import SUFFIX, remove_abandoned, replacing, write_file

ROOT = Path(__file__).parents[2]
POSIX = pytest.mark.skipif(os.name != "posix", reason="rights, links and signals of POSIX")


@pytest.mark.parametrize("content", ["ä\n\r\n", b"\x00\xff"])
def test_the_file_holds_what_was_written_and_nothing_lies_beside_it(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "settings.json"
    for _ in range(2):  # new, then in place of the old
        write_file(path, content)
        assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert list(tmp_path.iterdir()) == [path]


def test_half_a_character_costs_only_itself(tmp_path: Path) -> None:
    write_file(tmp_path / "draft.json", "a\ud83db")
    assert (tmp_path / "draft.json").read_bytes() == b"a?b"


@POSIX
def test_only_its_owner_may_read_it_whatever_the_old_one_and_the_umask_said(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text("old")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        write_file(path, "new")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_writer_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    write_file(path, "old")
    seen: list[str] = []

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            seen.append(path.read_text())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert seen == ["old"]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_not_on_the_disk_is_not_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "settings.json"
    write_file(path, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_file(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@POSIX
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "real" / "file.json")
    write_file(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "real" / "file.json").read_text() == "new"


@POSIX
def test_a_device_is_written_straight() -> None:
    write_file(Path(os.devnull), "gone")
    assert not Path(os.devnull).is_file()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs rights that are refused")
def test_a_protected_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text("mine")
    path.chmod(0o400)
    with pytest.raises(PermissionError):
        write_file(path, "new")
    assert path.read_text() == "mine"


@POSIX
def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom kvdesk.backend.atomic_file import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "[1] settings.json"  # a name that means something else as a pattern
    path.write_text("old")
    killed = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    write_file(path, "new")
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_still_being_written_is_left_alone_and_one_of_an_earlier_process_of_that_number_is_not(
    tmp_path: Path,
) -> None:
    young, old = (tmp_path / f"x.{word}.{os.getpid()}{SUFFIX}" for word in ("young", "old"))
    for path in (young, old):
        path.touch()
    os.utime(old, (1_000_000_000,) * 2)
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == [young]


def test_nobody_else_writes_files_in_place() -> None:
    """Logs may be appended to; SQLite writes its own; a download grows in a part of its own until it is whole."""
    allowed = {
        "kvdesk/backend/atomic_file.py",
        "kvdesk/backend/library/hub/download.py",
        "kvdesk/backend/library/hub/remote_header.py",
    }
    pattern = re.compile(r"\.write_(?:text|bytes)\(|mkstemp|NamedTemporaryFile|os\.rename\(|fsync\(|\.open\('w")
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "kvdesk").rglob("*.py")
        for line in ast.unparse(ast.parse(path.read_text("utf-8"))).splitlines()
        if pattern.search(line) and not re.search(r"\btemporary\.(?:write_|open)", line)
    }
    assert found - allowed == set()
