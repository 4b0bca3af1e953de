"""What kvdesk promises, checked on a machine with a GPU in ten minutes; prints one table for docs/FIGURES.md.

``python -m tools.gpu_check MODEL.gguf [--moe MODEL.gguf] [--build-cuda SOURCE] [--rpc HOST:PORT]``: plan against allocated per device for
every setting that moves memory, the device's own figures against both, a load that cannot fit, stop within a batch, speed.
Never run on a real card so far; a network worker (--rpc) stands in for one where there is none.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from kvdesk.backend.gguf.model_file import read_model_file
from kvdesk.backend.planning.dry_run import DryRun
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import Device
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
from kvdesk.backend.system.machine import read_domains
from kvdesk.errors import KvdeskError
from kvdesk.sizes import format_bytes
from tests.engine.harness import Desk
from tests.plan_reality import RealLoads, differences

ROOT = Path(__file__).resolve().parents[1]
LONG = 32_768
IMPOSSIBLE = 16_777_216
STORY = "The people of the town said that the river had risen again, and that the bridge would not hold. " * 40


def main() -> int:
    """Run all checks; 0 when plan and allocation agree everywhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--moe", type=Path, help="a mixture of experts, for experts in RAM")
    parser.add_argument(
        "--build-cuda", type=Path, metavar="SOURCE", help="llama.cpp's source: build CUDA from it first"
    )
    parser.add_argument("--rpc", action="append", default=[], metavar="HOST:PORT", help="a worker in place of a card")
    arguments = parser.parse_args()
    if arguments.build_cuda:
        os.environ["LLAMA_CPP_LIB_PATH"] = str(build_cuda(arguments.build_cuda, ROOT / "build" / "cuda"))
    base = ModelSettings(rpc_servers=tuple(arguments.rpc))
    print("| check | planned | allocated | the device says | agree |\n|---|---|---|---|---|")
    agreed = [check_plan(arguments.model, name, settings) for name, settings in variants(arguments.model, base)]
    if arguments.moe:
        experts = [(f"experts of {n} layers in RAM", replace(base, n_cpu_moe=n)) for n in (1, -1)]
        agreed += [check_plan(arguments.moe, name, EngineSettings(model)) for name, model in experts]
    with tempfile.TemporaryDirectory() as folder, Desk(Path(folder)) as desk:
        loaded = desk.load(arguments.model, ContextSettings(n_ctx=8192), base)
        cards = [device for device in loaded.devices if device.kind != "cpu"]
        if not cards:
            print("llama.cpp found no device but the CPU; `kvdesk doctor` says why.", file=sys.stderr)
            return 1
        check_readings(desk, loaded, cards)
        check_speed(desk)
        check_stop(desk)
        check_out_of_memory(desk, arguments.model, base)
    return 0 if all(agreed) else 1


def build_cuda(source: Path, build: Path) -> Path:
    """llama.cpp with CUDA for the card that is here, libraries in one folder; five minutes on 16 cores."""
    options = {
        "CMAKE_BUILD_TYPE": "Release", "BUILD_SHARED_LIBS": "ON", "GGML_BACKEND_DL": "ON", "GGML_NATIVE": "OFF",
        "GGML_CPU_ALL_VARIANTS": "ON", "GGML_RPC": "ON", "GGML_CUDA": "ON", "GGML_CUDA_NO_VMM": "ON",
        "CMAKE_CUDA_ARCHITECTURES": "native", "LLAMA_BUILD_TESTS": "OFF", "LLAMA_BUILD_TOOLS": "OFF",
        "LLAMA_BUILD_EXAMPLES": "OFF", "LLAMA_BUILD_SERVER": "OFF",
        "CMAKE_PROJECT_INCLUDE": str(ROOT / "packaging" / "llama_cpp_build.cmake"),
    }  # fmt: skip
    asked = [f"-D{name}={value}" for name, value in options.items()]
    subprocess.run(["cmake", "-S", str(source), "-B", str(build), *asked], check=True)
    subprocess.run(["cmake", "--build", str(build), "-j", str(os.cpu_count() or 1)], check=True)
    return build / "bin"


