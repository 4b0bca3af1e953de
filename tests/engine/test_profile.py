"""The context profile on real engines with tiny models: what is measured, what is predicted, and where it stops."""

from __future__ import annotations

import csv
import io
import os
import queue
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kvdesk.backend.engine.engine import Engine
from kvdesk.backend.engine.engine_event import EngineEvent, EngineState
from kvdesk.backend.gguf.model_file import read_model_file
from kvdesk.backend.planning.calibration import Calibration
from kvdesk.backend.planning.context_profile import (
    CSV_COLUMNS,
    ProfileEvent,
    ProfilePoint,
    ProfileProgress,
    Profiler,
    ProfileRequest,
    ProfileStopped,
    profile_lengths,
    write_csv,
)
from kvdesk.backend.planning.pricer import Pricer
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import Buffer, Device
from kvdesk.backend.settings import ContextSettings, EngineSettings
from kvdesk.backend.system.machine import Machine
from kvdesk.backend.system.samples import MachineReading
from kvdesk.errors import EngineDied
from tests.engine.harness import SAFE, Desk
from tests.tiny_models import write_tiny

MIB = 2**20
SETTINGS = EngineSettings(SAFE, ContextSettings(n_threads=1))
F16 = (("f16", "f16"),)


class Run:
    """One profiler with an engine of its own."""

    def __init__(self, path: Path, folder: Path, machine: Machine | None = None) -> None:
        self.path = path
        self.events: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()
        self.engine = Engine(self.events.put, folder)
        self.pricer = Pricer(read_model_file(path), Calibration(folder / "calibration.json"))
        self.profiler = Profiler(self.engine, self.events, self.pricer, machine or Machine(), folder / "fallback.json")

    def start(
        self, types: Sequence[tuple[str, str]] = F16, max_n_ctx: int = 2048, point_s: float = 60.0
    ) -> Iterator[ProfileEvent]:
        return self.profiler.run(ProfileRequest(self.path, SETTINGS, tuple(types), max_n_ctx, point_s))

    def close(self) -> None:
        self.engine.shutdown()
        self.pricer.let_go()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(write_tiny("llama", tmp_path), tmp_path)
    yield made
    made.close()


def points_of(events: Sequence[ProfileEvent]) -> list[ProfilePoint]:
    return [event for event in events if isinstance(event, ProfilePoint)]


