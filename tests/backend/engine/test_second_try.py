"""engine.py: which death of a load is tried again without repacked weights, and what is told of it."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from pathlib import Path

import pytest

from kvdesk.backend.engine import engine as engine_module
from kvdesk.backend.engine.engine import Engine
from kvdesk.backend.engine.engine_event import Died, EngineEvent, FellBack
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.settings import EngineSettings
from kvdesk.backend.system import cpu_fallback
from tests.fakes import scripted_engine

pytestmark = pytest.mark.skipif(os.name != "posix", reason="dies of signals")


def _events(entry: Callable[..., None], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[EngineEvent]:
    """What is told of a load, up to Loaded or Died."""
    monkeypatch.setattr(engine_module, "worker_main", entry)
    told: queue.Queue[EngineEvent] = queue.Queue()
    engine = Engine(told.put, folder)
    try:
        engine.load(folder / "model.gguf", EngineSettings())
        seen: list[EngineEvent] = []
        while not seen or not isinstance(seen[-1], (m.Loaded, Died)):
            seen.append(told.get(timeout=60))
        return seen
    finally:
        engine.shutdown()


@pytest.mark.logs("The engine crashed")
def test_a_fault_in_the_warm_up_is_told_once_it_works_without_repacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _events(scripted_engine.faults_with_repacking, tmp_path, monkeypatch)
    fallen = [one for one in seen if isinstance(one, FellBack)]
    assert [one.settings.model.use_extra_bufts for one in fallen] == [False]
    assert fallen[0].error.signal_name == "SIGSEGV"
    assert isinstance(seen[-1], m.Loaded)


@pytest.mark.parametrize(
    "entry",
    [scripted_engine.faults_always, scripted_engine.runs_out_of_memory, scripted_engine.killed_while_loading],
)
@pytest.mark.logs("The engine (crashed|ran out of memory|was killed)")
def test_nothing_is_blamed_on_the_processor_that_may_not_be_its_fault(
    entry: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _events(entry, tmp_path, monkeypatch)
    assert not [one for one in seen if isinstance(one, FellBack)]
    assert isinstance(seen[-1], Died)
    tries = len([one for one in seen if isinstance(one, m.Started)])
    assert tries == (2 if entry is scripted_engine.faults_always else 1)


def test_what_is_remembered_can_be_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "fallback.json"
    assert not cpu_fallback.forget(path)
    cpu_fallback.remember(path)
    assert not cpu_fallback.remembered(EngineSettings().model, path).use_extra_bufts
    assert cpu_fallback.forget(path)
    assert cpu_fallback.remembered(EngineSettings().model, path).use_extra_bufts


def test_an_answer_to_a_question_of_a_dead_process_is_nobodys_failure(tmp_path: Path) -> None:
    told: queue.Queue[EngineEvent] = queue.Queue()
    engine = Engine(told.put, tmp_path)
    try:
        engine.send(m.GrowAnswer("grow"))
        engine.send(m.Unload())
        first = told.get(timeout=30)
    finally:
        engine.shutdown()
    assert isinstance(first, m.Failed)
    assert told.empty()
