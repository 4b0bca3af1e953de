"""Every setting as frozen dataclasses; field metadata (label, unit, bounds, step, choices, help) drives form and flags.

Names are llama.cpp's. Pure values: no I/O, any thread or process. Rules that llama.cpp would enforce by
failing are checked by ``context_problems`` before anything is loaded.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, cast

from kvdesk.backend.ggml_types import BY_NAME
from kvdesk.sizes import MIB

CACHE_TYPES: tuple[str, ...] = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""KV cache types that llama.cpp's own tools accept (common/arg.cpp, kv_cache_types)."""

QUANTIZED_CACHE_TYPES = frozenset(name for name in CACHE_TYPES if BY_NAME[name].block_values > 1)

BITS_PER_VALUE: Mapping[str, float] = {name: BY_NAME[name].bits_per_value for name in CACHE_TYPES}
"""Bits per cached value, block scales included."""

FLASH_ATTN: tuple[str, ...] = ("auto", "on", "off")
ALLOCATIONS: tuple[str, ...] = ("grow", "reserve")
OVERFLOWS: tuple[str, ...] = ("ask", "stop", "truncate-middle", "rolling")

AUTOMATIC_MARGIN = -128 * MIB
"""A memory margin that goes by each domain's size (``kept_free``), as every negative one does."""
MARGIN_HELP = (
    "Kept free under what the engine could get: the OOM line. Automatic is 1 GiB, or a tenth of the memory if less."
)


def described(label: str, help_text: str, **more: Any) -> dict[str, Any]:
    """A field's metadata: what form and flags show of it."""
    return {"label": label, "help": help_text, **more}


