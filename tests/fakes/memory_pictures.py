"""Plans, samples and curves with believable numbers, for tests of widgets and for looking at them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.gguf.positions import ALL_ALIKE
from kvdesk.backend.planning.calibration import Comparison, compare
from kvdesk.backend.planning.device_plan import DevicePlan
from kvdesk.backend.planning.plan import CapacityCell, Curve, CurvePoint, KvPlan, MemoryPlan, Option
from kvdesk.backend.planning.verdict import Verdict
from kvdesk.backend.protocol.facts import Buffer, BufferKind, CacheBlock, ContextFacts, KvState
from kvdesk.backend.protocol.footprint import Footprint
from kvdesk.backend.settings import ContextSettings, EngineSettings
from kvdesk.backend.system.samples import DomainReading, MachineReading, Sample

MIB = 1024**2
GIB = 1024**3
START_S = 1_763_800_000.0
KV_BYTES_PER_CELL = 96 * 1024


def ram_plan(n_ctx: int = 32_768, line: int = 7 * GIB, kv_per_cell: int = KV_BYTES_PER_CELL) -> DevicePlan:
    kv = n_ctx * kv_per_cell
    total = 1843 * MIB + kv + 220 * MIB + 2 * MIB + 110 * MIB
    return DevicePlan(
        "RAM", "ram", "", 1843 * MIB, 1800 * MIB, kv, 0, 220 * MIB, 2 * MIB, 110 * MIB, True,
        total, total - 150 * MIB, int(15.6 * GIB), int(7.6 * GIB), line + GIB, line,
    )  # fmt: skip


def gpu_plan(n_ctx: int = 32_768) -> DevicePlan:
    kv = n_ctx * KV_BYTES_PER_CELL // 2
    total = 3584 * MIB + kv + 300 * MIB + 280 * MIB
    return DevicePlan(
        "CUDA0", "gpu", "NVIDIA GeForce RTX 4060 Laptop GPU", 3584 * MIB, 0, kv, 0, 300 * MIB, 0, 280 * MIB, False,
        total, total, 8 * GIB, 922 * MIB, 7270 * MIB, 6246 * MIB,
    )  # fmt: skip


def plan(n_ctx: int = 32_768, gpu: bool = False, line: int = 7 * GIB) -> MemoryPlan:
    """A model of 1.8 GiB with a cache of 96 KiB a token; on the line's side that ``line`` puts it."""
    settings = EngineSettings(context=ContextSettings(n_ctx=n_ctx))
    devices = (ram_plan(n_ctx, line), gpu_plan(n_ctx)) if gpu else (ram_plan(n_ctx, line),)
    room = devices[0].room_bytes or 0
    alarm = "" if room >= GIB else "amber" if room >= 512 * MIB else "red"
    sentence = f"Fits, {room / GIB:.1f} GiB under the line" if room >= 0 else f"Does not fit by {-room / GIB:.1f} GiB"
    return MemoryPlan(
        settings, "dry-run", n_ctx, n_ctx, True, devices, KvPlan(KV_BYTES_PER_CELL, n_ctx, n_ctx * KV_BYTES_PER_CELL, None),
        Verdict("fits" if room >= 0 else "does-not-fit", sentence, alarm, "RAM", room, 41_216), 41_216, options(settings, devices[0]), footprint=footprint(n_ctx, gpu),
    )  # fmt: skip


