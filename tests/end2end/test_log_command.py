"""``kvdesk log`` as a person runs it, on sessions that the real recorder wrote."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvdesk import cli, paths
from tests.fakes.made_up_session import recorded, recording, sample

GIB = 1024**3


@pytest.fixture
def sessions(home: Path) -> Path:
    """This test's sessions folder: one of a window, then one of a chat."""
    folder = paths.sessions_dir()
    recorded(folder, 40)
    recorded(folder, 20, "chat")
    return folder


def kvdesk(*arguments: str) -> int:
    return cli.main(["log", *arguments])


def test_list_shows_the_newest_first(sessions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kvdesk("list") == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["session", "lasted", "peak", "ended", "model"]
    assert [row.split()[0].split("-")[3] for row in rows] == ["chat", "window"]
    assert all(row.split()[-2:] == ["closed", "gemma"] for row in rows)


def test_list_json_has_bytes_and_milliseconds(sessions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kvdesk("list", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["folder"] == str(sessions)
    newest = told["sessions"][0]
    assert (newest["app"], newest["n_samples"], newest["damaged"]) == ("chat", 20, False)
    assert newest["peak_bytes"] == GIB + 19 * 1024
    assert newest["size_bytes"] == Path(newest["path"]).stat().st_size
    assert newest["started_ms"] <= newest["ended_ms"]


def test_before_the_first_session_every_action_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kvdesk("list") == 0
    assert "No session has been recorded" in capsys.readouterr().out
    assert kvdesk("list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["sessions"] == []
    for arguments in (["show"], ["export", "--format", "csv"]):
        assert kvdesk(*arguments) == 2
        told = capsys.readouterr()
        assert (told.out, told.err.count("\n")) == ("", 1)
        assert "No session has been recorded" in told.err


def test_an_unknown_session_is_named(sessions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kvdesk("show", "--session", "yesterday") == 2
    assert "No session is called 'yesterday'; `kvdesk log list` shows them all." in capsys.readouterr().err


def test_show_tells_domains_and_events(sessions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kvdesk("show") == 0
    text = capsys.readouterr().out
    assert "(chat)" in text
    assert "model    gemma" in text
    assert "ended: closed" in text
    ram = next(line for line in text.splitlines() if line.startswith("RAM "))
    assert "16.0 GiB" in ram
    assert "2.0 GiB" in ram
    assert any(line.split()[2:] == ["grow", "Grew", "to", "4,096"] for line in text.splitlines())


def test_text_from_outside_cannot_steer_the_terminal(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with recording(paths.sessions_dir()) as recorder:
        recorder.event("load", "Loading \x1b[31mred\nmodel", {"model": "\x1b]0;title\x07red"})
        recorder.sample(sample(0))
    for action in ("show", "list"):
        assert kvdesk(action) == 0
        text = capsys.readouterr().out
        assert "red" in text
        assert not any(ord(c) < 32 and c != "\n" for c in text)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "md"])
def test_standard_output_gets_what_a_file_gets(
    sessions: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], kind: str
) -> None:
    file = tmp_path / f"log.{kind}"
    assert kvdesk("export", "-o", str(file)) == 0
    assert capfdbinary.readouterr().out == b""
    assert kvdesk("export", "--format", kind) == 0
    assert capfdbinary.readouterr().out == file.read_bytes()
    assert file.stat().st_size > 500


def test_any_session_can_be_exported(sessions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    window = next(path for path in sessions.iterdir() if "-window-" in path.name)
    file = tmp_path / "out.csv"
    assert kvdesk("export", "--session", window.stem, "--format", "csv", "-o", str(file)) == 0
    rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8"))))
    assert sum(row["event"] == "" for row in rows) == 40


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_pictures_are_drawn_without_a_screen(sessions: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"session.{kind}"
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    done = subprocess.run(
        [sys.executable, "-m", "kvdesk", "log", "export", "-o", str(file)],
        env={name: value for name, value in os.environ.items() if name not in hidden},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert file.read_bytes().startswith(b"\x89PNG" if kind == "png" else b"<?xml")
    assert file.stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Say which --format"),
        (["-o", "log.xlsx"], "Say which --format"),
        (["--format", "png"], "add -o FILE"),
        (["--format", "svg", "-o", "log.png"], "ends in .svg"),
    ],
)
def test_an_export_that_cannot_be_meant_is_refused(
    sessions: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert kvdesk("export", *arguments) == 2
    assert words in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_a_sentence(
    sessions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kvdesk("export", "-o", str(tmp_path / "nowhere" / "log.csv")) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_damaged_session_is_shown_as_far_as_it_goes(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = recorded(paths.sessions_dir(), 1000)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) * 2 // 3])
    assert kvdesk("export", "--format", "jsonl") == 0
    told = capfd.readouterr()
    assert "is damaged" in told.err
    lines = [json.loads(line) for line in told.out.splitlines()]
    assert lines[0]["damaged"] is True
    assert 0 < sum(line["type"] == "sample" for line in lines) < 1000


def test_a_session_damaged_from_its_beginning_is_a_sentence(sessions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    max(sessions.iterdir()).write_bytes(b"no database")
    assert kvdesk("export", "--format", "csv") == 1
    assert "cannot be read" in capsys.readouterr().err
    assert kvdesk("list") == 0
    assert "(damaged)" in capsys.readouterr().out


def test_lists_and_tables_need_no_qt(sessions: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from kvdesk import cli\n"
        "for a in (['list'], ['show'], ['export', '-o', sys.argv[1]]): assert cli.main(['log', *a]) == 0\n"
        "print([m for m in sys.modules if m.startswith(('PySide6', 'pyqtgraph', 'llama_cpp'))], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.csv")], capture_output=True, timeout=60, check=True, text=True
    )
    assert done.stderr.strip() == "[]"
