"""The promise: what the dry run says before loading is what a real load allocates, to the byte.

A handful of architectures of every kind; tests/bench/plan_accuracy.py does it for all of them and the starter.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kvdesk.backend.gguf.model_file import read_model_file
from kvdesk.backend.planning.dry_run import DryRun
from kvdesk.backend.planning.estimate import estimate
from kvdesk.backend.protocol.facts import BufferKind
from kvdesk.backend.protocol.footprint import Footprint
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
from kvdesk.errors import PlanError
from tests.plan_reality import REPOSITORY, RealLoads, differences
from tests.tiny_models import write_tiny

KINDS = (
    "llama",  # grouped heads
    "gemma3",  # sliding window
    "gemma3n",  # layers that read others' cache
    "qwen3moe",  # mixture of experts
    "deepseek2",  # latent attention
    "deepseek32",  # an indexer's cache
    "deepseek4",  # compressed caches and states of their own
    "mamba",  # recurrent
    "lfm2",  # hybrid
    "minimax-01",  # hybrid whose graph is largest for one sequence
)
MAPPED = ModelSettings(use_extra_bufts=False)
COPIED = ModelSettings(use_extra_bufts=False, use_mmap=False)
ASKED = (
    EngineSettings(MAPPED, ContextSettings(n_ctx=1000)),
    EngineSettings(MAPPED, ContextSettings(n_ctx=2048, type_k="q8_0", type_v="q8_0", n_ubatch=128, swa_full=True)),
    EngineSettings(COPIED, ContextSettings(n_ctx=1024, flash_attn="off", n_seq_max=2)),
)
pytestmark = pytest.mark.shares("processes")
"""The helper process starts with the first question."""


@pytest.fixture(scope="module")
def reality() -> Iterator[RealLoads]:
    with RealLoads() as loads:
        yield loads


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("architecture", KINDS)
def test_every_buffer_is_as_planned(architecture: str, folder: Path, reality: RealLoads) -> None:
    path = write_tiny(architecture, folder)
    with DryRun(read_model_file(path)) as dry_run:
        for settings in ASKED:
            real = reality.load(path, settings)
            assert "error" not in real, (settings, real)
            assert differences(real, dry_run.ask(settings)) == [], settings


def test_repacked_weights_are_counted_beside_the_mapped_ones(folder: Path, reality: RealLoads) -> None:
    path = write_tiny("llama", folder, weight_type="q4_0", file_name="quantized.gguf")
    settings = EngineSettings(ModelSettings(use_extra_bufts=True), ContextSettings(n_ctx=512))
    with DryRun(read_model_file(path)) as dry_run:
        planned = dry_run.ask(settings)
    assert differences(reality.load(path, settings), planned) == []


@pytest.mark.starter
def test_the_starter(starter: Path, reality: RealLoads) -> None:
    with DryRun(read_model_file(starter)) as dry_run:
        for context in (ContextSettings(n_ctx=4096), ContextSettings(n_ctx=3000, type_k="q4_0", type_v="q8_0")):
            settings = EngineSettings(MAPPED, context)
            assert differences(reality.load(starter, settings), dry_run.ask(settings)) == []


@pytest.fixture(scope="module")
def worker() -> Iterator[str]:
    """A network worker on this machine: llama.cpp's own RPC server with the CPU as its device; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "tests" / "rpc_server.py"), endpoint],
        env={"PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert any("transport" in line for line in process.stdout)  # printed just before it listens
    yield endpoint
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize(("architecture", "n_gpu_layers"), [("gemma3", -1), ("gemma3", 3), ("gemma3", 0), ("lfm2", 2)])
def test_layers_split_between_the_cpu_and_a_network_worker(
    architecture: str, n_gpu_layers: int, folder: Path, worker: str
) -> None:
    path = write_tiny(architecture, folder)
    model = replace(MAPPED, n_gpu_layers=n_gpu_layers, rpc_servers=(worker,))
    settings = EngineSettings(model, ContextSettings(n_ctx=1024))
    with RealLoads() as loads:  # the worker serves one client at a time
        real = loads.load(path, settings)
    assert "error" not in real, real
    with DryRun(read_model_file(path)) as dry_run:
        planned = dry_run.ask(settings)
    assert differences(real, planned) == []
    assert bool(planned.bytes_on("RPC0", BufferKind.WEIGHTS)) is (n_gpu_layers != 0)
    assert bool(planned.bytes_on("CPU", BufferKind.KV)) is (n_gpu_layers != -1)


def ask_both(path: Path, settings: EngineSettings) -> Footprint:
    """The plan for ``settings``, after a real load that allocated exactly that."""
    with RealLoads() as loads:
        real = loads.load(path, settings)
    assert "error" not in real, real
    with DryRun(read_model_file(path)) as dry_run:
        planned = dry_run.ask(settings)
    assert differences(real, planned) == []
    return planned


@pytest.mark.parametrize(("architecture", "use_mmap"), [("qwen3moe", True), ("deepseek2", False)])
def test_experts_in_ram_are_weights_that_leave_the_device(
    architecture: str, use_mmap: bool, folder: Path, worker: str
) -> None:
    path, context = write_tiny(architecture, folder), ContextSettings(n_ctx=1024)
    model = replace(MAPPED, rpc_servers=(worker,), use_mmap=use_mmap)
    sizes = [
        ask_both(path, EngineSettings(replace(model, n_cpu_moe=n), context)).bytes_on("RPC0", BufferKind.WEIGHTS)
        for n in (0, 1, -1)
    ]
    of_the_first, of_the_others = sizes[0] - sizes[1], sizes[1] - sizes[2]
    assert of_the_others > 0
    assert (of_the_first > 0) is (architecture != "deepseek2")  # whose first layer has no experts
    assert sizes[2] > 0


@pytest.mark.parametrize("architecture", ["gemma3", "qwen3moe", "jamba"])
def test_the_cache_of_layers_on_a_device_may_stay_in_ram(architecture: str, folder: Path, worker: str) -> None:
    model = replace(MAPPED, rpc_servers=(worker,))
    settings = EngineSettings(model, ContextSettings(n_ctx=1024, offload_kqv=False))
    planned = ask_both(write_tiny(architecture, folder), settings)
    assert planned.bytes_on("RPC0", BufferKind.KV) == 0
    assert planned.bytes_on("CPU", BufferKind.KV) > 0
    assert planned.bytes_on("RPC0", BufferKind.WEIGHTS) > 0


def test_a_hybrid_with_its_cache_in_ram_is_planned_too_large_at_most_and_said_so(folder: Path, worker: str) -> None:
    path = write_tiny("lfm2", folder)
    settings = EngineSettings(replace(MAPPED, rpc_servers=(worker,)), ContextSettings(n_ctx=1024, offload_kqv=False))
    with RealLoads() as loads:
        real = loads.load(path, settings)
    with DryRun(read_model_file(path)) as dry_run:
        planned = dry_run.ask(settings)
    assert all("'compute'" in difference for difference in differences(real, planned))
    allocated = sum(share[4] for share in real["shares"] if share[1] == "RPC0")
    assert planned.bytes_on("RPC0", BufferKind.COMPUTE) >= allocated > 0
    assert any("larger" in warning for warning in planned.warnings)


def test_no_layers_on_a_device_is_nothing_at_all_there(folder: Path, worker: str) -> None:
    """Not even a buffer to compute long prompts in."""
    model = replace(MAPPED, n_gpu_layers=0, rpc_servers=(worker,))
    planned = ask_both(write_tiny("llama", folder), EngineSettings(model, ContextSettings(n_ctx=1024)))
    assert {buffer.device for buffer in planned.buffers} == {"CPU"}


def test_a_worker_in_use_is_planned_without_asking_it(folder: Path, worker: str) -> None:
    path = write_tiny("gemma3", folder)
    model = replace(MAPPED, n_gpu_layers=3, rpc_servers=(worker,))
    settings = EngineSettings(model, ContextSettings(n_ctx=1024))
    host, _, port = worker.partition(":")
    with DryRun(read_model_file(path)) as dry_run:
        free = dry_run.ask(settings)
    with socket.create_connection((host, int(port))), DryRun(read_model_file(path)) as dry_run:
        busy = dry_run.ask(settings)
    assert busy.buffers == free.buffers
    assert any(worker in warning for warning in busy.warnings)


def test_a_worker_that_is_gone_is_a_sentence(folder: Path) -> None:
    settings = EngineSettings(replace(MAPPED, rpc_servers=("127.0.0.1:1",)), ContextSettings(n_ctx=1024))
    with (
        DryRun(read_model_file(write_tiny("gemma3", folder))) as dry_run,
        pytest.raises(PlanError, match=r"127\.0\.0\.1:1"),
    ):
        dry_run.ask(settings)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gemma3n", "deepseek2", "mamba", "lfm2"])
def test_an_estimate_knows_weights_caches_and_state(architecture: str, folder: Path) -> None:
    model = read_model_file(write_tiny(architecture, folder))
    with DryRun(model) as dry_run:
        for settings in ASKED:
            exact, guess = dry_run.ask(settings), estimate(model, settings)
            assert (guess.n_ctx, guess.n_ctx_seq) == (exact.n_ctx, exact.n_ctx_seq)
            for kind in (BufferKind.KV, BufferKind.RECURRENT, BufferKind.OUTPUT):
                assert guess.bytes_of(kind) == exact.bytes_of(kind), (kind, settings)
            difference = abs(guess.bytes_of(BufferKind.WEIGHTS) - exact.bytes_of(BufferKind.WEIGHTS))
            assert difference < 0.02 * exact.bytes_of(BufferKind.WEIGHTS)
