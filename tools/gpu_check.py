"""What kvdesk promises, checked on a machine with a GPU in ten minutes; prints one table for docs/FIGURES.md.

``python -m tools.gpu_check MODEL.gguf [--build-cuda SOURCE] [--rpc HOST:PORT] [--quick]``: plan against allocated per device for
every setting that moves memory, the driver's figures against both, where memory really ends, growth, conversion, speed
against llama.cpp's barest loop, stop. Models with random weights (the KV cache of an 8B, experts) are written on the way.
A network worker (--rpc) stands in for a card where there is none.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kvdesk.backend.engine.engine_event import Died
from kvdesk.backend.gguf.model_file import read_model_file
from kvdesk.backend.planning.calibration import Calibration
from kvdesk.backend.planning.dry_run import DryRun
from kvdesk.backend.planning.pricer import Pricer
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
from kvdesk.backend.system.machine import Machine
from kvdesk.errors import KvdeskError
from kvdesk.sizes import format_bytes
from tests.bench.barest_loop import Barest
from tests.engine.harness import GREEDY, Desk
from tests.plan_reality import RealLoads, differences
from tests.tiny_models import write_tiny

ROOT = Path(__file__).resolve().parents[1]
LONG = 32_768
STORY = "The people of the town said that the river had risen again, and that the bridge would not hold. " * 40
HALF_GIB = 512 * 1024 * 1024


def main() -> int:
    """Run all checks; 0 when plan and allocation agree everywhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument(
        "--build-cuda", type=Path, metavar="SOURCE", help="llama.cpp's source: build CUDA from it first"
    )
    parser.add_argument("--rpc", action="append", default=[], metavar="HOST:PORT", help="a worker in place of a card")
    parser.add_argument("--quick", action="store_true", help="not where memory ends: it fills the card")
    arguments = parser.parse_args()
    if arguments.build_cuda:
        os.environ["LLAMA_CPP_LIB_PATH"] = str(build_cuda(arguments.build_cuda, ROOT / "build" / "cuda"))
    base = ModelSettings(rpc_servers=tuple(arguments.rpc))
    print("| check | planned | measured | the driver says | agree |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wide = write_tiny(
            "llama", folder, n_layer=32, n_head=8, n_head_kv=8, n_embd=1024, n_ctx_train=1 << 20, file_name="wide.gguf"
        )
        experts = write_tiny("qwen3moe", folder, n_layer=4)
        agreed = [check_plan(arguments.model, name, settings) for name, settings in variants(arguments.model, base)]
        agreed += [check_plan(wide, f"KV of an 8B, {name}", settings) for name, settings in variants(wide, base)]
        for n in (1, 3, -1):
            agreed.append(
                check_plan(experts, f"experts of {n} layers in RAM", EngineSettings(replace(base, n_cpu_moe=n)))
            )
        checks: list[Callable[[Desk, Path, ModelSettings], bool]] = [
            check_readings, check_growth, check_conversion, check_speed, check_stop, check_killed
        ]  # fmt: skip
        for check in checks:
            with Desk(folder) as desk:
                agreed.append(survives(check, desk, arguments.model, base))
        if not arguments.quick:
            agreed.append(check_the_end_of_memory(folder, wide, base))
    return 0 if all(agreed) else 1


def survives(check: Callable[[Desk, Path, ModelSettings], bool], desk: Desk, model: Path, base: ModelSettings) -> bool:
    """The check's answer; one that fails says so in a row and leaves the others their turn."""
    try:
        return check(desk, model, base)
    except Exception as error:  # noqa: BLE001  whatever it was, the rest of ten minutes on a card is worth more
        row(check.__name__, "", f"{type(error).__name__}: {error}"[:300], "", "no")
        return False


