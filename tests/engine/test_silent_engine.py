"""A real engine process that stops reading or answering: nobody waits for it, it is noticed, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kvdesk.backend.engine import engine as engine_module
from kvdesk.backend.engine import pulse
from kvdesk.backend.engine.engine_event import Died, EngineState
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ChatTurn
from kvdesk.backend.settings import EngineSettings
from tests.engine.harness import SAFE, Desk
from tests.tiny_models import write_tiny

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")
MUCH = (ChatTurn("user", "x" * 200_000),)


@pytest.fixture
def desk(tmp_path: Path, home: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as desk:
        desk.load(write_tiny("llama", tmp_path))
        yield desk


def stopped(desk: Desk) -> psutil.Process:
    """The engine process, which does nothing any more and reads nothing."""
    assert desk.engine.pid
    process = psutil.Process(desk.engine.pid)
    os.kill(process.pid, signal.SIGSTOP)
    return process


@pytest.mark.logs("did not answer any more and was ended")
def test_an_engine_that_stops_while_idle_is_noticed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "EVERY_S", 0.2)
    monkeypatch.setattr(engine_module, "PATIENCE_S", 1.0)
    process = stopped(desk)
    died = desk.until(Died)
    assert "did not answer any more" in str(died.error)
    assert died.during is EngineState.READY
    assert not process.is_running()


@pytest.mark.logs("did not answer any more and was ended")
def test_commands_to_an_engine_that_does_not_read_make_nobody_wait(desk: Desk) -> None:
    process = stopped(desk)
    for i in range(20):
        desk.engine.send(m.CountTokens(-i, MUCH))
    desk.engine.send(m.Unload())  # wants an end: its patience is short
    desk.until(Died)
    assert not process.is_running()
    assert desk.load(Path(desk.of(m.Loaded)[0].model.path))


@pytest.mark.logs("is terminated", "is killed")
def test_a_stopped_engine_is_gone_after_shutdown(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "EXIT_WAIT_S", 0.2)
    monkeypatch.setattr(engine_module, "TERMINATE_WAIT_S", 0.2)
    process = stopped(desk)
    for i in range(20):
        desk.engine.send(m.CountTokens(-i, MUCH))
    desk.engine.shutdown()
    assert not process.is_running()


def test_of_many_counts_the_newest_is_answered(desk: Desk) -> None:
    turns = (ChatTurn("user", "hello"),)
    for i in range(1, 200):
        desk.engine.send(m.CountTokens(-i, turns))
    while desk.until(m.TokensCounted).request_id != -199:
        pass


def test_a_count_that_fails_leaves_model_and_context_alone(desk: Desk) -> None:
    desk.engine.send(m.CountTokens(-1, (ChatTurn("user", None),)))  # type: ignore[arg-type]  not even text
    assert desk.until(m.Failed).request_id == -1
    text, _ = desk.answer("hello")
    assert text


@pytest.mark.logs("did not answer any more and was ended")
def test_a_silent_load_can_be_replaced(desk: Desk, tmp_path: Path) -> None:
    stopped(desk)
    desk.engine.stop()
    desk.engine.load(write_tiny("gemma3", tmp_path), EngineSettings(SAFE))
    desk.engine.send(m.Unload())
    desk.until(Died)
    assert desk.load(write_tiny("gemma3", tmp_path)).model.architecture == "gemma3"
