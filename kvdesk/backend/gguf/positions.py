"""How a model tells where a token stands, as far as that bounds a context or changes with its length. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kvdesk.backend.gguf.header import MetadataValue, Tensor


@dataclass(frozen=True)
class Positions:
    """``most`` tokens have a learned position each (GPT-2, StarCoder, MPT): llama.cpp aborts at the next one; None: no bound.

    ``long_rope_above``: contexts of more tokens are rotated by other factors (LongRoPE: Phi-3, Phi-4-mini, MiniCPM3), so
    that cells of a shorter one mean something else in them; None where all lengths are rotated alike.
    """

    most: int | None = None
    long_rope_above: int | None = None

    def is_long(self, n_ctx: int) -> bool:
        """Whether a context of ``n_ctx`` tokens is rotated by the long factors (llama-model.cpp, get_rope_factors)."""
        return self.long_rope_above is not None and n_ctx > self.long_rope_above

    def within(self, n_ctx: int) -> int:
        """``n_ctx``, or as many tokens as there are positions for."""
        return n_ctx if self.most is None else min(n_ctx, self.most)


ALL_ALIKE = Positions()
"""Nothing bounds a context but what it was trained for."""


def find_positions(
    architecture: str, n_ctx_train: int, metadata: Mapping[str, MetadataValue], tensors: Iterable[Tensor]
) -> Positions:
    """What the header says of positions (llama-model.cpp: n_ctx_orig_yarn; the models' create_tensor calls)."""
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    learned = shapes.get("position_embd.weight")
    original = metadata.get(f"{architecture}.rope.scaling.original_context_length", n_ctx_train)
    has_long = any(name.endswith("rope_factors_long.weight") for name in shapes)
    return Positions(
        most=learned[1] if learned and len(learned) > 1 else None,
        long_rope_above=original if has_long and isinstance(original, int) else None,
    )