def options(settings: EngineSettings, device: DevicePlan) -> tuple[Option, ...]:
    def option(change: str, label: str, saved: int, **context: object) -> Option:
        changed = replace(settings, context=replace(settings.context, **context))
        total = device.total_bytes - saved
        return Option(change, label, changed, total, -saved, total <= (device.oom_line_bytes or 0), 60_000)

    kv = device.kv_bytes
    return (
        option("type_kv", "K and V cache as q8_0", int(kv * 0.47), type_k="q8_0", type_v="q8_0"),
        option("type_kv", "K and V cache as q4_0", int(kv * 0.72), type_k="q4_0", type_v="q4_0"),
        option("n_ctx", "Context length 24,576", kv // 4, n_ctx=24_576),
        option("n_ubatch", "Physical batch size 256", 110 * MIB, n_ubatch=256),
    )


def buffers(cells: int, gpu: bool = False) -> tuple[Buffer, ...]:
    """What llama.cpp holds with ``cells`` of context."""
    kv = cells * KV_BYTES_PER_CELL
    on_cpu = (
        Buffer("CPU", "CPU_Mapped", BufferKind.WEIGHTS, 1800 * MIB, mapped=True),
        Buffer("CPU", "CPU_REPACK", BufferKind.WEIGHTS, 43 * MIB),
        Buffer("CPU", "CPU", BufferKind.KV, kv),
        Buffer("CPU", "CPU", BufferKind.COMPUTE, 220 * MIB),
        Buffer("CPU", "CPU", BufferKind.OUTPUT, 2 * MIB),
    )
    on_gpu = (
        Buffer("CUDA0", "CUDA0", BufferKind.WEIGHTS, 3584 * MIB),
        Buffer("CUDA0", "CUDA0", BufferKind.KV, kv // 2),
        Buffer("CUDA0", "CUDA0", BufferKind.COMPUTE, 300 * MIB),
    )
    return on_cpu + on_gpu if gpu else on_cpu


def kv_state(used: int, cells: int, gpu: bool = False) -> KvState:
    """Bytes on all devices together: the GPU's layers cache half as much again."""
    per_cell = KV_BYTES_PER_CELL * 3 // 2 if gpu else KV_BYTES_PER_CELL
    return KvState(used, cells, used * per_cell, cells * per_cell)


def sample(
    at_s: float = 0.0, used: int = 1500, cells: int = 4096, gpu: bool = False, others: float = 6.1 * GIB
) -> Sample:
    """A moment with a loaded model and ``used`` of ``cells`` occupied."""
    kv = cells * KV_BYTES_PER_CELL
    anonymous, file = 110 * MIB + 43 * MIB + kv + 90 * MIB, 1860 * MIB
    capacity = int(15.6 * GIB)
    domains = [
        DomainReading(
            "RAM", "ram", capacity, capacity - int(others) - anonymous, anonymous + file, anonymous, file, "VmRSS"
        )
    ]
    if gpu:
        engine = 3584 * MIB + kv // 2 + 300 * MIB + 270 * MIB
        domains.append(
            DomainReading(
                "CUDA0", "gpu", 8 * GIB, 8 * GIB - 922 * MIB - engine, engine, engine_source="NVML, this process"
            )
        )
    predicted = tuple((d.name, d.total_bytes) for d in plan(gpu=gpu).devices)
    return Sample(
        START_S + at_s, 1000.0 + at_s, MachineReading(tuple(domains)), 4711,
        kv_state(used, cells, gpu), 18.2, "ready", predicted,
    )  # fmt: skip


def chat(seconds: float, gpu: bool = False, step_s: float = 0.5) -> Iterator[tuple[Sample, int]]:
    """Samples every ``step_s`` of a chat whose context grows; each with its number of cells."""
    cells = 2048
    for index in range(int(seconds / step_s)):
        at = index * step_s
        used = min(32_000, int(at * 20))
        while used > cells:
            cells *= 2
        yield sample(at, used, cells, gpu, 6.1 * GIB + 1.2 * GIB * math.sin(at / 90)), cells


def curve(type_k: str, type_v: str, per_token: int, last: int = 131_072, line: int | None = int(7.3 * GIB)) -> Curve:
    """A straight line from 2 GiB."""
    lengths = range(last // 128, last + 1, last // 128)
    points = tuple(CurvePoint(n, 2 * GIB + n * per_token, 2 * GIB + n * per_token) for n in lengths)
    fits = [point.n_ctx for point in points if line is not None and point.device_bytes <= line]
    return Curve(type_k, type_v, points, "RAM", line, fits[-1] if fits else None)


def curves(last: int = 131_072, line: int | None = int(7.3 * GIB)) -> tuple[Curve, ...]:
    """f16, q8_0, q4_0."""
    return (
        curve("f16", "f16", 96 * 1024, last, line),
        curve("q8_0", "q8_0", 51 * 1024, last, line),
        curve("q4_0", "q4_0", 27 * 1024, last, line),
    )


def model() -> ModelFile:
    """A grouped-query model whose cache takes 96 KiB a token: 24 layers, 8 of 32 heads, 128 values."""
    n = 24
    facts = {
        "path": Path("example-8b-Q4_K_M.gguf"), "part_paths": (), "missing_parts": (), "is_complete": True, "name": "Example 8B",
        "architecture": "llama", "n_layer": n, "n_ctx_train": 131_072, "n_embd": 4096, "n_vocab": 128_256, "has_vocab": True,
        "has_chat_template": True, "n_head": (32,) * n, "n_head_kv": (8,) * n, "head_size_k": 128, "head_size_v": 128,
        "head_size_k_swa": 0, "head_size_v_swa": 0, "sliding_window": None, "windowed_layers": (False,) * n,
        "recurrent_layers": (False,) * n, "cached_layers": (True,) * n, "kv_lora_rank": None, "expert_count": 0,
        "expert_used_count": 0, "is_causal": True, "attention": ("GQA",), "file_type": 15, "quantization": "Q4_K_M",
        "size_bytes": 1843 * MIB, "tensors": (), "metadata": {}, "truncated_part": None, "positions": ALL_ALIKE,
    }  # fmt: skip
    return ModelFile(**{field.name: facts.get(field.name, False) for field in fields(ModelFile)})


def footprint(n_ctx: int, gpu: bool = False) -> Footprint:
    """As the dry run would answer."""
    cache = CacheBlock("kv", n_ctx, 24, n_ctx * KV_BYTES_PER_CELL, "f16", "f16")
    settings = EngineSettings(context=ContextSettings(n_ctx=n_ctx))
    return Footprint(settings, "dry-run", n_ctx, n_ctx, True, buffers(n_ctx, gpu), (cache,))


def context(cells: int = 4096, used: int = 1500, limit: int = 32_768, gpu: bool = False) -> ContextFacts:
    """The context that a load or a growth step made."""
    kv = kv_state(used, cells, gpu)
    settings = ContextSettings(n_ctx=limit)
    return ContextFacts(settings, cells, limit, True, buffers(cells, gpu), (), kv, "new", 0, 12.0)


def comparison(cells: int = 4096, gpu: bool = False) -> Comparison:
    """What a load of ``plan(cells)`` came to."""
    held = {domain.name: domain.engine_bytes for domain in sample(cells=cells, gpu=gpu).domains}
    return compare(plan(cells, gpu), model(), buffers(cells, gpu), held)


def capacity() -> tuple[CapacityCell, ...]:
    """1 to 8 conversations of 4k to 32k tokens against a line of 7 GiB."""
    cells = []
    for n_seq in (1, 2, 4, 8):
        for n_ctx in (4096, 8192, 16_384, 32_768):
            kv = n_seq * n_ctx * KV_BYTES_PER_CELL
            cells.append(CapacityCell(n_seq, n_ctx, 2 * GIB + kv, kv, 2 * GIB + kv <= 7 * GIB))
    return tuple(cells)