def variants(path: Path, base: ModelSettings) -> list[tuple[str, EngineSettings]]:
    """Every setting that moves memory between devices or changes its size."""
    half = read_model_file(path).n_layer // 2
    context = ContextSettings(n_ctx=8192)
    return [
        ("all layers", EngineSettings(base, context)),
        ("half the layers", EngineSettings(replace(base, n_gpu_layers=half), context)),
        ("no layers", EngineSettings(replace(base, n_gpu_layers=0), context)),
        ("cache in RAM", EngineSettings(base, replace(context, offload_kqv=False))),
        ("cache q8_0", EngineSettings(base, replace(context, type_k="q8_0", type_v="q8_0", flash_attn="on"))),
        ("flash attention off", EngineSettings(base, replace(context, flash_attn="off"))),
        ("32,768 tokens", EngineSettings(base, replace(context, n_ctx=LONG))),
    ]


def check_plan(path: Path, name: str, settings: EngineSettings) -> bool:
    """One row: what the dry run says and what a real load allocates on the devices; whether they are equal."""
    with DryRun(read_model_file(path)) as dry_run:
        try:
            planned = dry_run.ask(settings)
        except KvdeskError as error:
            row(name, str(error), "", "", "refused")
            return True
    with RealLoads() as loads:
        real = loads.load(path, settings)
    if "error" in real:
        row(name, format_bytes(sum(b.size_bytes for b in planned.buffers)), str(real["error"]), "", "no")
        return False
    wrong = differences(real, planned)
    there = sum(sum(share[2:5]) for share in real["shares"] if share[1] != "CPU")
    said = sum(buffer.size_bytes for buffer in planned.buffers if buffer.device != "CPU")
    row(name, format_bytes(said), format_bytes(there), "", "yes" if not wrong else "; ".join(wrong))
    return not wrong


def check_readings(desk: Desk, loaded: m.Loaded, cards: list[Device]) -> None:
    """The engine's share of each device by the driver's figures, beside llama.cpp's own buffers there."""
    domains = {d.name: d for d in read_domains(desk.engine.pid, loaded.devices, loaded.context.buffers)}
    for card in cards:
        buffers = sum(b.size_bytes for b in loaded.context.buffers if b.device == card.name)
        domain = domains.get(card.name)
        said = f"{format_bytes(domain.engine_bytes)} ({domain.engine_source})" if domain else "nothing"
        row(f"held on {card.name}, {card.description}", "", format_bytes(buffers), said, "")


def check_speed(desk: Desk) -> None:
    """Prompt and decode speed; llama-bench of the same build is the measure."""
    stats = desk.answer(STORY)[1]
    prompt, decode = stats.prompt_tokens_per_second or 0, stats.tokens_per_second or 0
    row("speed", "", f"prompt {prompt:.0f} tokens/s, decode {decode:.1f}", "", "")


def check_stop(desk: Desk) -> None:
    """How long a stop takes in the middle of a long prompt: llama.cpp's abort callback works on the CPU only."""
    desk.ask(STORY * 6)
    desk.until(m.PromptProgress)
    begun = time.monotonic()
    desk.engine.stop()
    desk.until(m.TurnFinished)
    row("stop within a prompt", "200 ms", f"{1000 * (time.monotonic() - begun):.0f} ms", "", "")


def check_out_of_memory(desk: Desk, path: Path, base: ModelSettings) -> None:
    """A context that no card holds must end in a sentence or a crash card, and the engine go on."""
    desk.engine.load(path, EngineSettings(base, ContextSettings(n_ctx=IMPOSSIBLE, allocation="reserve")))
    try:
        ended = desk.until(m.Loaded, m.Failed, timeout_s=300)
    except AssertionError as died:
        row("a context that cannot fit", "", f"the engine died: {died}", "", "")
        return
    row("a context that cannot fit", "", getattr(ended, "sentence", "it was loaded"), "", "")


def row(*cells: str) -> None:
    """A line of the table."""
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
