"""The cells of a context that is about to be freed, and how they get into the next one. Engine process only."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from kvdesk.backend.llama.context import Context
from kvdesk.backend.llama.kv.convert import convert_state
from kvdesk.backend.llama.kv.state import CannotConvert
from kvdesk.backend.llama.kv.transfer import probe_state, restore_sequence, save_sequence
from kvdesk.backend.settings import ContextSettings
from kvdesk.errors import ContextFailed, EngineError

SAMPLE_TOKENS = 2
"""Tokens decoded in the old and the new context to learn how the one's cells become the other's."""


@dataclass(frozen=True)
class SavedCells:
    """Sequence 0 as bytes. ``sample`` are the cells of its first tokens, to learn a conversion from, where one is wanted
    and they could be made."""

    tokens: Sequence[int]
    state: memoryview
    sample: memoryview | None = None

    def move_into(self, context: Context) -> bool:
        """Restore them as they are, equal to the last bit; False where the context does not take them."""
        return restore_sequence(context.ptr, self.state)

    def convert_into(self, context: Context) -> bool:
        """Rewrite them for a context of other types; False where they cannot be, with the reason in the engine's log."""
        if self.sample is None:
            return False
        try:
            target = probe_state(context.ptr, self.tokens[:SAMPLE_TOKENS])
            return restore_sequence(context.ptr, convert_state(self.state, target, self.sample))
        except (CannotConvert, EngineError) as reason:
            print(f"cells are read again, not converted: {reason}", file=sys.stderr)  # noqa: T201 - the engine's log
            return False


def save_cells(context: Context, tokens: Sequence[int], *, to_convert: bool = False) -> SavedCells | None:
    """The cells of ``tokens``, None for none; with ``to_convert`` the context is empty afterwards.

    Raises ContextFailed where there is no memory for the copy.
    """
    if not tokens:
        return None
    try:
        state = save_sequence(context.ptr)
    except MemoryError:
        raise ContextFailed("There is no memory to hold the conversation's cells while the context changes.") from None
    sample: memoryview | None = None
    if to_convert:
        try:
            sample = probe_state(context.ptr, tokens[:SAMPLE_TOKENS])
        except EngineError:
            sample = None
    return SavedCells(tuple(tokens), state, sample)


def needs_conversion(a: ContextSettings, b: ContextSettings) -> bool:
    """Whether cells made with ``a`` look different with ``b``."""
    return (a.type_k, a.type_v, a.flash_attn) != (b.type_k, b.type_v, b.flash_attn)
