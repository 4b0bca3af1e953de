"""What llama.cpp knows of an architecture by its name alone: recurrent, hybrid, windowed, or unable to chat.

Pure tables for reading headers and explaining them; exact figures come from the dry run. Any thread or process.
An architecture that is not listed here is taken for plain causal attention. Source: llama.cpp of llama-cpp-python
0.3.36, src/llama-arch.cpp and src/models/*.cpp (load_arch_hparams).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
"""No attention at all (llm_arch_is_recurrent)."""

HYBRID = frozenset({
    "jamba", "falcon-h1", "plamo2", "granitehybrid", "lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe", "qwen3next",
    "kimi-linear", "bailingmoe3", "kimi-k3", "glm5-next", "qwen35", "qwen35moe", "qwen4exp", "deepseek4", "minimax-01",
})  # fmt: skip
"""Recurrent state beside attention (llm_arch_is_hybrid)."""

RECURRENT_BY_INTERVAL: Mapping[str, int] = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4, "minimax-01": 8}
"""Hybrids whose every n-th layer attends, with the default n; in the others a layer without KV heads is recurrent."""

MLA = frozenset({
    "deepseek2", "deepseek2-ocr", "deepseek32", "glm-dsa", "dots3note", "kimi-linear", "bailingmoe3", "kimi-k3",
    "glm5-next", "hy_v4", "mistral4", "minicpm3", "plm",
})  # fmt: skip
"""Multi-head latent attention. Only with ``attention.key_length_mla`` in the file is the latent what is cached."""

EMBEDDING = frozenset({
    "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
    "gemma-embedding", "llama-embed", "t5encoder",
})  # fmt: skip
DIFFUSION = frozenset({"dream", "llada", "llada-moe", "rnd1"})
"""Text is not made token after token (llm_arch_is_diffusion)."""
ENCODER_DECODER = frozenset({"t5"})
SPEECH = frozenset({"wavtokenizer-dec", "qwen3tts", "pockettts"})
DRAFT = frozenset({"eagle3", "dflash", "gemma4-assistant"})
"""Helpers that speculate for another model and cannot run alone."""


NO_CACHE = DIFFUSION | EMBEDDING - {"llama-embed", "t5encoder"} | {"wavtokenizer-dec"}
"""No KV cache is made for these (llama-model.cpp, create_memory)."""
KEYS_ONLY = frozenset({"deepseek4"})
"""The cache holds K alone, from which V is computed, though it is no MLA by name."""


class Window(NamedTuple):
    """How an architecture uses a sliding window.

    Every ``period``-th layer sees everything (0: none does; None: the file's array says), the first of each period
    with ``dense_first``, the last otherwise. ``default`` is the window in tokens when the file names none (None: no
    window then); ``forced`` wins over the file.
    """

    period: int | None
    dense_first: bool = False
    default: int | None = None
    forced: int | None = None


WINDOWS: Mapping[str, Window] = {
    "afmoe": Window(4), "cohere2": Window(4), "cohere2moe": Window(4, dense_first=True), "deepseek4": Window(0),
    "dots3note": Window(None), "exaone-moe": Window(4, default=128), "gemma-embedding": Window(6),
    "gemma2": Window(2, default=4096), "gemma3": Window(6), "gemma3n": Window(5), "gemma4": Window(None),
    "gpt-oss": Window(2), "granite_swa": Window(None), "laguna": Window(4, dense_first=True), "lfm2": Window(0),
    "llama4": Window(4, default=8192, forced=8192), "maple": Window(None), "mellum": Window(4),
    "mimo2": Window(None), "modern-bert": Window(3, dense_first=True), "muse-glimmer": Window(4), "olmo2": Window(4),
    "plamo3": Window(8), "smallthinker": Window(4, dense_first=True, forced=4096), "spark2_5": Window(None),
    "step35": Window(None),
}  # fmt: skip
"""Architectures that use a window; others ignore the key. exaone4 does with exactly 64 layers."""

WINDOW_EXAONE4 = Window(4, default=4096)
EXAONE4_WINDOWED_LAYERS = 64
GEMMA3N_LAYERS_WITH_CACHE = 20
"""gemma3n: later layers read the cache of earlier ones."""
