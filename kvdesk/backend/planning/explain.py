"""Why a figure is what it is: the textbook formula beside the exact figure, and what accounts for the difference.

Pure arithmetic over a ModelFile and a Footprint, in sentences with the model's own numbers; nothing here prices a
configuration (that is the dry run's). Any thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.planning.device_plan import DevicePlan
from kvdesk.backend.planning.plan import MemoryPlan
from kvdesk.backend.protocol.facts import CHECKPOINTS_KEPT, BufferKind
from kvdesk.backend.protocol.footprint import Footprint
from kvdesk.backend.settings import BITS_PER_VALUE, ContextSettings
from kvdesk.sizes import format_bytes

TABLE_LENGTHS = (8192, 32768, 131072)
TABLE_TYPES = ("f16", "q8_0", "q4_0")


@dataclass(frozen=True)
class KvFacts:
    """The KV cache of one plan, taken apart. Bytes; ratios are "so many times smaller".

    ``formula_bytes``: 2 x layers x KV heads x head size x tokens x bytes per value, all layers and all tokens alike.
    ``every_head_bytes``: the same with a KV head for every attention head; ``shared_heads_ratio`` is what grouping
    them saves. ``window_saves_bytes``: what the sliding-window layers would take more if they kept every token.
    ``quantization_saves_bytes``: against f16.
    """

    formula_bytes: int
    exact_bytes: int
    every_head_bytes: int
    shared_heads_ratio: float
    window_saves_bytes: int
    quantization_saves_bytes: int
    reasons: tuple[str, ...]


def values_per_token(model: ModelFile) -> tuple[int, int]:
    """(K values, V values) that the textbook formula caches for one token: every layer of ``model`` as if it attended
    to everything and kept K and V of its own."""
    most = max(model.n_head_kv, default=0)
    heads = sum(n or most for n in model.n_head_kv)
    return heads * model.head_size_k, heads * model.head_size_v


def formula_bytes(model: ModelFile, n_ctx: int, settings: ContextSettings) -> int | None:
    """2 x layers x KV heads x head size x tokens x bytes per value; None for a model without attention."""
    k, v = values_per_token(model)
    if not k + v:
        return None
    bits = k * BITS_PER_VALUE[settings.type_k] + v * BITS_PER_VALUE[settings.type_v]
    return round(n_ctx * bits / 8)


def formula_words(model: ModelFile, n_ctx: int, settings: ContextSettings) -> str:
    """The formula with the model's numbers in it; "" without attention."""
    size = formula_bytes(model, n_ctx, settings)
    if size is None:
        return ""
    heads = _span(tuple(h for h in model.n_head_kv if h))
    same = model.head_size_k == model.head_size_v and settings.type_k == settings.type_v
    if same:
        per_value = BITS_PER_VALUE[settings.type_k] / 8
        parts = f"2 x {model.n_layer} layers x {heads} KV heads x {model.head_size_k} x {n_ctx:,} tokens x {per_value:g} bytes"
    else:
        k, v = (BITS_PER_VALUE[t] / 8 for t in (settings.type_k, settings.type_v))
        parts = (
            f"{model.n_layer} layers x {heads} KV heads x ({model.head_size_k} x {k:g} bytes of K + "
            f"{model.head_size_v} x {v:g} bytes of V) x {n_ctx:,} tokens"
        )
    return f"{parts} = {format_bytes(size)}"


def kv_facts(model: ModelFile, footprint: Footprint) -> KvFacts | None:
    """What makes the exact KV figure differ from the formula; None for a model without attention."""
    context = footprint.settings.context
    formula = formula_bytes(model, footprint.n_ctx, context)
    if formula is None:
        return None
    exact = footprint.bytes_of(BufferKind.KV)
    heads = [(every, kv) for every, kv in zip(model.n_head, model.n_head_kv, strict=True) if kv]
    ratio = sum(every for every, _ in heads) / sum(kv for _, kv in heads)
    reasons: list[str] = []
    window_saves = _window_saves(footprint)
    if window_saves:
        windowed = sum(model.windowed_layers)
        reasons.append(
            f"{windowed} of {model.n_layer} layers see only the last {model.sliding_window:,} tokens: "
            f"{format_bytes(window_saves)} less"
        )
    uncached = sum(not cached for cached in model.cached_layers)
    if uncached:
        why = "keep recurrent state instead" if any(model.recurrent_layers) else "read another layer's cache"
        reasons.append(f"{uncached} of {model.n_layer} layers {why}, so they have no KV cache")
    if model.caches_latent:
        reasons.append("latent attention (MLA) caches one compressed vector for K and V of all heads")
    if any(cache.name == "indexer" or "indexer" in cache.name for cache in footprint.caches):
        reasons.append("an indexer that picks tokens keeps a small cache of its own")
    if footprint.n_ctx > footprint.n_ctx_seq:
        reasons.append(f"{footprint.n_ctx // footprint.n_ctx_seq} conversations share the {footprint.n_ctx:,} cells")
    if not reasons and abs(exact - formula) > 0.01 * formula:
        reasons.append("llama.cpp lays this architecture's cache out differently from the formula")
    return KvFacts(
        formula_bytes=formula,
        exact_bytes=exact,
        every_head_bytes=round(formula * ratio),
        shared_heads_ratio=ratio,
        window_saves_bytes=window_saves,
        quantization_saves_bytes=_quantization_saves(footprint),
        reasons=tuple(reasons),
    )