def test_memory_and_speed_at_every_length_and_type(run: Run) -> None:
    events = list(run.start([("f16", "f16"), ("q4_0", "q4_0")]))
    points = points_of(events)
    assert [(p.type_k, p.n_ctx) for p in points] == [
        *(("f16", n) for n in (512, 1024, 2048)),
        *(("q4_0", n) for n in (512, 1024, 2048)),
    ]
    cell = 2 * 2 * 2 * 64 * 2  # layers, K and V, KV heads, head size, bytes of f16
    assert [p.kv_bytes for p in points[:3]] == [512 * cell, 1024 * cell, 2048 * cell]
    assert [p.kv_bytes for p in points[3:]] == [p.kv_bytes * 9 // 32 for p in points[:3]]
    for point in points:
        assert point.kv_bytes == point.predicted_kv_bytes
        assert point.depth == point.n_ctx
        assert point.prompt_tokens_per_second
        assert point.tokens_per_second
        assert point.measured_total_bytes
        assert point.kv_share == point.kv_bytes / point.measured_total_bytes
        off = abs(point.measured_total_bytes - point.predicted_total_bytes)
        assert off <= max(40 * MIB, point.predicted_total_bytes // 100)
    progress = [event for event in events if isinstance(event, ProfileProgress)]
    assert [p.done for p in progress] == sorted(p.done for p in progress)
    assert all(p.total == 6 and 0 <= p.fraction <= 1 for p in progress)
    assert any(0 < p.fraction < 1 for p in progress)


@pytest.mark.parametrize("family", ["gemma3", "mamba", "lfm2"])
def test_windows_and_recurrent_state_are_measured_as_they_are(tmp_path: Path, family: str) -> None:
    run = Run(write_tiny(family, tmp_path), tmp_path)
    try:
        points = points_of(list(run.start(max_n_ctx=1024)))
    finally:
        run.close()
    assert [p.depth for p in points] == [512, 1024]
    assert all(p.kv_bytes == p.predicted_kv_bytes and p.tokens_per_second for p in points)
    if family == "mamba":
        assert points[0].kv_bytes == points[1].kv_bytes


def test_where_filling_takes_too_long_memory_is_measured_alone(run: Run) -> None:
    points = points_of(list(run.start(point_s=1e-6)))
    assert [p.n_ctx for p in points] == [512, 1024, 2048]
    assert all(p.prompt_tokens_per_second is None and p.tokens_per_second is None for p in points[1:])
    assert [p.depth for p in points[1:]] == [512, 512]
    assert all(p.kv_bytes == p.predicted_kv_bytes for p in points)
    for point in points:
        assert point.measured_total_bytes
        assert abs(point.measured_total_bytes - point.predicted_total_bytes) <= 40 * MIB


class SmallMachine(Machine):
    """This machine, with as little RAM left as the test says."""

    room_bytes = 0

    def read(
        self, engine_pid: int | None = None, devices: Sequence[Device] = (), buffers: Sequence[Buffer] = ()
    ) -> MachineReading:
        reading = super().read(engine_pid, devices, buffers)
        ram = reading.domains[0]
        left = max(0, self.room_bytes - (ram.engine_unevictable_bytes or 0))
        return replace(reading, domains=(replace(ram, available_bytes=left), *reading.domains[1:]))


def test_it_never_crosses_the_oom_line(tmp_path: Path) -> None:
    machine = SmallMachine()
    run = Run(write_tiny("llama", tmp_path), tmp_path, machine)
    settings = replace(SETTINGS, context=replace(SETTINGS.context, allocation="reserve"))
    totals = {
        n: run.pricer.plan(
            replace(settings, context=replace(settings.context, n_ctx=n)), (), with_max=False
        ).total_bytes
        for n in (1024, 2048)
    }
    margin_bytes = 2**30
    machine.room_bytes = margin_bytes + (totals[1024] + totals[2048]) // 2
    try:
        events = list(run.start(max_n_ctx=4096))
    finally:
        run.close()
    assert [p.n_ctx for p in points_of(events)] == [512, 1024]
    (stopped,) = [event for event in events if isinstance(event, ProfileStopped)]
    assert stopped.n_ctx == 2048
    assert stopped.reason.startswith(("Runs slowly", "Will be killed"))


def test_types_that_llama_cpp_refuses_are_left_out_with_the_reason(tmp_path: Path) -> None:
    run = Run(write_tiny("llama", tmp_path, n_embd=96, n_head=4, n_head_kv=2), tmp_path)  # heads of 24 values
    try:
        events = list(run.start([("q8_0", "q8_0"), ("f16", "f16")], 512))
    finally:
        run.close()
    (stopped,) = [event for event in events if isinstance(event, ProfileStopped)]
    assert (stopped.n_ctx, stopped.type_k) == (512, "q8_0")
    assert "does not divide the head size 24" in stopped.reason
    assert [p.type_k for p in points_of(events)] == ["f16"]


def test_cancelling_ends_a_long_reading_and_keeps_what_was_measured(run: Run) -> None:
    seen: list[ProfileEvent] = []
    for event in run.start(max_n_ctx=4096):
        seen.append(event)
        if isinstance(event, ProfileProgress) and event.n_ctx == 2048 and 0 < event.fraction < 1:
            run.profiler.cancel()
    assert run.profiler.is_cancelled
    assert [p.n_ctx for p in points_of(seen)] == [512, 1024]
    assert run.engine.state is EngineState.READY


def test_cancelling_while_the_model_loads_ends_it(run: Run) -> None:
    for _ in run.start():
        run.profiler.cancel()
    assert not run.engine.pid or run.engine.state in (EngineState.EMPTY, EngineState.READY)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.logs("The engine was killed from outside")
def test_an_engine_that_dies_is_told_after_what_it_measured(run: Run) -> None:
    seen: list[ProfileEvent] = []

    def kill_after_a_point() -> None:
        for event in run.start():
            seen.append(event)
            if isinstance(event, ProfilePoint):
                assert run.engine.pid
                os.kill(run.engine.pid, signal.SIGKILL)

    with pytest.raises(EngineDied) as died:
        kill_after_a_point()
    assert died.value.signal_name == "SIGKILL"
    assert [p.n_ctx for p in points_of(seen)] == [512]


def test_a_deeper_measurement_reads_only_what_is_not_there(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        desk.load(write_tiny("llama", tmp_path), ContextSettings(n_ctx=2048, n_threads=1, allocation="reserve"))
        desk.engine.send(m.Measure(1, 100, 50, 4, 60.0))
        first = desk.until(m.Measured)
        assert (first.n_tokens, first.kv.cells_used) == (154, 154)
        desk.engine.send(m.Measure(2, 1000, 50, 4, 60.0))
        assert desk.until(m.PromptProgress).reused == 154
        assert desk.until(m.Measured).n_tokens == 1054
        desk.engine.send(m.Measure(3, 0, 50, 0, 60.0))
        last = desk.until(m.Measured)
        assert (last.n_tokens, last.tokens_per_second) == (50, None)
        assert desk.answer("hello")[1].completion_tokens == 16


@pytest.mark.parametrize(
    ("longest", "lengths"),
    [
        (4096, (512, 1024, 2048, 4096)),
        (5000, (512, 1024, 2048, 4096, 4864)),
        (512, (512,)),
        (600, (512,)),
        (256, (256,)),
        (3, (256,)),
    ],
)
def test_lengths_double_up_to_the_longest(longest: int, lengths: tuple[int, ...]) -> None:
    assert profile_lengths(longest) == lengths


def test_the_csv_has_a_cell_for_every_figure_and_nothing_for_the_unknown() -> None:
    known = ProfilePoint(512, "f16", "q8_0", 10, 12, 100, 120, 512, 33.25, 4.5)
    unknown = ProfilePoint(1024, "f16", "q8_0", 20, 24, 200, None, 512, None, None)
    file = io.StringIO(newline="")
    write_csv([known, unknown], file)
    head, *rows = csv.reader(io.StringIO(file.getvalue()))
    assert tuple(head) == CSV_COLUMNS
    assert rows[0] == ["f16", "q8_0", "512", "512", "10", "12", "0.1", "100", "120", "33.25", "4.5"]
    assert rows[1] == ["f16", "q8_0", "1024", "512", "20", "24", "", "200", "", "", ""]
