"""What a header says of a model's layers: which attend, which see only a window, which keep state, how heads share K and V.

The rules are llama.cpp's (the docstrings say where from), the names it knows architectures.py's. Any thread or process.
"""

from __future__ import annotations

from kvdesk.backend.gguf import architectures
from kvdesk.backend.gguf.metadata import HeaderFacts

MAX_EXPERTS = 1024
"""llama-hparams.h, LLAMA_MAX_EXPERTS."""


def window(facts: HeaderFacts, n_layer: int, n_layer_all: int) -> tuple[int | None, tuple[bool, ...]]:
    """The sliding window in tokens, and which layers see only it (llama-model.cpp, load_swa_pattern)."""
    use = architectures.WINDOWS.get(facts.architecture)
    if facts.architecture == "exaone4" and n_layer == architectures.EXAONE4_WINDOWED_LAYERS:
        use = architectures.WINDOW_EXAONE4
    tokens = facts.of_arch("attention.sliding_window", use.default or 0) if use else 0
    if use is None or not tokens:
        return None, (False,) * n_layer
    key = f"{facts.architecture}.attention.sliding_window_pattern"
    pattern = facts.metadata.get(key, use.period)
    if isinstance(pattern, tuple):
        if len(pattern) > n_layer_all:
            raise facts.fault(key, f"{key} has {len(pattern)} values for {n_layer_all} layers")
        flags = [bool(value) for value in pattern] + [False] * (n_layer_all - len(pattern))
        return use.forced or tokens, tuple(flags[:n_layer])
    if use.period == 0:
        return use.forced or tokens, (True,) * n_layer
    period = facts.integer(key, use.period)
    full = 0 if use.dense_first else period - 1
    return use.forced or tokens, tuple(period == 0 or layer % period != full for layer in range(n_layer))


def recurrent_layers(facts: HeaderFacts, n_layer: int, n_layer_all: int, heads_kv: tuple[int, ...]) -> tuple[bool, ...]:
    """Which layers keep recurrent state (is_recr_impl in src/models/*.cpp)."""
    architecture = facts.architecture
    if architecture in architectures.RECURRENT:
        return (True,) * n_layer
    if architecture not in architectures.HYBRID or architecture == "deepseek4":
        return (False,) * n_layer
    if architecture == "falcon-h1":
        return (True,) * n_layer
    default_interval = architectures.RECURRENT_BY_INTERVAL.get(architecture)
    if default_interval is None:
        n_ff = facts.per_layer("feed_forward_length", n_layer_all, 0)
        attends_or_feeds = n_ff if architecture.startswith("nemotron_h") else (0,) * n_layer_all
        return tuple(heads_kv[layer] == 0 and attends_or_feeds[layer] == 0 for layer in range(n_layer))
    key = f"{architecture}.attention.recurrent_layers"
    listed = facts.metadata.get(key)
    if isinstance(listed, tuple):
        if len(listed) != n_layer_all:
            raise facts.fault(key, f"{key} has {len(listed)} values for {n_layer_all} layers")
        return tuple(bool(value) for value in listed[:n_layer])
    interval = facts.of_arch("full_attention_interval", default_interval)
    if interval == 0:
        raise facts.fault(f"{architecture}.full_attention_interval", "full_attention_interval is 0")
    return tuple((layer + 1) % interval != 0 for layer in range(n_layer))


def attending_layers(facts: HeaderFacts, n_head_kv: tuple[int, ...], recurrent: tuple[bool, ...]) -> tuple[bool, ...]:
    """Which layers have attention (the layer filters in llama-model.cpp, create_memory)."""
    both = facts.architecture == "falcon-h1"
    return tuple(heads > 0 and (both or not state) for heads, state in zip(n_head_kv, recurrent, strict=True))


def cached_layers(facts: HeaderFacts, attending: tuple[bool, ...]) -> tuple[bool, ...]:
    """Which of them keep K and V of their own (llama-hparams.cpp, has_kv)."""
    last = len(attending)
    if facts.architecture in architectures.NO_CACHE:
        last = 0
    elif facts.architecture == "gemma3n":
        last = architectures.GEMMA3N_LAYERS_WITH_CACHE
    elif facts.architecture == "gemma4":
        last -= facts.of_arch("attention.shared_kv_layers", 0)
    return tuple(attends and layer < last for layer, attends in enumerate(attending))


def experts(facts: HeaderFacts, n_layer_all: int) -> tuple[int, int]:
    """Experts in a layer, and how many of them a token uses; llama.cpp aborts on pairs that are refused here."""
    count = facts.of_arch("expert_count", 0)
    used = max(facts.per_layer("expert_used_count", n_layer_all, 0))
    if facts.architecture in ("hunyuan-dense", "hunyuan_vl") and count <= 1:
        return 0, 0
    if count > MAX_EXPERTS or used > count or (count > 0 and used == 0):
        raise facts.fault(
            f"{facts.architecture}.expert_used_count", f"{used} of {count} experts are used, which is impossible"
        )
    return count, used


def attention_labels(
    n_head: tuple[int, ...],
    n_head_kv: tuple[int, ...],
    attending: tuple[bool, ...],
    is_mla: bool,
    caches_mla: bool,
    window: int | None,
    recurrent: tuple[bool, ...],
    is_hybrid: bool,
) -> tuple[str, ...]:
    """Labels that apply, most general first: hybrid or recurrent, then how heads share K and V, then SWA."""
    kinds = {
        "MHA" if kv == heads else "MQA" if kv == 1 else "GQA"
        for heads, kv, attends in zip(n_head, n_head_kv, attending, strict=True)
        if attends
    }
    labels = ["hybrid"] if is_hybrid else ["recurrent"] if any(recurrent) else []
    labels += ["MLA"] if is_mla else []
    labels += [] if caches_mla else [kind for kind in ("MHA", "GQA", "MQA") if kind in kinds]
    labels += ["SWA"] if window else []
    return tuple(labels)