def build_cuda(source: Path, build: Path) -> Path:
    """llama.cpp with CUDA for the card that is here, libraries in one folder; five minutes on 16 cores."""
    options = {
        "CMAKE_BUILD_TYPE": "Release", "BUILD_SHARED_LIBS": "ON", "GGML_BACKEND_DL": "ON", "GGML_NATIVE": "OFF",
        "GGML_RPC": "ON", "GGML_CUDA": "ON", "GGML_CUDA_NO_VMM": "ON", "GGML_CUDA_NCCL": "OFF", "CMAKE_CUDA_ARCHITECTURES": "native",
        "LLAMA_BUILD_TESTS": "OFF", "LLAMA_BUILD_TOOLS": "OFF", "LLAMA_BUILD_EXAMPLES": "OFF", "LLAMA_BUILD_SERVER": "OFF",
        "LLAMA_BUILD_APP": "OFF", "LLAMA_BUILD_COMMON": "OFF",
        "CMAKE_PROJECT_INCLUDE": str(ROOT / "packaging" / "llama_cpp_build.cmake"),
    }  # fmt: skip
    asked = [f"-D{name}={value}" for name, value in options.items()]
    subprocess.run(["cmake", "-S", str(source), "-B", str(build), *asked], check=True)
    subprocess.run(["cmake", "--build", str(build), "-j", str(os.cpu_count() or 1)], check=True)
    return build / "bin"