def why(figure: str, plan: MemoryPlan, device: DevicePlan, model: ModelFile) -> tuple[str, ...]:
    """Sentences that answer "why" for one figure of the plan table.

    ``figure``: "weights", "mapped", "kv", "recurrent", "compute", "output", "overhead", "checkpoints", "total", "must_hold",
    "droppable", "others", "ceiling", "line". Empty for a figure that is zero.
    """
    context = plan.settings.context
    if figure == "kv" and plan.footprint and device.kv_bytes:
        return _why_kv(plan, plan.footprint, model)
    words = {
        "weights": f"{len(model.tensors)} tensors, {model.quantization}; "
        f"{format_bytes(device.weights_bytes)} of {format_bytes(model.tensor_bytes)} lie here",
        "mapped": f"{format_bytes(device.weights_mapped_bytes)} are pages of the file: the system may drop and read them "
        "again, slowly, so they never cause a crash by themselves",
        "recurrent": f"{sum(model.recurrent_layers)} recurrent layers keep a state of fixed size; "
        "it does not grow with the context",
        "compute": f"scratch for the largest graph: {context.n_ubatch:,} tokens at once against {plan.n_ctx:,} cells, "
        f"Flash Attention {'on' if plan.flash_attn else 'off'}; {format_bytes(device.resident_bytes)} of the total are "
        "touched by a first batch",
        "output": f"{model.n_vocab:,} logits x 4 bytes x {context.n_seq_max} sequence"
        f"{'s' if context.n_seq_max > 1 else ''}",
        "overhead": "the program, its libraries, the vocabulary and the graph, in none of llama.cpp's buffers; "
        + ("measured here" if device.overhead_learned else "a typical value until the first load measures it"),
        "checkpoints": f"points of a long conversation that the engine can go back to without reading it again, at most "
        f"{CHECKPOINTS_KEPT}; they come with its turns",
        "total": "everything above together, as reserved",
        "must_hold": "what nobody can take back from the engine: beyond the ceiling it is killed",
        "droppable": "pages of the model file: where memory is short they are dropped and read again for each token, which "
        "is slow and no crash",
        "others": "what other programs and the system hold and will not give back",
        "ceiling": "what the engine may hold in all before this memory is exhausted, now",
        "line": "the ceiling less the margin that is kept free",
    }
    sizes = {
        "mapped": device.weights_mapped_bytes,
        "output": device.output_bytes,
        "recurrent": device.recurrent_bytes,
        "checkpoints": device.checkpoints_bytes,
    }
    if figure not in words or not sizes.get(figure, 1):
        return ()
    return (words[figure] + ".",)


def _why_kv(plan: MemoryPlan, footprint: Footprint, model: ModelFile) -> tuple[str, ...]:
    facts = kv_facts(model, footprint)
    if facts is None:
        return ()
    context = plan.settings.context
    lines = [f"The formula: {formula_words(model, footprint.n_ctx, context)}."]
    if abs(facts.exact_bytes - facts.formula_bytes) > 0.01 * facts.formula_bytes:
        lines.append(f"Exact: {format_bytes(facts.exact_bytes)}, because {'; '.join(facts.reasons)}.")
    if facts.shared_heads_ratio > 1:
        lines.append(
            f"Grouped-query attention makes it {facts.shared_heads_ratio:.3g}x smaller "
            f"(every head its own K and V: {format_bytes(facts.every_head_bytes)})."
        )
    if facts.quantization_saves_bytes > 0:
        lines.append(
            f"{context.type_k} K and {context.type_v} V save {format_bytes(facts.quantization_saves_bytes)} against f16."
        )
    if plan.kv.bytes_per_token:
        lines.append(f"One more token of context costs {plan.kv.bytes_per_token / 1024:,.3g} KiB.")
    return tuple(lines)


def _window_saves(footprint: Footprint) -> int:
    """What the caches shorter than the conversation would take more at its full length."""
    longest = footprint.n_ctx_seq
    return sum(
        cache.size_bytes * longest // cache.cells - cache.size_bytes
        for cache in footprint.caches
        if 0 < cache.cells < longest
    )


def _quantization_saves(footprint: Footprint) -> int:
    context = footprint.settings.context
    bits = (BITS_PER_VALUE[context.type_k] + BITS_PER_VALUE[context.type_v]) / 2
    return round(footprint.bytes_of(BufferKind.KV) * (16 / bits - 1)) if bits < 16 else 0


def _span(values: tuple[int, ...]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
