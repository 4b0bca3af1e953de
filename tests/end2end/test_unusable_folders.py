"""Folders that cannot be made or written: the chat goes on, a sentence names the folder, nobody sees a traceback."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from kvdesk import paths
from tests.end2end.conftest import StartApp
from tests.tiny_models import write_tiny


def run(home: Path, scratch: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    scratch.mkdir(exist_ok=True)
    environment = {**os.environ, "KVDESK_HOME": str(home), "TMPDIR": str(scratch), "TMP": str(scratch)}
    command = [sys.executable, "-m", "kvdesk", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("chat", "MODEL", "-p", "hello", "--max-tokens", "2", "--n-ctx", "512", "--threads", "1"), 0),
        (("plan", "MODEL", "--n-ctx", "512"), 0),
        (("models", "list"), 0),
        (("template", "MODEL"), 0),
        (("log", "list"), 0),
        (("doctor",), 1),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_command_does_its_work_and_names_the_folder(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    model = write_tiny("llama", tmp_path)
    home = tmp_path / "home"
    home.write_text("a file where a folder is wanted", "utf-8")  # root may write wherever rights are missing
    ended = run(home, tmp_path / "scratch", *(str(model) if one == "MODEL" else one for one in arguments))
    assert ended.returncode == code, ended.stderr
    assert str(home / "data") in ended.stderr
    assert ended.stderr.count("cannot be written (a file is in the way)") == 1
    assert "KVDESK_HOME" in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_what_stands_in_is_closed_to_others_and_the_same_next_time(tmp_path: Path) -> None:
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.write_text("", "utf-8")
    for _ in range(2):
        run(home, scratch, "models", "list")
    (folder,) = scratch.glob("kvdesk-*")
    assert folder.name == f"kvdesk-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "data").rename(scratch / "aside")
    (scratch / "aside").rename(folder / "data")
    folder.rename(scratch / "mine")
    folder.symlink_to(scratch / "mine")  # as another user might have laid it there
    run(home, scratch, "models", "list")
    assert len(list(scratch.glob("kvdesk-*"))) > 1


def test_the_window_chats_on_and_says_it(
    start_app: StartApp, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "_stand_ins", {})
    monkeypatch.setattr(paths, "_reasons", {})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    home.mkdir(exist_ok=True)
    (home / "data").write_text("", "utf-8")
    person = start_app(write_tiny("llama", tmp_path))
    assert str(home / "data") in person.wait_for_notice("cannot be written", "KVDESK_HOME")
    assert person.ask("hello")