class Values:
    """What all settings share: a plain JSON form that tolerates unknown, missing and impossible entries."""

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict of the fields, tuples as lists."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The settings in ``values``. Unknown keys are ignored; what is missing, of another type, out of bounds or not
        among the choices takes its default."""
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        picked = {f.name: _fitted(values[f.name], f) for f in fields if f.name in values}
        return cls(**{name: value for name, value in picked.items() if value is not None})


def _fitted(value: Any, field: dataclasses.Field[Any]) -> Any:
    """``value`` as a value for ``field``, None if it cannot be one."""
    default, meta = field.default, field.metadata
    if isinstance(default, Values):
        return type(default).from_dict(cast("dict[str, Any]", value)) if isinstance(value, dict) else None
    if isinstance(default, tuple):
        parts = cast("list[Any]", value) if isinstance(value, list | tuple) else [None]
        return tuple(parts) if all(isinstance(part, str) for part in parts) else None
    if isinstance(default, float) and type(value) is int and abs(value) <= 2**53:
        value = float(value)
    if type(value) is not type(default) or value not in meta.get("choices", (value,)):
        return None
    if isinstance(value, int | float):
        low, high = meta.get("minimum", -(2**53)), meta.get("maximum", 2**53)
        return value if low <= value <= high else None  # NaN is in no bounds
    return value


@dataclass(frozen=True)
class ModelSettings(Values):
    """What a change of needs the weights loaded anew."""

    n_gpu_layers: int = field(
        default=-1,
        metadata=described(
            "GPU Offload",
            "Layers held by the GPU, counted from the output; -1 is all, 0 leaves the GPU alone altogether.",
            unit="layers",
            minimum=-1,
            minimum_means="all",
        ),
    )
    n_cpu_moe: int = field(
        default=0,
        metadata=described(
            "Experts in RAM",
            "Layers of a mixture of experts whose experts stay in RAM, counted from the first; -1 is all. The rest of "
            "such a layer stays on the GPU, and only a few experts are read for each token.",
            unit="layers",
            minimum=-1,
            minimum_means="all",
        ),
    )
    use_mmap: bool = field(
        default=True, metadata=described("Memory-map Weights", "Map the file instead of copying it.")
    )
    use_extra_bufts: bool = field(
        default=True,
        metadata=described("CPU Repacking", "Keep repacked copies of weights that this CPU computes faster with."),
    )
    rpc_servers: tuple[str, ...] = field(
        default=(),
        metadata=described(
            "Network Workers",
            "llama.cpp RPC workers as host:port, each a device of its own.",
            metavar="HOST:PORT",
            flag_help="use a network worker; may be repeated",
        ),
    )


@dataclass(frozen=True)
class ContextSettings(Values):
    """What a change of needs only a new context; the weights stay loaded."""

    n_ctx: int = field(
        default=8192,
        metadata=described(
            "Context Length",
            "Tokens the conversation may hold (n_ctx); 0 is the model's own.",
            unit="tokens",
            minimum=0,
            minimum_means="the model's own",
            step=256,
        ),
    )
    type_k: str = field(
        default="f16",
        metadata=described("K Cache Quantization Type", "Type of cached keys.", choices=CACHE_TYPES, short="K cache"),
    )
    type_v: str = field(
        default="f16",
        metadata=described(
            "V Cache Quantization Type",
            "Type of cached values; quantized needs Flash Attention.",
            choices=CACHE_TYPES,
            short="V cache",
        ),
    )
    flash_attn: str = field(
        default="auto",
        metadata=described("Flash Attention", "Fused attention; auto lets llama.cpp decide.", choices=FLASH_ATTN),
    )
    offload_kqv: bool = field(
        default=True,
        metadata=described(
            "KV Cache on the GPU", "Keep the cache of the GPU's layers there; off keeps all of it in RAM."
        ),
    )
    n_batch: int = field(
        default=2048,
        metadata=described(
            "Evaluation Batch Size", "Prompt tokens handed over at once (n_batch).", unit="tokens", minimum=1
        ),
    )
    n_ubatch: int = field(
        default=512,
        metadata=described("Physical Batch Size", "Tokens computed at once (n_ubatch).", unit="tokens", minimum=1),
    )
    swa_full: bool = field(
        default=False,
        metadata=described(
            "Full Sliding Window Cache", "Keep all tokens in sliding-window layers too; costs much memory."
        ),
    )
    n_seq_max: int = field(
        default=1,
        metadata=described(
            "Parallel Sequences", "Conversations computed side by side.", unit="sequences", minimum=1, maximum=256
        ),
    )
    n_threads: int = field(
        default=0,
        metadata=described(
            "Threads",
            "CPU threads; 0 is one per physical core.",
            unit="threads",
            minimum=0,
            minimum_means="one per core",
        ),
    )
    allocation: str = field(
        default="grow",
        metadata=described(
            "Allocation", "Grow with the chat, or reserve the whole context at once.", choices=ALLOCATIONS
        ),
    )
    initial_ctx: int = field(
        default=2048,
        metadata=described(
            "Initial Context", "Cells to start with when growing.", unit="tokens", minimum=256, step=256
        ),
    )


@dataclass(frozen=True)
class EngineSettings(Values):
    """Everything one loaded model runs with."""

    model: ModelSettings = ModelSettings()
    context: ContextSettings = ContextSettings()


def short_room(capacity_bytes: int | None) -> int:
    """What is little room in a memory domain: 1 GiB, or a tenth of it if that is less; bytes."""
    return 1024 * MIB if capacity_bytes is None else min(1024 * MIB, capacity_bytes // 10)


def kept_free(margin_bytes: int, capacity_bytes: int | None) -> int:
    """What a margin keeps free of a domain: itself; an automatic one what is little room there."""
    return margin_bytes if margin_bytes >= 0 else short_room(capacity_bytes)


def pad256(n: int) -> int:
    """``n`` cells as llama.cpp pads them: up to a multiple of 256 (llama-context.cpp, GGML_PAD(n_ctx, 256))."""
    return (n + 255) // 256 * 256


def context_problems(
    settings: ContextSettings, head_sizes_k: tuple[int, ...] = (), head_sizes_v: tuple[int, ...] = ()
) -> dict[str, str]:
    """Field name -> why llama.cpp would refuse its value; empty when all is possible.

    ``head_sizes_k`` and ``head_sizes_v`` are the model's K and V head sizes (values per head, over all layers),
    empty while no model is chosen. Source: llama-context.cpp, llama_init_from_model.
    """
    problems: dict[str, str] = {}
    if settings.type_v in QUANTIZED_CACHE_TYPES and settings.flash_attn == "off":
        problems["type_v"] = "V quantization needs Flash Attention"
    for name, value, sizes in (
        ("type_k", settings.type_k, head_sizes_k),
        ("type_v", settings.type_v, head_sizes_v),
    ):
        if value not in CACHE_TYPES:
            problems[name] = f"unknown cache type {value!r}; possible: {', '.join(CACHE_TYPES)}"
            continue
        block = BY_NAME[value].block_values
        odd = [size for size in sizes if size % block]
        if odd:
            problems[name] = f"{value} packs {block} values a block, which does not divide the head size {odd[0]}"
    for name, choices in (("flash_attn", FLASH_ATTN), ("allocation", ALLOCATIONS)):
        if getattr(settings, name) not in choices:
            problems[name] = f"{getattr(settings, name)!r} is not one of {', '.join(choices)}"
    for f in dataclasses.fields(settings):
        low, high = f.metadata.get("minimum"), f.metadata.get("maximum")
        value = getattr(settings, f.name)
        if low is not None and value < low:
            problems[f.name] = f"{f.metadata['label']} is {value}; the least is {low}"
        if high is not None and value > high:
            problems[f.name] = f"{f.metadata['label']} is {value}; the most is {high}"
    return problems
