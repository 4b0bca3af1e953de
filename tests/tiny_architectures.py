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


MOE: Mapping[str, Value] = {
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_feed_forward_length": 64,
}
TIED = r"output\.weight"
BIASES = r"(?!.*ssm_dt).*\.bias"

RECIPES: Mapping[str, Recipe] = {
    "llama": Recipe(without=BIASES),
    "gemma3": Recipe(
        {"n_layer": 6, "n_embd": 128, "n_head": 2, "n_head_kv": 1},
        {"attention.sliding_window": 256, "attention.key_length": 64, "attention.value_length": 64},
        TIED,
        embedding=0.04,
    ),
    "mamba": Recipe(
        {"n_layer": 4, "n_embd": 128, "n_head": 0, "n_head_kv": 0, "n_ff": 0},
        {"ssm.conv_kernel": 4, "ssm.inner_size": 256, "ssm.state_size": 16, "ssm.time_step_rank": 8},
        TIED,
    ),
    "lfm2": Recipe(
        {"n_layer": 4, "n_embd": 128, "n_head": 2, "n_head_kv": 1},
        {"attention.head_count_kv": every(2), "shortconv.l_cache": 3},
        TIED,
    ),
    "qwen3moe": Recipe({}, MOE),
}
