"""What ``kvdesk chat`` leaves on record, whichever way it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvdesk import cli, paths
from kvdesk.backend.preferences import FILE_NAME, Preferences, save_values
from kvdesk.backend.session_log.reader import Session, SessionEvent, find_session, open_session
from kvdesk.backend.system.machine import read_domains
from tests.tiny_models import write_tiny

GREEDY = ["--temperature", "0", "--threads", "1"]


@pytest.fixture
def model(home: Path, tmp_path: Path) -> Path:
    return write_tiny("llama", tmp_path)


def chat(model: Path, *arguments: str) -> int:
    return cli.main(["chat", str(model), "-p", "Once upon a time", *GREEDY, *arguments])


def last_session() -> Session:
    return open_session(find_session(paths.sessions_dir()))


def events(kind: str) -> list[SessionEvent]:
    return [event for event in last_session().events if event.kind == kind]


@contextlib.contextmanager
def writing(model: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A chat in a process of its own in the middle of a reply, and its engine's process id."""
    command = [sys.executable, "-m", "kvdesk", "chat", str(model), "-p", "Once upon a time", *GREEDY, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        try:
            assert process.stdout.read(1)
            until(process, lambda: engine_on_record() is not None)
            engine = engine_on_record()
            assert engine
            yield process, engine
        finally:
            process.kill()


def until(process: subprocess.Popen[bytes], is_true: Callable[[], bool]) -> None:
    """Look ten times a second, as long as the chat lives."""
    while not is_true():
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert process.wait(0.1) is None, "the chat ended before"


def engine_on_record() -> int | None:
    return next((sample.engine_pid for sample in last_session().samples() if sample.engine_pid), None)


def test_what_does_not_fit_is_loaded_only_when_asked_for(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ceiling = read_domains()[0].capacity_bytes or 0
    save_values(Preferences(margin_bytes=ceiling), paths.config_dir() / FILE_NAME)
    reserved = ("--allocation", "reserve", "--n-ctx", "1024", "--max-tokens", "2")
    assert chat(model, *reserved) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "Does not fit by " in told.err
    assert told.err.endswith("Nothing was loaded; --anyway loads it all the same.\n")
    assert [event.kind for event in last_session().events] == ["start", "warning", "exit"]
    assert chat(model, *reserved, "--anyway") == 0
    assert events("ready")


def test_a_file_whose_weights_are_not_there_is_refused_before_an_engine_starts(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = model.with_name("cut.gguf")
    cut.write_bytes(model.read_bytes()[:-100_000])
    assert chat(cut) == 1
    assert "100 kB are missing" in capsys.readouterr().err
    assert [event.kind for event in last_session().events] == ["start", "warning", "exit"]


def test_a_chat_is_on_record_from_start_to_exit(model: Path) -> None:
    assert chat(model, "--max-tokens", "400", "--initial-ctx", "256", "--n-ctx", "2048") == 0
    session = last_session()
    kinds = [event.kind for event in session.events]
    assert kinds == ["start", "load", "ready", "grow", "predicted", "unload", "exit"]
    load, ready, grow = session.events[1:4]
    assert load.values["path"] == str(model)
    assert load.values["settings"]["context"]["initial_ctx"] == 256
    assert ready.values["model"] == "Tiny llama"
    assert (grow.values["from_cells"], grow.values["to_cells"]) == (256, 512)
    assert session.summary.how_ended == "closed"
    last = list(session.samples())[-1]
    assert last.state == "ready"
    assert last.kv
    assert last.kv.cells_used > 400
    assert last.kv.cells_allocated == 512
    ram = last.domain("RAM")
    assert ram
    assert ram.engine_bytes


def test_what_the_context_had_no_room_for_is_on_record(model: Path) -> None:
    room = ["--n-ctx", "256", "--max-tokens", "400"]
    assert chat(model, *room) == 0
    assert [event.values for event in events("overflow")] == [{"policy": "stop", "forgotten_tokens": 0}]
    assert chat(model, *room, "--overflow", "rolling") == 0
    assert all(event.values["policy"] == "rolling" for event in events("overflow"))
    assert sum(event.values["forgotten_tokens"] for event in events("overflow")) > 0


def test_a_load_that_fails_is_on_record(home: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.gguf"
    text.write_text("no model")
    assert chat(text) == 1
    assert "notes.gguf" in events("warning")[0].text
    assert last_session().summary.how_ended == "failed"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_engine_is_on_record_with_its_signal(model: Path) -> None:
    with writing(model, "--max-tokens", "0", "--n-ctx", "8192") as (process, engine):
        os.kill(engine, signal.SIGKILL)
        assert process.wait(30) == 1
    (crash,) = events("crash")
    assert crash.values == {"exit_code": -9, "signal": "SIGKILL"}
    assert "while writing a reply" in crash.text
    assert not events("unload")
    assert last_session().summary.how_ended == "failed"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_is_on_record_as_the_persons_wish(model: Path) -> None:
    with writing(model, "--max-tokens", "0", "--n-ctx", "8192") as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert events("cancel")
    assert last_session().summary.how_ended == "interrupted"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_systems_wish_to_end_is_followed_in_order(model: Path) -> None:
    with writing(model, "--max-tokens", "0", "--n-ctx", "8192") as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert last_session().summary.how_ended == "interrupted"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's record is read from /proc")
def test_the_recorded_peak_is_the_kernels(model: Path) -> None:
    with writing(model, "--max-tokens", "0", "--n-ctx", "16384", "--initial-ctx", "256") as (process, engine):
        until(process, lambda: len(events("grow")) >= 2)
        status = Path(f"/proc/{engine}/status").read_text().splitlines()
        by_kernel = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    recorded = last_session().peak_bytes
    assert recorded
    assert abs(recorded - by_kernel) <= 0.02 * by_kernel


def test_what_the_plan_predicted_is_in_the_samples(model: Path) -> None:
    """With a reply long enough for the plan, which steps back behind the engine."""
    with writing(model, "--max-tokens", "0", "--n-ctx", "32768") as (process, _):
        until(process, lambda: any(sample.predicted("RAM") for sample in last_session().samples()))
