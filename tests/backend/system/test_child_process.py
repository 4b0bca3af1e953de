"""system/child_process.py with real processes: how they end, and what is said when none can be started."""

from __future__ import annotations

import os
import queue
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from kvdesk.backend.engine.engine import Engine
from kvdesk.backend.engine.engine_event import EngineEvent
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.settings import EngineSettings
from kvdesk.backend.system.child_process import ChildProcess
from kvdesk.errors import EngineError


def leaves_with_the_pipe(connection: Connection) -> None:
    """As every entry of ours does."""
    connection.send("here")
    try:
        connection.recv()
    except EOFError:
        os._exit(7)


def hears_nothing(connection: Connection) -> None:
    """Neither the pipe's end nor a termination."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection.send("here")
    while True:
        signal.pause()


def test_a_process_leaves_with_its_pipe_and_its_exit_code_stays_known() -> None:
    child = ChildProcess(leaves_with_the_pipe, "test child")
    assert child.connection.recv() == "here"
    assert child.is_alive
    assert child.exit_code is None
    child.end(30.0)
    assert (child.exit_code, child.pid, child.is_alive) == (7, None, False)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_one_that_hears_nothing_is_killed() -> None:
    child = ChildProcess(hears_nothing, "test child")
    assert child.connection.recv() == "here"
    pid = child.pid
    assert pid
    child.end(0.0)
    child.wait(30.0)
    assert not psutil.pid_exists(pid)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """No file or pipe can be opened in here."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_a_process_that_cannot_be_started_is_a_sentence() -> None:
    with no_descriptors(), pytest.raises(EngineError, match=r"could not be started \(.+\)\. Close other programs"):
        ChildProcess(leaves_with_the_pipe, "test child")


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_the_engine_says_that_it_cannot_start_and_hears_the_next_command(tmp_path: Path) -> None:
    told: queue.Queue[EngineEvent] = queue.Queue()
    engine = Engine(told.put, tmp_path)
    try:
        for _ in range(2):
            with no_descriptors():
                engine.load(tmp_path / "model.gguf", EngineSettings())
                failed = told.get(timeout=30)
            assert isinstance(failed, m.Failed)
            assert "could not be started" in failed.sentence
    finally:
        engine.shutdown()
