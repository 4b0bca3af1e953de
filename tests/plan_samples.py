"""Made-up models, footprints and readings with round numbers, for tests of what is pure about the plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.protocol.facts import Buffer, BufferKind, CacheBlock, Device
from kvdesk.backend.protocol.footprint import DRY_RUN, Footprint
from kvdesk.backend.settings import BITS_PER_VALUE, ContextSettings, EngineSettings, ModelSettings
from kvdesk.backend.system.samples import DomainReading

MIB = 1024 * 1024
GIB = 1024 * MIB
CPU = Device("CPU", "A processor", "cpu", None, None)
GPU = Device("CUDA0", "A card", "gpu", 7 * GIB, 8 * GIB)


def model_file(**changes: object) -> ModelFile:
    """A dense model of 8 layers with grouped heads: 2 of K and V for 8 of attention, 64 values each."""
    model = ModelFile(
        path=Path("some-model.gguf"), part_paths=(Path("some-model.gguf"),), missing_parts=(), is_complete=True,
        name="Some Model", architecture="llama", n_layer=8, n_ctx_train=32768, n_embd=512, n_vocab=32000, has_vocab=True,
        has_chat_template=True, n_head=(8,) * 8, n_head_kv=(2,) * 8, head_size_k=64, head_size_v=64, head_size_k_swa=64,
        head_size_v_swa=64, sliding_window=None, windowed_layers=(False,) * 8, recurrent_layers=(False,) * 8,
        cached_layers=(True,) * 8, kv_lora_rank=None, caches_latent=False, expert_count=0, expert_used_count=0,
        is_recurrent=False, is_hybrid=False, is_causal=True, attention=("GQA",), file_type=1, quantization="F16",
        size_bytes=GIB, tensors=(), metadata={},
    )  # fmt: skip
    return replace(model, **changes)  # type: ignore[arg-type]


def footprint(settings: EngineSettings | None = None, *, on_gpu: bool = False) -> Footprint:
    """1 GiB of weights, 2,048 bytes of K and V a token at f16, 64 MiB of compute at 8,192 tokens, half of it fixed."""
    settings = settings or EngineSettings()
    context = settings.context
    n_ctx = context.n_ctx
    bits = BITS_PER_VALUE[context.type_k] + BITS_PER_VALUE[context.type_v]
    kv = int(n_ctx * 2048 * bits / 32)
    compute = 32 * MIB * context.n_ubatch // 512 + 32 * MIB * n_ctx // 8192
    device = "CUDA0" if on_gpu else "CPU"
    mapped = not on_gpu
    return Footprint(
        settings=settings,
        source=DRY_RUN,
        n_ctx=n_ctx,
        n_ctx_seq=n_ctx // context.n_seq_max,
        flash_attn=context.flash_attn != "off",
        buffers=(
            Buffer(device, "CPU_Mapped" if mapped else device, BufferKind.WEIGHTS, GIB, mapped=mapped),
            Buffer(device, device, BufferKind.KV, kv),
            Buffer(device, device, BufferKind.COMPUTE, compute),
            Buffer("CPU", "CPU", BufferKind.OUTPUT, MIB),
        ),
        caches=(CacheBlock("KV", n_ctx, 8, kv, context.type_k, context.type_v),),
        devices=(CPU, GPU) if on_gpu else (CPU,),
        n_vocab=32000,
    )


def settings(n_ctx: int = 8192, **context: object) -> EngineSettings:
    """Settings with ``context`` changed from the defaults."""
    return EngineSettings(ModelSettings(), ContextSettings(n_ctx=n_ctx, **context))  # type: ignore[arg-type]


def ram(available_bytes: int, capacity_bytes: int = 16 * GIB) -> DomainReading:
    """RAM without an engine in it."""
    return DomainReading("RAM", "ram", capacity_bytes, available_bytes, 0, 0, 0)
