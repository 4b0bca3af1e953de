"""What a model, a file or a path says never commands the terminal, and a terminal that lacks a character ends nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvdesk import cli
from tests.scripted_model import write_scripted
from tests.tiny_models import write_tiny

CLIPBOARD = "\x1b]52;c;aGVsbG8=\x07"
"""OSC 52: a terminal that obeys it puts this into the clipboard."""
QUIET = ["--temperature", "0", "--threads", "1", "--max-tokens", "60"]


def chat(model: Path, *arguments: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "kvdesk", "chat", str(model), "-p", "Hi", *QUIET, *arguments]
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    return subprocess.run(command, capture_output=True, env=environment, check=False)


@pytest.mark.usefixtures("home")
def test_a_models_control_sequences_reach_the_terminal_as_signs(tmp_path: Path) -> None:
    model = write_scripted(tmp_path / "osc.gguf", [CLIPBOARD.encode(), "Paris 🙂", "</s>"])
    ended = chat(model)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.decode() == "␛]52;c;aGVsbG8=␇Paris 🙂\n"
    assert b"\x1b" not in ended.stderr
    assert json.loads(chat(model, "--json").stdout)["turns"][0]["text"] == f"{CLIPBOARD}Paris 🙂"
    ended = chat(model, encoding="ascii")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.decode("ascii") == "?]52;c;aGVsbG8=?Paris ?\n"


@pytest.mark.usefixtures("home")
def test_a_models_name_cannot_command_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = write_tiny("llama", tmp_path, file_name=f"{CLIPBOARD}.gguf", **{"/general.name": f"A{CLIPBOARD}"})
    for command in (["plan", str(model)], ["models", "info", str(model)], ["plan", f"{model}{CLIPBOARD}"]):
        cli.main(command)
        printed = "".join(capfd.readouterr())
        assert "␛]52" in printed
        assert "\x1b" not in printed
