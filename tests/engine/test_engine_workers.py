"""What stays of one load and what goes before the next: network workers, freed memory; how ggml's devices are read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import BufferKind
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
from tests.engine.harness import SAFE, Desk
from tests.tiny_models import write_tiny

CONTEXT = ContextSettings(n_ctx=512, n_threads=1)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as desk:
        yield desk


@pytest.fixture(scope="module")
def worker() -> Iterator[str]:
    command = [sys.executable, "-m", "kvdesk", "worker", "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().split()[2].rstrip(",")
        finally:
            process.kill()


def on(endpoint: str) -> ModelSettings:
    return ModelSettings(use_extra_bufts=False, rpc_servers=(endpoint,))


def devices_of(loaded: m.Loaded) -> set[str]:
    return {buffer.device for buffer in loaded.context.buffers}


def test_a_model_loads_again_on_the_same_worker_in_the_same_process(desk: Desk, tmp_path: Path, worker: str) -> None:
    path = write_tiny("llama", tmp_path)
    first = desk.load(path, CONTEXT, on(worker))
    pid = desk.engine.pid
    again = desk.load(path, CONTEXT, on(worker))
    assert desk.engine.pid == pid
    assert devices_of(first) == devices_of(again) == {"CPU", "RPC0"}
    assert [device.name for device in again.devices] == ["CPU", "RPC0"]
    assert desk.answer("hello")[1].completion_tokens == 16


def test_a_worker_that_is_no_longer_wanted_gets_no_layers(desk: Desk, tmp_path: Path, worker: str) -> None:
    path = write_tiny("llama", tmp_path)
    desk.load(path, CONTEXT, on(worker))
    expected = desk.answer("hello")[0]
    without = desk.load(path, CONTEXT)
    assert devices_of(without) == {"CPU"}
    assert [device.kind for device in without.devices] == ["cpu"]
    assert desk.answer("hello")[0] == expected


def test_a_worker_that_does_not_answer_leaves_the_model_before_usable(desk: Desk, tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path)
    desk.load(path, CONTEXT, SAFE)
    pid = desk.engine.pid
    desk.engine.load(path, EngineSettings(on("127.0.0.1:1"), CONTEXT))
    failed = desk.until(m.Failed)
    assert failed.sentence.startswith("No network worker answers at 127.0.0.1:1;")
    assert failed.model_kept
    assert desk.engine.pid == pid
    assert desk.answer("hello")[1].completion_tokens == 16


def test_buffers_of_a_real_load_are_weights_and_context_to_the_byte(desk: Desk, tmp_path: Path) -> None:
    path = write_tiny("lfm2", tmp_path)
    loaded = desk.load(path, CONTEXT)
    buffers = loaded.context.buffers
    assert {buffer.kind for buffer in buffers} == set(BufferKind)
    weights = sum(buffer.size_bytes for buffer in buffers if buffer.kind is BufferKind.WEIGHTS)
    assert 0 < path.stat().st_size - weights < 64 * 1024  # the header
    context = sum(b.size_bytes for b in buffers if b.kind in (BufferKind.KV, BufferKind.RECURRENT))
    assert context == loaded.context.kv.bytes_allocated


@pytest.mark.starter
def test_loading_again_takes_no_more_memory_than_the_first_time(desk: Desk, starter: Path) -> None:
    held: list[int] = []
    for _ in range(2):
        desk.load(starter, CONTEXT)
        held.append(psutil.Process(desk.engine.pid).memory_info().rss)
    assert held[1] - held[0] < 16 * 2**20  # the vocabulary alone is 40 MiB


def test_what_ggml_says_of_a_device_is_read_as_it_is_laid_out() -> None:
    script = (
        "from kvdesk.backend.llama import library\n"
        "library.start()\n"
        "props = library.device_props(library.device_pointers()[0])\n"
        "caps = [name for name, _ in library.DeviceCaps._fields_ if getattr(props.caps, name)]\n"
        "print(props.name.decode(), props.type, props.memory_total > 2**28, props.device_id, *caps)\n"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.split() == ["CPU", "0", "True", "None", "buffer_from_host_ptr", "mmap_support"]
