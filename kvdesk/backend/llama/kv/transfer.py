"""Takes the cells of sequence 0 out of a context and puts them into one, also of another size, without changing a logit.

Knows llama.cpp's calls; what the bytes mean is llama/kv/state.py's. Engine and helper processes only. docs/KV_STATE.md says why
llama_state_seq_get_data alone is not enough.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as bindings
import numpy as np

from kvdesk.backend.llama.kv.layout import CannotConvert, State, StateLayout
from kvdesk.backend.llama.kv.state import HEADER, describe_state, sequence_state, without_passed_cells
from kvdesk.errors import EngineError

lib: Any = bindings
"""Their type hints are narrower than what ctypes takes."""

PARTIAL_ONLY = 1
"""LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY (llama.h): only what cannot be rebuilt by cutting back."""


def save_sequence(ctx: Any) -> memoryview:
    """All cells of sequence 0, also those that a sliding window has passed and not yet written over.

    ``ctx`` is a llama_context pointer. Equal to llama_state_seq_get_data for models without a window. With cells of
    other sequences in the context only what the window still sees is kept.
    """
    if _n_swa(ctx):
        size = lib.llama_state_get_size(ctx)
        buffer = bytearray(HEADER.size + size)
        written = lib.llama_state_get_data(ctx, _bytes_at(buffer, HEADER.size), size)
        if written == size:
            try:
                return sequence_state(buffer, HEADER.size)
            except CannotConvert:
                pass
    return _save(ctx, 0)


def restore_sequence(ctx: Any, state: State) -> bool:
    """Put ``state`` into sequence 0 of ``ctx``, replacing what is there; False, and the context empty, when it does not fit.

    Cells come to lie as they lay in the context they are from, so that decoding goes on with equal logits.
    """
    try:
        layout = describe_state(state)
    except CannotConvert:
        # A memory that llama/kv/state.py does not know: llama.cpp reads what it wrote
        return _restore_or_clear(ctx, state)
    n_swa = _n_swa(ctx)
    oldest = _oldest_of_ring(layout) if n_swa else None
    if oldest is not None and _restore_ring(ctx, state, layout, oldest):
        return True
    if _restore(ctx, state, 0):
        return True
    if n_swa:
        # A smaller n_ubatch makes a smaller ring: what the window sees still fits
        lib.llama_memory_clear(lib.llama_get_memory(ctx), True)
        return _restore_or_clear(ctx, without_passed_cells(state, layout, n_swa))
    return _restore_or_clear(ctx, state)


def save_checkpoint(ctx: Any) -> memoryview:
    """What cutting back cannot rebuild: the cells a window sees, or the recurrent state, of sequence 0."""
    return _save(ctx, PARTIAL_ONLY)


def restore_checkpoint(ctx: Any, checkpoint: State, n_tokens: int) -> bool:
    """Go back to ``checkpoint``, saved when ``n_tokens`` tokens were in; the first ``n_tokens`` must still be the same.

    False, and the context empty, when that fails.
    """
    memory = lib.llama_get_memory(ctx)
    # This order: while the recurrent state is ahead, a hybrid refuses to have its attention cells cut
    if (
        _restore(ctx, checkpoint, PARTIAL_ONLY)
        and lib.llama_memory_seq_rm(memory, 0, n_tokens, -1)
        and lib.llama_memory_seq_pos_max(memory, 0) == n_tokens - 1
    ):
        return True
    lib.llama_memory_clear(memory, True)
    return False


def probe_state(ctx: Any, tokens: Sequence[int], partial: bool = False) -> memoryview:
    """Empty the context, decode the few ``tokens`` from position 0, save them and empty it again: what its states look like.

    EngineError when they cannot be decoded.
    """
    memory = lib.llama_get_memory(ctx)
    lib.llama_memory_clear(memory, True)
    batch = lib.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, i, 1, 0
        batch.logits[i] = 0  # no logits are wanted, and with a large vocabulary they are most of the work
    status = lib.llama_decode(ctx, batch)
    lib.llama_batch_free(batch)
    if status:
        raise EngineError(f"llama.cpp could not decode a probe: status {status}.")
    state = _save(ctx, PARTIAL_ONLY if partial else 0)
    lib.llama_memory_clear(memory, True)
    return state


# --- llama.cpp's calls -----------------------------------------------------------------------------------------


def _n_swa(ctx: Any) -> int:
    return lib.llama_model_n_swa(lib.llama_get_model(ctx))


def _bytes_at(buffer: State, offset: int = 0) -> Any:
    """A pointer to the bytes of ``buffer``, which the caller keeps alive."""
    address = np.frombuffer(buffer, np.uint8).ctypes.data
    return ctypes.cast(address + offset, ctypes.POINTER(ctypes.c_uint8))


def _save(ctx: Any, flags: int) -> memoryview:
    size = lib.llama_state_seq_get_size_ext(ctx, 0, flags)
    buffer = np.empty(size, np.uint8)  # not cleared first, as bytearray is: a pass less over GiB
    written = lib.llama_state_seq_get_data_ext(ctx, _bytes_at(buffer.data), size, 0, flags)
    if not size or written != size:
        raise EngineError("llama.cpp could not save the conversation's cells.")
    return buffer.data


def _restore(ctx: Any, state: State, flags: int) -> bool:
    return bool(lib.llama_state_seq_set_data_ext(ctx, _bytes_at(state), len(state), 0, flags))


def _restore_or_clear(ctx: Any, state: State) -> bool:
    if _restore(ctx, state, 0):
        return True
    # llama.cpp may have taken the cells of the first cache and then failed on the second
    lib.llama_memory_clear(lib.llama_get_memory(ctx), True)
    return False


# --- the ring of a sliding window ------------------------------------------------------------------------------


def _oldest_of_ring(layout: StateLayout) -> int | None:
    """The lowest position of a window's cache that has gone around, when it is the next to be written over."""
    ring = layout.blocks[-1]
    if len(layout.attention) < 2 or layout.is_recurrent or ring.n_stream > 1:
        return None
    if bool((np.diff(ring.positions) > 0).all()):
        return None
    following = ring.positions[(int(ring.positions.argmax()) + 1) % ring.cells]
    return int(following) if following == ring.positions.min() else None


def _restore_ring(ctx: Any, state: State, layout: StateLayout, oldest: int) -> bool:
    """Restore so that the window's next cell is the one after its newest, as in the context the state is from.

    llama.cpp goes on writing at the lowest cell that was freed, so: the window's cells first, free the oldest of them
    while the full cache is still empty, then the full cache alone. Source: llama-kv-cache.cpp, seq_rm and find_slot.
    """
    memory = lib.llama_get_memory(ctx)
    lib.llama_memory_clear(memory, True)
    ring = layout.blocks[-1]
    writable = bytearray(state) if memoryview(state).readonly else state
    view = memoryview(writable).cast("B")
    window_only = bytearray(view[: HEADER.size])
    window_only += view[ring.start : ring.end]
    if _restore(ctx, window_only, PARTIAL_ONLY) and lib.llama_memory_seq_rm(memory, 0, oldest, oldest + 1):
        # A block without cells leaves its cache as it is, and nothing after its count is read
        cell_count = view[ring.meta[0] - 4 : ring.meta[0]]
        saved_count = bytes(cell_count)
        cell_count[:] = bytes(4)
        try:
            if _restore(ctx, writable, 0):
                return True
        finally:
            cell_count[:] = saved_count
    lib.llama_memory_clear(memory, True)
    return False
