"""The monitor: cadence, setters, faults; with the real machine where the reading matters."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from kvdesk.backend.protocol.facts import Buffer, BufferKind, Device, KvState
from kvdesk.backend.settings import AUTOMATIC_MARGIN
from kvdesk.backend.system.machine import Machine
from kvdesk.backend.system.monitor import Monitor, next_tick
from kvdesk.backend.system.samples import DomainReading, MachineReading, Sample

RAM = MachineReading((DomainReading("RAM", "ram", 100, 50, 10, 10, 0),))


def read_ram(pid: int | None, devices: Sequence[Device], buffers: Sequence[Buffer]) -> MachineReading:
    return RAM


class Listener:
    """Keeps samples and lets a test wait for them."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._came = threading.Condition()

    def __call__(self, sample: Sample) -> None:
        with self._came:
            self.samples.append(sample)
            self._came.notify_all()

    def wait_for(self, done: Callable[[list[Sample]], object], timeout_s: float = 20.0) -> None:
        with self._came:
            assert self._came.wait_for(lambda: done(self.samples), timeout_s), f"{len(self.samples)} samples came"


@contextmanager
def running(monitor: Monitor) -> Iterator[Listener]:
    listener = Listener()
    monitor.add_callback(listener)
    monitor.start()
    try:
        yield listener
    finally:
        monitor.stop()


def test_samples_of_this_process_on_this_machine() -> None:
    monitor = Monitor(Machine().read, 0.02)
    monitor.set_engine(os.getpid())
    with running(monitor) as listener:
        listener.wait_for(lambda samples: len(samples) >= 3)
    ram = listener.samples[-1].domain("RAM")
    assert ram is not None
    assert ram.engine_bytes > 1024 * 1024
    assert listener.samples[-1].engine_pid == os.getpid()
    assert monitor.latest == listener.samples[-1]


def test_what_is_set_is_in_the_next_samples() -> None:
    monitor = Monitor(read_ram, 0.01)
    kv = KvState(5, 256, 50, 2560)
    with running(monitor) as listener:
        listener.wait_for(lambda samples: samples)
        first = listener.samples[0]
        assert (first.kv, first.tokens_per_second, first.state, first.predicted_bytes) == (None, None, "", None)
        assert first.margin_bytes == AUTOMATIC_MARGIN
        monitor.set_engine(7)
        monitor.set_kv(kv)
        monitor.set_speed(12.5)
        monitor.set_state("generating")
        monitor.set_predicted([("RAM", 99)])
        monitor.set_margin(5)
        listener.wait_for(lambda samples: samples[-1].margin_bytes == 5)
    last = listener.samples[-1]
    assert (last.engine_pid, last.kv, last.tokens_per_second, last.state) == (7, kv, 12.5, "generating")
    assert last.predicted("RAM") == 99
    assert last.predicted("CUDA0") is None
    assert last.machine == RAM


def test_the_reader_gets_engine_devices_and_buffers_and_a_lost_engine_takes_its_figures_along() -> None:
    asked: list[tuple[int | None, int, int]] = []

    def read(pid: int | None, devices: Sequence[Device], buffers: Sequence[Buffer]) -> MachineReading:
        asked.append((pid, len(devices), len(buffers)))
        return RAM

    monitor = Monitor(read, 0.01)
    monitor.set_devices([Device("Vulkan0", "x", "gpu", 1, 2)])
    monitor.set_engine(7)
    monitor.set_buffers([Buffer("Vulkan0", "Vulkan0", BufferKind.KV, 3)])
    monitor.set_kv(KvState(1, 2, 3, 4))
    monitor.set_speed(3.0)
    monitor.sample()
    monitor.set_engine(None)
    after = monitor.sample()
    assert asked == [(7, 1, 1), (None, 1, 0)]
    assert (after.kv, after.tokens_per_second) == (None, None)


@pytest.mark.parametrize(
    ("tick", "elapsed_s", "following"),
    [
        (0, 0.01, 1),  # at once
        (7, 3.501, 8),
        (7, 3.999, 8),  # a reading that took almost a whole interval: the next one is not pushed back
        (7, 4.001, 9),  # one that took longer: its successor is skipped, not made up for
        (7, 60.2, 121),  # the machine slept
        (7, 3.499, 8),  # woken a little early: not twice for one tick
    ],
)
def test_samples_lie_on_one_grid_and_missed_ones_are_skipped(tick: int, elapsed_s: float, following: int) -> None:
    assert next_tick(tick, elapsed_s, 0.5) == following


@pytest.mark.logs("said once")
def test_a_reading_that_fails_is_said_once_and_the_samples_go_on(caplog: pytest.LogCaptureFixture) -> None:
    def broken(pid: int | None, devices: Sequence[Device], buffers: Sequence[Buffer]) -> MachineReading:
        raise OSError("the disk of /proc is full")

    with caplog.at_level(logging.WARNING), running(Monitor(broken, 0.01)) as listener:
        listener.wait_for(lambda samples: len(samples) >= 3)
    assert listener.samples[-1].domains == ()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.logs("said once")
def test_a_listener_that_fails_does_not_take_the_others_along(caplog: pytest.LogCaptureFixture) -> None:
    def bad(sample: Sample) -> None:
        raise ValueError("no")

    monitor = Monitor(read_ram, 0.01)
    monitor.add_callback(bad)
    with caplog.at_level(logging.WARNING), running(monitor) as listener:
        listener.wait_for(lambda samples: len(samples) >= 3)
    assert len(caplog.records) == 1


def test_stop_is_final_and_start_begins_again() -> None:
    monitor = Monitor(read_ram, 0.01)
    with running(monitor) as listener:
        listener.wait_for(lambda samples: samples)
    stopped_at = len(listener.samples)
    assert not any(thread.name == "monitor" for thread in threading.enumerate())
    monitor.stop()
    monitor.start()
    monitor.start()
    listener.wait_for(lambda samples: len(samples) > stopped_at)
    assert [thread.name for thread in threading.enumerate()].count("monitor") == 1
    monitor.remove_callback(listener)
    monitor.remove_callback(listener)
    monitor.stop()


def test_a_listener_may_stop_the_monitor() -> None:
    monitor = Monitor(read_ram, 0.01)
    stopped = threading.Event()

    def last(sample: Sample) -> None:
        monitor.stop()
        stopped.set()

    monitor.add_callback(last)
    monitor.start()
    assert stopped.wait(10)
