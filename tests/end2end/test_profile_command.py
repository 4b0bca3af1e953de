"""``kvdesk profile`` as a person runs it."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kvdesk import cli, paths
from kvdesk.backend.system.cpu_fallback import remember
from tests.tiny_models import write_tiny


@pytest.fixture
def model(home: Path, tmp_path: Path) -> Path:
    remember(paths.fallback_file())
    return write_tiny("llama", tmp_path)


def profile(*arguments: str) -> int:
    return cli.main(["profile", *arguments])


def test_the_table_grows_to_the_chosen_length(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "profile.csv"
    assert profile(str(model), "--types", "f16,q8_0/f16", "--max-ctx", "1024", "-o", str(file)) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["K/V", "tokens", "KV"]
    assert [row.split()[:2] for row in rows] == [
        ["f16/f16", "512"],
        ["f16/f16", "1,024"],
        ["q8_0/f16", "512"],
        ["q8_0/f16", "1,024"],
    ]
    saved = list(csv.DictReader(file.read_text("utf-8").splitlines()))
    assert [row["n_ctx"] for row in saved] == ["512", "1024", "512", "1024"]


def test_json_has_bytes_and_tokens(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert profile(str(model), "--types", "q8_0", "--max-ctx", "512", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["model"], told["cancelled"], told["stopped"]) == (str(model), False, [])
    (point,) = told["points"]
    assert (point["type_k"], point["n_ctx"], point["depth"]) == ("q8_0", 512, 512)
    assert point["kv_bytes"] == point["predicted_kv_bytes"] > 0
    assert point["tokens_per_second"] > 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_gives_what_was_measured(model: Path) -> None:
    command = [sys.executable, "-m", "kvdesk", "profile", str(model), "--types", "f16,q8_0,q4_0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            assert process.stdout.readline().startswith("K/V")
            assert process.stdout.readline().startswith("f16/f16")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, err) == (130, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--types", "f16,q9"], "names no cache types"),
        (["--types", ""], "names no cache types"),
        (["--max-ctx", "-1"], "negative"),
        (["--ubatch", "0"], "the least is 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert profile(str(model), *arguments) == 2
    assert words in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_said_before_measuring(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profile(str(model), "-o", str(tmp_path / "nowhere" / "p.csv")) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "cannot be written" in told.err
