"""What makes a tiny model of each architecture: the metadata it needs beyond the common keys, and what it leaves out.

Data only; tiny_models.py writes the files. Keys are llama.cpp's without the architecture's prefix; a value may be a
function of the Dims, so that it follows ``n_layer`` and the like. Tensor shapes are not here: llama.cpp tells them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Value = int | float | bool | str | list[int] | list[float] | list[bool]


@dataclass(frozen=True)
class Dims:
    """Sizes that every architecture has."""

    n_layer: int = 2
    n_ctx_train: int = 4096
    n_embd: int = 256
    n_head: int = 4
    n_head_kv: int = 2
    n_ff: int = 128
    n_vocab: int = 512

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head if self.n_head else 0


@dataclass(frozen=True)
class Recipe:
    """One architecture. ``dims`` differ from the defaults of Dims, ``metadata`` goes beyond the common keys (None takes
    one away), ``without`` is a pattern of optional tensors that real models of this kind lack. ``embedding`` is the
    spread of the token embeddings; smaller where the architecture multiplies them, or a token would only repeat itself.
    """

    dims: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, Value | Callable[[Dims], Value] | None] = field(default_factory=dict)
    without: str = ""
    embedding: float = 0.2


def every(period: int) -> Callable[[Dims], list[int]]:
    """Head counts of a hybrid: every ``period``-th layer has KV heads, the others none."""
    return lambda dims: [dims.n_head_kv if layer % period == period - 1 else 0 for layer in range(dims.n_layer)]


def alternate(dims: Dims) -> list[int]:
    """Odd layers use the sliding window."""
    return [layer % 2 for layer in range(dims.n_layer)]


def sections(dims: Dims) -> list[int]:
    """Rotary pairs for time, height and width (multimodal rope), all that a head has."""
    pairs = dims.head_size // 2
    return [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3, 0]


SMALL: Mapping[str, int] = {"n_embd": 128, "n_head": 2, "n_head_kv": 1}
DEEP: Mapping[str, int] = {**SMALL, "n_layer": 4}
GROUPED: Mapping[str, int] = {"n_embd": 128, "n_head": 4, "n_head_kv": 2}
FULL_HEADS: Mapping[str, int] = {**SMALL, "n_head_kv": 2}

MOE: Mapping[str, Value] = {
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_feed_forward_length": 64,
}
SHARED_MOE: Mapping[str, Value] = {
    **MOE,
    "expert_shared_count": 1,
    "expert_shared_feed_forward_length": 64,
    "expert_gating_func": 2,
    "expert_weights_scale": 1.0,
    "expert_weights_norm": True,
    "leading_dense_block_count": 1,
}
WINDOW: Mapping[str, Value] = {"attention.sliding_window": 256}
MLA: Mapping[str, Value] = {
    "attention.q_lora_rank": 64,
    "attention.kv_lora_rank": 64,
    "attention.key_length": 96,
    "attention.value_length": 64,
    "attention.key_length_mla": 64,
    "attention.value_length_mla": 32,
    "attention.head_count_kv": 1,
    "rope.dimension_count": 32,
}
MAMBA2: Mapping[str, Value] = {
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 256,
    "ssm.state_size": 32,
    "ssm.time_step_rank": 4,
    "ssm.group_count": 2,
}
DELTA: Mapping[str, Value] = {**MAMBA2, "ssm.state_size": 64}
"""Gated delta nets: keys and values of one size."""
INDEXER: Mapping[str, Value] = {
    "attention.indexer.head_count": 4,
    "attention.indexer.key_length": 64,
    "attention.indexer.top_k": 4096,
}
"""Sparse attention that leaves nothing out at tiny lengths."""
HYPER: Mapping[str, Value] = {
    "hyper_connection.count": 4,
    "hyper_connection.sinkhorn_iterations": 2,
    "hyper_connection.epsilon": 1e-6,
}
KDA: Mapping[str, Value] = {"kda.head_dim": 64, "ssm.conv_kernel": 4, "kda.gate_lower_bound": -5.0}
NO_HEADS: Mapping[str, int] = {"n_layer": 4, "n_embd": 128, "n_head": 0, "n_head_kv": 0, "n_ff": 0}
TIED = r"output\.weight"
BIASES = r"(?!.*(ssm_dt|exp_probs_b|indexer)).*\.bias"
TIED_BIASES = rf"{TIED}|{BIASES}"

RECIPES: Mapping[str, Recipe] = {
    # attention: every layer alike
    "llama": Recipe(without=BIASES),
    "qwen2": Recipe(GROUPED, {"rope.freq_base": 1e6}, TIED),
    "qwen3": Recipe(DEEP, {"attention.key_length": 128, "attention.value_length": 128}, TIED_BIASES),
    "phi3": Recipe(SMALL, {"rope.dimension_count": 64}, BIASES),
    "gpt2": Recipe(DEEP | {"n_head_kv": 2}, {}, TIED, 0.05),
    "starcoder": Recipe(SMALL),
    "starcoder2": Recipe(SMALL),
    "falcon": Recipe(SMALL, {}, r".*attn_norm_2.*"),
    "command-r": Recipe(SMALL, {"logit_scale": 0.0625}, TIED_BIASES),
    "glm4": Recipe(SMALL, {"rope.dimension_count": 32}),
    "smollm3": Recipe(DEEP, {}, TIED_BIASES),
    "stablelm": Recipe(SMALL, {"rope.dimension_count": 16}),
    "gptneox": Recipe(FULL_HEADS, {"use_parallel_residual": True, "rope.dimension_count": 16}),
    "mpt": Recipe(
        DEEP | {"n_head_kv": 2}, {"attention.max_alibi_bias": 8.0}, rf"{TIED_BIASES}|.*attn_k_norm.*|.*\.scales", 0.05
    ),
    "bloom": Recipe(FULL_HEADS),
    "baichuan": Recipe(FULL_HEADS, {}, BIASES),
    "refact": Recipe(SMALL, {}, BIASES),
    "qwen": Recipe(FULL_HEADS, {"rope.dimension_count": 64}),
    "qwen2vl": Recipe(SMALL, {"rope.dimension_sections": sections}),
    "qwen3vl": Recipe(SMALL, {"rope.dimension_sections": sections, "n_deepstack_layers": 0}),
    "phi2": Recipe(FULL_HEADS, {"rope.dimension_count": 32}),
    "plamo": Recipe(SMALL, {}, BIASES),
    "codeshell": Recipe(SMALL, {"rope.dimension_count": 64}),
    "orion": Recipe(SMALL),
    "internlm2": Recipe(GROUPED, {}, BIASES),
    "minicpm": Recipe(SMALL, {"embedding_scale": 1.0, "residual_scale": 1.0, "logit_scale": 1.0}, TIED_BIASES),
    "gemma": Recipe(DEEP, {}, TIED_BIASES, 0.01),
    "xverse": Recipe(FULL_HEADS, {}, BIASES),
    "olmo": Recipe(SMALL, {}, BIASES),
    "openelm": Recipe(SMALL, {}, TIED_BIASES),
    "chatglm": Recipe(SMALL, {"rope.dimension_count": 32}),
    "bitnet": Recipe(SMALL, {}, TIED_BIASES),
    "jais": Recipe(FULL_HEADS, {"attention.max_alibi_bias": 8.0}),
    "jais2": Recipe(FULL_HEADS),
    "nemotron": Recipe(SMALL),
    "exaone": Recipe(SMALL, {}, TIED_BIASES),
    "granite": Recipe(
        SMALL,
        {"embedding_scale": 1.0, "residual_scale": 1.0, "logit_scale": 1.0, "attention.scale": 0.125},
        TIED_BIASES,
    ),
    "arcee": Recipe(SMALL, {}, BIASES),
    "ernie4_5": Recipe(SMALL, {}, BIASES),
    "hunyuan-dense": Recipe(SMALL, {}, TIED_BIASES),
    "seed_oss": Recipe(GROUPED),
    "apertus": Recipe(
        SMALL, {"/xielu.alpha_n": 0.8, "/xielu.alpha_p": 0.8, "/xielu.beta": 0.5, "/xielu.eps": 1e-6}, BIASES
    ),
    "pangu-embedded": Recipe(SMALL),
    "mistral3": Recipe(GROUPED, {}, BIASES),
    "maincoder": Recipe(SMALL, {}, BIASES),
    "deci": Recipe(SMALL, {}, BIASES),
    "cogvlm": Recipe(SMALL, {}, BIASES),
    "paddleocr": Recipe(SMALL, {"rope.dimension_sections": sections}, BIASES),
    "hunyuan_vl": Recipe(SMALL, {"rope.dimension_sections": sections}, BIASES),
    "talkie": Recipe(SMALL, {"logit_scale": 1.0}, BIASES),
    "nanbeige": Recipe(SMALL, {}, BIASES),
    "hrm_text": Recipe(
        {**SMALL, "n_layer": 6}, {"hrm.layers_per_stack": 1, "hrm.h_cycles": 2, "hrm.l_cycles": 2}, BIASES
    ),
    # sliding windows
    "gemma3": Recipe(
        {**SMALL, "n_layer": 6},
        {**WINDOW, "attention.key_length": 64, "attention.value_length": 64},
        TIED_BIASES,
        0.02,
    ),
    "gemma2": Recipe(DEEP, WINDOW, TIED_BIASES, 0.01),
    "gemma3n": Recipe(
        {"n_layer": 22, "n_embd": 64, "n_head": 1, "n_head_kv": 1, "n_ff": 64, "n_vocab": 400},
        WINDOW,
        TIED_BIASES,
        0.04,
    ),
    "gemma4": Recipe(
        {**SMALL, "n_layer": 6},
        {
            **WINDOW,
            "attention.sliding_window_pattern": lambda d: [1 - flag for flag in alternate(d)],
            "attention.key_length_swa": 64,
            "attention.value_length_swa": 64,
            "embedding_length_per_layer_input": 32,
            "attention.shared_kv_layers": 2,
        },
        TIED_BIASES,
        0.04,
    ),
    "cohere2": Recipe(DEEP, {**WINDOW, "logit_scale": 0.0625}, TIED_BIASES),
    "olmo2": Recipe({**GROUPED, "n_layer": 4}, WINDOW, BIASES),
    "exaone4": Recipe({**GROUPED, "n_layer": 4}, WINDOW, TIED_BIASES),
    "plamo3": Recipe({**DEEP, "n_layer": 8}, WINDOW, BIASES),
    "granite_swa": Recipe(
        DEEP,
        {
            **WINDOW,
            "attention.sliding_window_pattern": alternate,
            "embedding_scale": 1.0,
            "residual_scale": 1.0,
            "logit_scale": 1.0,
            "attention.scale": 0.125,
        },
        BIASES,
    ),
    "muse-glimmer": Recipe(DEEP, {**WINDOW, "logit_scale": 1.0}, BIASES),
    "maple": Recipe(
        DEEP, {**WINDOW, **MOE, "attention.sliding_window_pattern": alternate, "swiglu_clamp_exp": 7.0}, BIASES
    ),
    "spark2_5": Recipe(DEEP, {**WINDOW, "attention.sliding_window_pattern": alternate}, BIASES),
    # mixtures of experts
    "qwen3moe": Recipe(SMALL, MOE, BIASES),
    "qwen2moe": Recipe(SMALL, SHARED_MOE),
    "gpt-oss": Recipe({**GROUPED, "n_layer": 4}, {**WINDOW, **MOE}),
    "llama4": Recipe(DEEP, {**SHARED_MOE, "interleave_moe_layer_step": 2}, BIASES),
    "grok": Recipe(SMALL, MOE, BIASES),
    "qwen3vlmoe": Recipe(SMALL, {**MOE, "rope.dimension_sections": sections}, BIASES),
    "phimoe": Recipe(SMALL, MOE),
    "dbrx": Recipe(SMALL, {**MOE, "attention.clamp_kqv": 8.0}, BIASES),
    "olmoe": Recipe(FULL_HEADS, MOE, BIASES),
    "arctic": Recipe(SMALL, MOE, BIASES),
    "deepseek": Recipe(SMALL, SHARED_MOE, BIASES),
    "glm4moe": Recipe(SMALL, SHARED_MOE),
    "exaone-moe": Recipe(DEEP, {**WINDOW, **SHARED_MOE}, BIASES),
    "bailingmoe": Recipe(SMALL, SHARED_MOE, BIASES),
    "bailingmoe2": Recipe(SMALL, SHARED_MOE, BIASES),
    "dots1": Recipe(FULL_HEADS, SHARED_MOE, BIASES),
    "afmoe": Recipe(DEEP, {**WINDOW, **SHARED_MOE}, BIASES),
    "laguna": Recipe(DEEP, {**WINDOW, **SHARED_MOE}, BIASES),
    "ernie4_5-moe": Recipe(SMALL, {**SHARED_MOE, "interleave_moe_layer_step": 1}, BIASES),
    "hunyuan-moe": Recipe(SMALL, SHARED_MOE, BIASES),
    "hy_v3": Recipe(SMALL, SHARED_MOE, BIASES),
    "smallthinker": Recipe(DEEP, {**WINDOW, **MOE, "expert_gating_func": 2}, BIASES),
    "grovemoe": Recipe(
        SMALL,
        {**MOE, "expert_chunk_feed_forward_length": 32, "expert_group_scale": 0.05, "experts_per_group": 2},
        BIASES,
    ),
    "minimax-m2": Recipe(SMALL, {**MOE, "expert_gating_func": 2}, BIASES),
    "cohere2moe": Recipe(DEEP, {**WINDOW, **SHARED_MOE, "logit_scale": 0.0625}, BIASES),
    "granitemoe": Recipe(
        SMALL,
        {**MOE, "embedding_scale": 1.0, "residual_scale": 1.0, "logit_scale": 1.0, "attention.scale": 0.125},
        TIED_BIASES,
    ),
    "mimo2": Recipe(DEEP, {**WINDOW, **MOE, "attention.sliding_window_pattern": alternate, "expert_gating_func": 2}),
    "step35": Recipe(DEEP, {**WINDOW, **SHARED_MOE, "attention.sliding_window_pattern": alternate}, BIASES),
    "mellum": Recipe(DEEP, {**WINDOW, **MOE}, BIASES),
    # latent attention
    "deepseek2": Recipe(SMALL, {**SHARED_MOE, **MLA}, BIASES),
    "deepseek32": Recipe(SMALL, {**SHARED_MOE, **MLA, **INDEXER}, BIASES),
    "minicpm3": Recipe(
        FULL_HEADS,
        {
            "attention.q_lora_rank": 64,
            "attention.kv_lora_rank": 64,
            "attention.key_length": 96,
            "rope.dimension_count": 32,
        },
        TIED_BIASES,
        0.01,
    ),
    "mistral4": Recipe(SMALL, {**SHARED_MOE, **MLA}, BIASES),
    "glm-dsa": Recipe(SMALL, {**SHARED_MOE, **MLA, **INDEXER}, BIASES),
    "hy_v4": Recipe(
        DEEP,
        {
            **SHARED_MOE,
            **MLA,
            **INDEXER,
            **HYPER,
            "hyper_connection.magnitude": 2.0,
            "swiglu_clamp_exp": 10.0,
            "attention.indexer.types": lambda d: [1 - flag for flag in alternate(d)],
        },
        BIASES,
    ),
    "dots3note": Recipe(
        DEEP,
        {
            **SHARED_MOE,
            **MLA,
            **INDEXER,
            **WINDOW,
            "attention.kv_lora_rank_swa": 64,
            "attention.key_length_swa": 96,
            "attention.value_length_swa": 64,
            "attention.key_length_mla_swa": 64,
            "attention.value_length_mla_swa": 32,
            "rope.freq_base_swa": 10000.0,
            "attention.sliding_window_pattern": alternate,
            "attention.indexer.types": lambda d: [1 - flag for flag in alternate(d)],
        },
        BIASES,
    ),
    "minimax-m3": Recipe(
        SMALL,
        {
            **SHARED_MOE,
            **INDEXER,
            "attention.indexer.head_count": 1,
            "attention.indexer.block_size": 4,
            "attention.indexer.local_blocks": 1,
            "rope.dimension_count": 32,
        },
        BIASES,
    ),
    # recurrent
    "mamba": Recipe(
        NO_HEADS,
        {"ssm.conv_kernel": 4, "ssm.inner_size": 256, "ssm.state_size": 16, "ssm.time_step_rank": 8},
        TIED,
    ),
    "mamba2": Recipe(NO_HEADS, MAMBA2, TIED),
    "rwkv6": Recipe(
        {**NO_HEADS, "n_ff": 256}, {"wkv.head_size": 64, "time_mix_extra_dim": 32, "time_decay_extra_dim": 32}
    ),
    "rwkv7": Recipe(
        {**NO_HEADS, "n_ff": 256},
        {
            "wkv.head_size": 64,
            "attention.decay_lora_rank": 32,
            "attention.iclr_lora_rank": 32,
            "attention.value_residual_mix_lora_rank": 32,
            "attention.gate_lora_rank": 32,
        },
    ),
    "rwkv6qwen2": Recipe(
        {**SMALL, "n_ff": 256},
        {"wkv.head_size": 64, "time_mix_extra_dim": 32, "time_decay_extra_dim": 32, "token_shift_count": 1},
        r".*time_mix_first.*",
    ),
    "arwkv7": Recipe(
        {**SMALL, "n_ff": 256},
        {
            "wkv.head_size": 64,
            "attention.decay_lora_rank": 32,
            "attention.iclr_lora_rank": 32,
            "attention.value_residual_mix_lora_rank": 32,
            "attention.gate_lora_rank": 32,
            "token_shift_count": 1,
        },
    ),
    # recurrent beside attention
    "lfm2": Recipe(DEEP, {"attention.head_count_kv": every(2), "shortconv.l_cache": 3}, TIED),
    "lfm2moe": Recipe(
        DEEP,
        {
            **MOE,
            "attention.head_count_kv": every(2),
            "shortconv.l_cache": 3,
            "expert_gating_func": 2,
            "leading_dense_block_count": 1,
        },
        TIED,
    ),
    "jamba": Recipe(
        DEEP,
        {
            **MOE,
            "attention.head_count_kv": every(2),
            "ssm.conv_kernel": 4,
            "ssm.inner_size": 256,
            "ssm.state_size": 16,
            "ssm.time_step_rank": 8,
        },
        TIED,
    ),
    "falcon-h1": Recipe(DEEP, MAMBA2),
    "granitehybrid": Recipe(
        DEEP,
        {
            **MAMBA2,
            "attention.head_count_kv": every(2),
            "embedding_scale": 1.0,
            "residual_scale": 1.0,
            "logit_scale": 1.0,
            "attention.scale": 0.125,
        },
        TIED,
    ),
    "qwen3next": Recipe(DEEP, {**SHARED_MOE, **DELTA, "full_attention_interval": 2}, TIED),
    "qwen35": Recipe(DEEP, {**DELTA, "full_attention_interval": 2, "rope.dimension_sections": sections}, TIED),
    "qwen35moe": Recipe(
        DEEP, {**SHARED_MOE, **DELTA, "full_attention_interval": 2, "rope.dimension_sections": sections}
    ),
    "nemotron_h": Recipe(
        {**DEEP, "n_layer": 3},
        {
            **MAMBA2,
            "attention.head_count_kv": lambda d: [0, d.n_head_kv, 0],
            "feed_forward_length": lambda d: [0, 0, d.n_ff],
        },
    ),
    "nemotron_h_moe": Recipe(
        {**DEEP, "n_layer": 3},
        {
            **MAMBA2,
            **SHARED_MOE,
            "attention.head_count_kv": lambda d: [0, d.n_head_kv, 0],
            "feed_forward_length": lambda d: [0, 0, d.n_ff],
        },
    ),
    "plamo2": Recipe(DEEP, {**MAMBA2, "ssm.group_count": 0, "attention.head_count_kv": every(2)}),
    "kimi-linear": Recipe(
        DEEP,
        {
            **SHARED_MOE,
            **MLA,
            "attention.head_count_kv": lambda d: [0, 1] * (d.n_layer // 2),
            "kda.head_dim": 64,
            "ssm.conv_kernel": 4,
        },
    ),
    "minimax-01": Recipe(DEEP, {**MOE, "full_attention_interval": 2, "residual_scale": 1.0}),
    "bailingmoe3": Recipe(
        DEEP, {**SHARED_MOE, **MLA, **KDA, "attention.head_count_kv": lambda d: [0, 1] * (d.n_layer // 2)}
    ),
    "kimi-k3": Recipe(
        DEEP,
        {
            **SHARED_MOE,
            **MLA,
            **KDA,
            "attention.head_count_kv": lambda d: [0, 1] * (d.n_layer // 2),
            "attn_res.block_size": 12,
            "activation.situ_beta": 4.0,
            "activation.situ_linear_beta": 25.0,
        },
    ),
    "glm5-next": Recipe(
        DEEP,
        {
            **SHARED_MOE,
            **MLA,
            **KDA,
            **INDEXER,
            **HYPER,
            "attention.head_count_kv": lambda d: [0, 1] * (d.n_layer // 2),
            "attention.key_length": 64,
            "rope.dimension_count": 0,
            "attention.indexer.kpool": 4,
        },
    ),
    "qwen4exp": Recipe(
        DEEP,
        {
            **SHARED_MOE,
            **DELTA,
            **INDEXER,
            **HYPER,
            "hyper_connection.low_rank": 8,
            "full_attention_interval": 2,
            "rope.dimension_sections": sections,
            "attention.compress_ratios": lambda d: [4] * d.n_layer,
        },
    ),
    "deepseek4": Recipe(
        {"n_layer": 4, "n_head_kv": 1},
        {
            **SHARED_MOE,
            **INDEXER,
            **HYPER,
            **WINDOW,
            "attention.q_lora_rank": 64,
            "attention.key_length": 64,
            "attention.value_length": 64,
            "rope.dimension_count": 32,
            "attention.output_group_count": 4,
            "attention.output_lora_rank": 32,
            "attention.compress_ratios": lambda d: [0, 0, 4, 128][: d.n_layer],
            "attention.compress_rope_freq_base": 160000.0,
            "hash_layer_count": 0,
            "swiglu_clamp_exp": 10.0,
            "expert_gating_func": 4,
        },
    ),
    # no token after token: planned, not chatted with
    "dream": Recipe(SMALL),
    "llada": Recipe(SMALL),
    "llada-moe": Recipe(SMALL, MOE),
    "rnd1": Recipe(SMALL, MOE),
    "t5": Recipe(FULL_HEADS, {"attention.relative_buckets_count": 8}),
    "bert": Recipe(FULL_HEADS, {"/tokenizer.ggml.token_type_count": 2}),
}