def variants(path: Path, base: ModelSettings) -> list[tuple[str, EngineSettings]]:
    """Every setting that moves memory between devices or changes its size."""
    half = replace(base, n_gpu_layers=read_model_file(path).n_layer // 2)
    context = ContextSettings(n_ctx=8192)
    return [
        ("all layers", EngineSettings(base, context)),
        ("half the layers", EngineSettings(half, context)),
        ("half the layers, nothing mapped", EngineSettings(replace(half, use_mmap=False), context)),
        ("no layers", EngineSettings(replace(base, n_gpu_layers=0), context)),
        ("cache in RAM", EngineSettings(base, replace(context, offload_kqv=False))),
        ("cache q8_0", EngineSettings(base, replace(context, type_k="q8_0", type_v="q8_0", flash_attn="on"))),
        ("cache q4_0", EngineSettings(base, replace(context, type_k="q4_0", type_v="q4_0", flash_attn="on"))),
        ("flash attention off", EngineSettings(base, replace(context, flash_attn="off"))),
        ("batches of 2,048", EngineSettings(base, replace(context, n_ubatch=2048))),
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


def check_readings(desk: Desk, path: Path, base: ModelSettings) -> bool:
    """The engine's share of each device by the driver's figures, beside llama.cpp's own buffers there; the context that
    the driver adds is what the plan must know (its overhead)."""
    machine = Machine()
    machine.read()
    loaded = desk.load(path, ContextSettings(n_ctx=8192), base)
    cards = [device for device in loaded.devices if device.kind != "cpu"]
    for backend in desk.of(m.Started)[-1].backends:
        row(f"backend {backend.name}", "", backend.file, backend.why, "")
    for when, text in (("after the load", ""), ("after a reply", STORY)):
        stats = desk.answer(text)[1] if text else None
        reading = machine.read(desk.engine.pid, loaded.devices, loaded.context.buffers)
        domains = {domain.name: domain for domain in reading.domains}
        for card in cards:
            buffers = sum(b.size_bytes for b in loaded.context.buffers if b.device == card.name)
            domain = domains.get(card.name)
            said = "nothing"
            if domain and domain.engine_bytes is not None:
                beyond = format_bytes(domain.engine_bytes - buffers)
                said = f"{format_bytes(domain.engine_bytes)} ({domain.engine_source}), {beyond} beside the buffers"
            row(f"held on {card.name}, {card.description}, {when}", "", format_bytes(buffers), said, "")
        ram = domains["RAM"]
        row(f"held in RAM {when}", "", format_bytes(ram.engine_bytes or 0), ram.engine_source, "")
        if stats:
            row("its prompt", "", f"{stats.prompt_tokens} tokens", "", "")
    if not cards:
        row("cards", "one at least", "llama.cpp found no device but the CPU; `kvdesk doctor` says why", "", "no")
    return bool(cards)


def check_growth(desk: Desk, path: Path, base: ModelSettings) -> bool:
    """A context that grows with the chat says the same as one that is whole from the start, and how long each step took."""
    sampling = SamplingSettings(temperature=0.0, max_tokens=3000)
    desk.load(path, ContextSettings(n_ctx=8192, allocation="reserve"), base)
    whole, _ = desk.answer(STORY, sampling=sampling)
    desk.load(path, ContextSettings(n_ctx=8192, allocation="grow", initial_ctx=256), base)
    grown, stats = desk.answer(STORY, sampling=sampling)
    steps = [event.step for event in desk.of(m.Grown)]
    took = ", ".join(f"{s.from_cells} to {s.to_cells} in {s.ms:.0f} ms" for s in steps)
    row(
        "growth",
        f"{len(whole)} characters",
        f"{stats.completion_tokens} tokens; {took}",
        "",
        "yes" if grown == whole else "other text",
    )
    return bool(steps) and grown == whole


def check_conversion(desk: Desk, path: Path, base: ModelSettings) -> bool:
    """f16 to q8_0 and q4_0 with the conversation kept, and how the next question is answered."""
    context = ContextSettings(n_ctx=8192, allocation="reserve", flash_attn="on")
    desk.load(path, context, base)
    said, _ = desk.answer(STORY, sampling=GREEDY)
    good = True
    for name in ("q8_0", "q4_0", "f16"):
        context = replace(context, type_k=name, type_v=name)
        begun = time.monotonic()
        desk.engine.send(m.SetContext(context))
        made = desk.until(m.ContextMade).context
        took = 1000 * (time.monotonic() - begun)
        _, stats = desk.answer(STORY, said, "And then?", sampling=GREEDY)
        row(
            f"cache to {name}", "all cells kept",
            f"{made.how}, {made.kept_tokens} kept, {took:.0f} ms; next turn reused {stats.reused_tokens} of {stats.prompt_tokens}",
            "", "",
        )  # fmt: skip
        good = good and made.kept_tokens > 0
    return good


def check_speed(desk: Desk, path: Path, base: ModelSettings) -> bool:
    """Prompt and decode speed against llama.cpp driven by the barest loop; the same build, card and prompt."""
    sampling = SamplingSettings(temperature=0.0, max_tokens=256)
    desk.load(path, ContextSettings(n_ctx=16_384, allocation="reserve"), base)
    desk.answer("Hello", sampling=GREEDY)
    stats = desk.answer(STORY * 2, conversation_id="speed", sampling=sampling)[1]
    prompt, decode = stats.prompt_tokens_per_second or 0, stats.tokens_per_second or 0
    if base.rpc_servers:
        row("speed", "", f"prompt {prompt:.0f} tokens/s, decode {decode:.1f}", "", "")
        return True
    with Barest(path, 16_384, 8) as barest:
        barest.run(STORY, 8)
        peer = barest.run(STORY * 2, 256)
    row(
        "speed", f"barest loop: prompt {peer.prompt_per_s:.0f} tokens/s, decode {peer.decode_per_s:.1f}",
        f"prompt {prompt:.0f} tokens/s, decode {decode:.1f} ({stats.prompt_tokens} and {stats.completion_tokens} tokens)",
        "", f"{prompt / peer.prompt_per_s:.2f} and {decode / peer.decode_per_s:.2f}",
    )  # fmt: skip
    return True


def check_stop(desk: Desk, path: Path, base: ModelSettings) -> bool:
    """How long a stop takes in the middle of a long prompt and of a reply: llama.cpp's abort callback works on the CPU only."""
    desk.load(path, ContextSettings(n_ctx=LONG, allocation="reserve"), base)
    worst = 0.0
    for name, text, event in (("prompt", STORY * 20, m.PromptProgress), ("reply", "Hello", m.TextGenerated)):
        desk.ask(text, conversation_id=name, sampling=SamplingSettings(temperature=0.0, max_tokens=0))
        desk.until(event)
        begun = time.monotonic()
        desk.engine.stop()
        stopped = desk.until(m.TurnFinished).stats
        took = 1000 * (time.monotonic() - begun)
        worst = max(worst, took)
        row(f"stop within a {name}", "200 ms", f"{took:.0f} ms ({stopped.stop_reason.value})", "", "")
    return worst < 200


def check_killed(desk: Desk, path: Path, base: ModelSettings) -> bool:
    """An engine killed in a reply leaves nothing on the card, and the next load works."""
    machine = Machine()
    before = {domain.name: domain.available_bytes for domain in machine.read().domains}
    loaded = desk.load(path, ContextSettings(n_ctx=8192), base)
    desk.ask("Hello", sampling=SamplingSettings(temperature=0.0, max_tokens=0))
    desk.until(m.TextGenerated)
    assert desk.engine.pid is not None
    os.kill(desk.engine.pid, 9)
    died = desk.until(Died)
    time.sleep(1)
    after = {domain.name: domain.available_bytes for domain in machine.read().domains}
    lost = {name: (free or 0) - (after.get(name) or 0) for name, free in before.items() if name != "RAM"}
    words = ", ".join(f"{format_bytes(size)} less free on {name}" for name, size in lost.items())
    desk.load(path, loaded.context.settings, base)
    text, _ = desk.answer("Name a colour.", sampling=GREEDY)
    row("an engine killed in a reply", "", str(died.error)[:160], words, f"then: {text[:60]!r}")
    return all(size < HALF_GIB for size in lost.values())


def check_the_end_of_memory(folder: Path, path: Path, base: ModelSettings) -> bool:
    """The longest context that the plan calls possible with nothing kept free must load and answer; half a GiB more must
    end in a sentence, and the engine go on."""
    context = ContextSettings(n_ctx=0, allocation="reserve", flash_attn="on")
    with Pricer(read_model_file(path), Calibration(folder / "calibration.json"), margin_bytes=0) as pricer:
        machine = Machine()
        devices = pricer.footprint(EngineSettings(base, context)).devices
        longest = pricer.longest(EngineSettings(base, context), machine.read(devices=devices).domains)
        plan = pricer.plan(
            EngineSettings(base, replace(context, n_ctx=longest or 256)), machine.read(devices=devices).domains
        )
    card = next((device for device in plan.devices if device.name != "RAM"), plan.devices[0])
    each = max(1, plan.kv.bytes_per_token)
    good = True
    steps = ((0, "the longest that fits"), (HALF_GIB, "half a GiB more"), (4 * HALF_GIB, "two GiB more"))
    for more, name in steps:
        n_ctx = ((longest or 256) + more // each) // 256 * 256
        with Desk(folder) as desk:
            desk.engine.load(path, EngineSettings(base, replace(context, n_ctx=n_ctx)))
            try:
                ended = desk.until(m.Loaded, m.Failed, Died, timeout_s=120)
            except Exception as error:  # noqa: BLE001  an engine that says nothing is a finding, too
                row(f"{name}: {n_ctx:,} tokens", "", f"{type(error).__name__}: {error}"[:200], "", "no")
                return False
            words, there = "", ""
            if isinstance(ended, m.Loaded):
                answer = desk.answer("Hello")[1]
                domains = {
                    d.name: d for d in machine.read(desk.engine.pid, ended.devices, ended.context.buffers).domains
                }
                domain = domains.get(card.name)
                words = f"loaded, answered {answer.completion_tokens} tokens"
                there = (
                    f"{format_bytes(domain.engine_bytes or 0)} held, {format_bytes(domain.available_bytes or 0)} free"
                    if domain
                    else ""
                )
            else:
                words = ended.sentence if isinstance(ended, m.Failed) else f"the engine died: {ended.error}"
                desk.load(path, ContextSettings(n_ctx=2048), base)
                words += f" / then: {desk.answer('Hello')[1].completion_tokens} tokens"
            planned = f"{format_bytes(card.total_bytes + more)} of {format_bytes(card.ceiling_bytes or 0)}"
            row(f"{name}: {n_ctx:,} tokens", planned, words, there, "")
            good = good and (more > 0 or isinstance(ended, m.Loaded))
    return good


def row(*cells: str) -> None:
    """A line of the table."""
    print("| " + " | ".join(cell.replace("\n", " ").replace("|", "/") for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
