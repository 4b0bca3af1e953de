"""Arithmetic over the GGUF tensor table, for when llama.cpp itself cannot be asked. Labelled an estimate. Pure.

Weights and plain KV caches come out right; graphs, repacked copies and the split between devices are guesses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvdesk.backend.gguf.architectures import DIFFUSION
from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.protocol.facts import Buffer, BufferKind, CacheBlock, Device
from kvdesk.backend.protocol.footprint import ESTIMATE, Footprint
from kvdesk.backend.settings import BITS_PER_VALUE, QUANTIZED_CACHE_TYPES, ContextSettings, EngineSettings, pad256

CPU = Device("CPU", "", "cpu", None, None)


def estimate(model: ModelFile, settings: EngineSettings, warnings: Sequence[str] = ()) -> Footprint:
    """The footprint of ``settings`` by arithmetic, everything in RAM. ``warnings`` say why it is no dry run."""
    context = settings.context
    n_seq = context.n_seq_max
    n_ctx_seq = pad256(-(-pad256(context.n_ctx or model.n_ctx_train or 256) // n_seq))
    flash_attn = context.flash_attn != "off"
    caches = _caches(model, context, n_ctx_seq)
    n_vocab = model.n_vocab or next((t.shape[1] for t in model.tensors if t.name == "token_embd.weight"), 0)
    sizes = {
        BufferKind.WEIGHTS: sum(tensor.size_bytes for tensor in model.tensors),
        BufferKind.KV: sum(cache.size_bytes for cache in caches),
        BufferKind.RECURRENT: _recurrent_bytes(model, n_seq),
        BufferKind.COMPUTE: _compute_bytes(model, context, n_ctx_seq, n_vocab, flash_attn),
        BufferKind.OUTPUT: n_vocab * 4 * n_seq,
    }
    mapped = settings.model.use_mmap
    buffers = tuple(
        Buffer("CPU", "CPU_Mapped" if mapped else "CPU", kind, size, mapped=mapped)
        if kind is BufferKind.WEIGHTS
        else Buffer("CPU", "CPU", kind, size)
        for kind, size in sizes.items()
        if size
    )
    all_in_ram = ("An estimate knows of no GPU: everything is counted as RAM.",) if settings.model.n_gpu_layers else ()
    return Footprint(
        settings, ESTIMATE, n_ctx_seq * n_seq, n_ctx_seq, flash_attn, buffers, caches, (CPU,), n_vocab,
        (*warnings, *all_in_ram),
    )  # fmt: skip


def _caches(model: ModelFile, context: ContextSettings, n_ctx_seq: int) -> tuple[CacheBlock, ...]:
    """The full cache and the window's (llama-kv-cache-iswa.cpp), from the layers' heads."""
    if not model.is_causal or model.architecture in DIFFUSION:
        return ()
    n_seq = context.n_seq_max
    found: list[CacheBlock] = []
    for windowed in (False, True):
        layers = [
            layer
            for layer in range(model.n_layer)
            if model.cached_layers[layer] and model.windowed_layers[layer] is windowed
        ]
        if not layers:
            continue
        cells = n_ctx_seq
        if windowed and model.sliding_window and not context.swa_full:
            ubatch = min(context.n_ubatch, context.n_batch, n_ctx_seq * n_seq)
            cells = pad256(min(n_ctx_seq, model.sliding_window + ubatch))
        size_k = model.head_size_k_swa if windowed else model.head_size_k
        size_v = model.head_size_v_swa if windowed else model.head_size_v
        k = sum(model.n_head_kv[layer] * size_k for layer in layers)
        v = 0 if model.caches_latent else sum(model.n_head_kv[layer] * size_v for layer in layers)
        if model.caches_latent:
            k = len(layers) * ((model.kv_lora_rank or 0) + _number(model, "rope.dimension_count"))
        bits = k * BITS_PER_VALUE[context.type_k] + v * BITS_PER_VALUE[context.type_v]
        size = round(cells * n_seq * bits / 8)
        name = "SWA" if windowed else "KV"
        found.append(CacheBlock(name, cells, len(layers), size, context.type_k, context.type_v if v else ""))
    return tuple(found)


def _recurrent_bytes(model: ModelFile, n_seq: int) -> int:
    """Convolution and state-space rows in f32 (llama-hparams.cpp, n_embd_r and n_embd_s); short convolutions and RWKV too."""
    layers = sum(model.recurrent_layers)
    inner, conv = _number(model, "ssm.inner_size"), _number(model, "ssm.conv_kernel")
    state, groups = _number(model, "ssm.state_size"), _number(model, "ssm.group_count")
    short_conv, wkv_head = _number(model, "shortconv.l_cache"), _number(model, "wkv.head_size")
    values = 0
    if inner:
        values = max(0, conv - 1) * (inner + 2 * groups * state) + inner * state
    elif short_conv:
        values = model.n_embd * (short_conv - 1)
    elif wkv_head:
        values = model.n_embd * (_number(model, "token_shift_count") or 2) + model.n_embd * wkv_head
    return layers * values * 4 * n_seq


def _compute_bytes(model: ModelFile, context: ContextSettings, n_ctx_seq: int, n_vocab: int, flash_attn: bool) -> int:
    """A guess: activations of one batch, the attention mask, scores where they are not fused, one row of logits."""
    tokens = min(context.n_ubatch, context.n_batch, n_ctx_seq)
    n_ff = max((_per_layer(model, "feed_forward_length")), default=0) or 4 * model.n_embd
    activations = tokens * (6 * model.n_embd + 3 * n_ff) * 4
    heads = max(model.n_head, default=0)
    attention = tokens * n_ctx_seq * 2 if flash_attn else tokens * n_ctx_seq * (4 + 4 * heads)
    if flash_attn and (context.type_k in QUANTIZED_CACHE_TYPES or context.type_v in QUANTIZED_CACHE_TYPES):
        activations += tokens * model.n_embd * 4
    return activations + (attention if heads else 0) + n_vocab * 4 * context.n_seq_max


def _number(model: ModelFile, key: str) -> int:
    value = model.metadata.get(f"{model.architecture}.{key}", 0)
    return value if isinstance(value, int) else 0


def _per_layer(model: ModelFile, key: str) -> tuple[int, ...]:
    values: Mapping[str, object] = model.metadata
    value = values.get(f"{model.architecture}.{key}", 0)
    if isinstance(value, tuple):
        return tuple(item for item in value if isinstance(item, int))  # pyright: ignore[reportUnknownVariableType]
    return (value,) if isinstance(value, int) else ()
