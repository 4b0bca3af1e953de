"""What can be said of and done to a saved sequence state as bytes: describe it, cut it down, read its cells in place.

Pure: numpy on bytes, no llama.cpp call (llama/kv/layout.py parses, llama/kv/transfer.py makes and restores states, llama/kv/convert.py
rewrites them). docs/KV_STATE.md explains it.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from kvdesk.backend.llama.kv.layout import (
    BlockKind,
    CacheTensor,
    CannotConvert,
    State,
    StateBlock,
    StateLayout,
    parse_blocks,
)

SEQUENCE_MAGIC = 0xAF143CD8
HEADER = struct.Struct("<Ii")
"""Magic and sequence id, before the first block (llama-context.cpp, state_seq_get_data)."""

_U32 = struct.Struct("<I")


def describe_state(state: State) -> StateLayout:
    """The layout of ``state`` (full or partial, of one sequence).

    CannotConvert unless exactly one reading of the bytes accounts for every one of them.
    Source: llama-kv-cache.cpp state_write_meta/_data, llama-memory-recurrent.cpp, llama-context.cpp state_seq_get_data.
    """
    view = memoryview(state).cast("B")
    if len(view) < HEADER.size or HEADER.unpack_from(view)[0] != SEQUENCE_MAGIC:
        raise CannotConvert("no sequence state: wrong magic")
    return parse_blocks(view, HEADER.size, has_ids=False)


def sequence_state(whole: bytearray, offset: int) -> memoryview:
    """The state of a whole context (llama_state_get_data), written at ``offset`` of ``whole``, as that of its one sequence.

    ``offset`` bytes before it must be free (HEADER.size at least); ``whole`` is rewritten in place and the result
    lies in it. Unlike llama_state_seq_get_data it holds every cell, also those a sliding window has passed.
    CannotConvert when other sequences have cells. Source: llama-context.cpp, state_write_data.
    """
    (name_bytes,) = _U32.unpack_from(whole, offset)
    first = offset + _U32.size + name_bytes
    if name_bytes > 256 or first > len(whole):
        raise CannotConvert("no context state: implausible architecture name")
    with memoryview(whole) as view:
        layout = parse_blocks(view, first, has_ids=True)
        for block in layout.attention:
            if block.cells and cell_records(view, block)[:, -1].any():
                raise CannotConvert("cells of several sequences")
        recurrent = [block for block in layout.blocks if block.kind is BlockKind.RECURRENT and block.cells]
    for block in recurrent:
        # n_cells, pos, n_seq_id, seq_id: in a sequence's state n_seq_id is 0 and no id follows
        at = block.start + 8
        whole[at : at + 8] = _U32.pack(0)
    HEADER.pack_into(whole, first - HEADER.size, SEQUENCE_MAGIC, 0)
    return memoryview(whole)[first - HEADER.size :]


def cut_keeps_window(keep: int, pos_min: int, pos_max: int, n_swa: int) -> bool:
    """Whether a cache that holds ``pos_min`` to ``pos_max`` can go on right at position ``keep``.

    ``n_swa`` is the model's window (llama_model_n_swa), 0 for none. False for recurrent state that would be cut, whose
    ``pos_min`` is its ``pos_max``, and for an empty cache. llama_memory_seq_rm itself does not check windows.
    Source: llama-hparams.h, is_masked_swa: position p sees p - n_swa + 1 to p.
    """
    if pos_max < 0:
        return keep == 0
    first_needed = max(0, keep - n_swa + 1) if n_swa else 0
    return keep > pos_max or pos_min <= first_needed


def without_passed_cells(state: State, layout: StateLayout, n_swa: int) -> bytearray:
    """``state`` without the cells that the window of its last attention cache, ``n_swa`` positions, has passed."""
    view = memoryview(state).cast("B")
    ring = layout.attention[-1]
    kept = ring.positions > ring.positions.max(initial=-1) - n_swa
    cell_count_at = ring.meta[0] - _U32.size
    smaller = bytearray(view[:cell_count_at])
    smaller += _U32.pack(int(kept.sum()))
    smaller += cell_records(view, ring)[kept].tobytes()
    at = ring.meta[1]
    for tensor in (*ring.keys, *ring.values):
        smaller += view[at : tensor.start]
        stored = stored_cells(view, tensor, ring.cells)
        smaller += (stored[:, kept] if tensor.transposed else stored[kept]).tobytes()
        at = tensor.start + tensor.cell_bytes * ring.cells
    smaller += view[at:]
    return smaller


def cell_records(view: memoryview, block: StateBlock) -> NDArray[np.int32]:
    """(cells, words) of an attention block: position, 1, an extension if the model has one, sequence id."""
    start, end = block.meta
    return np.frombuffer(view, "<i4", (end - start) // 4, start).reshape(block.cells, -1)


def stored_cells(
    buffer: State, tensor: CacheTensor, cells: int, start: int | None = None
) -> NDArray[np.unsignedinteger]:
    """``tensor`` as it lies in ``buffer``, not copied: (cells, cell_bytes) of bytes, or transposed (n_values, cells) of
    words as wide as one value. At ``start``, if given, instead of the tensor's own place.
    """
    start = tensor.start if start is None else start
    if tensor.transposed:
        word = np.dtype(f"u{tensor.type.block_bytes}")
        return np.frombuffer(buffer, word, tensor.n_values * cells, start).reshape(tensor.n_values, cells)
    return np.frombuffer(buffer, np.uint8, tensor.cell_bytes * cells, start).reshape(cells, tensor.cell_bytes)
