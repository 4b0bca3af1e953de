"""Entries of engine processes that die as told: for what the app's side makes of a death. No llama.cpp in them."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ContextFacts, KvState, ModelFacts


def _load(connection: Connection) -> m.Load:
    connection.send(m.Started(os.getpid(), (), "", has_rpc=False))
    load = connection.recv()
    assert isinstance(load, m.Load)
    connection.send(m.LoadProgress(0.5))
    return load


def _work(connection: Connection, load: m.Load) -> None:
    model = ModelFacts(load.path, "", "llama", "", 0, 0, 1, 0, 0, has_chat_template=False)
    facts = ContextFacts(load.settings.context, 256, 256, False, (), (), KvState(0, 256, 0, 0), "new", 0, 0.0)
    connection.send(m.Loaded(model, facts, 1.0))
    while not isinstance(command := connection.recv(), m.Shutdown):
        if isinstance(command, m.Ping):
            connection.send(m.Pong())


def faults_with_repacking(connection: Connection, log_path: str, environment: dict[str, str]) -> None:
    """SIGSEGV in the warm-up, unless the load is without repacked weights."""
    load = _load(connection)
    connection.send(m.Warming())
    if load.settings.model.use_extra_bufts:
        os.kill(os.getpid(), signal.SIGSEGV)
    _work(connection, load)


def faults_always(connection: Connection, log_path: str, environment: dict[str, str]) -> None:
    """SIGSEGV in every warm-up."""
    _load(connection)
    connection.send(m.Warming())
    os.kill(os.getpid(), signal.SIGSEGV)


def runs_out_of_memory(connection: Connection, log_path: str, environment: dict[str, str]) -> None:
    """llama.cpp's abort where an allocation of the warm-up fails."""
    _load(connection)
    connection.send(m.Warming())
    Path(log_path).write_text("ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 123456\n")
    os.kill(os.getpid(), signal.SIGABRT)


def killed_while_loading(connection: Connection, log_path: str, environment: dict[str, str]) -> None:
    """As `kill -9` does."""
    _load(connection)
    os.kill(os.getpid(), signal.SIGKILL)
