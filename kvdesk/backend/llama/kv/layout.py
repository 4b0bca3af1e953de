"""What a saved sequence state consists of: blocks, cells, types and where their rows lie; parsing it.

Pure: numpy on bytes, no llama.cpp call. The layout carries no version, so everything is checked and anything unknown is
refused. docs/KV_STATE.md explains it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvdesk.backend import settings
from kvdesk.backend.ggml_types import BY_NAME, GgmlType

State: TypeAlias = bytes | bytearray | memoryview
"""A saved state: what llama_state_seq_get_data writes."""

_U32 = struct.Struct("<I")
_U32_PAIR = struct.Struct("<II")
_ROWS_HEADER = struct.Struct("<iQ")
_TRANSPOSED_HEADER = struct.Struct("<iII")
_MAX_BLOCKS = 4
_MAX_LAYERS = 2048
_MAX_STREAMS = 256
_CELL_BYTES = 12
"""pos, n_seq_id (1), seq_id."""
_CELL_EXTENSION_BYTES = 12
"""llama_kv_cell_ext: 2D position and token, between n_seq_id and seq_id; M-RoPE and PLE models only."""


class CannotConvert(Exception):
    """The state holds something that is not understood well enough to rewrite it: read the tokens again."""


CACHE_TYPES: dict[int, GgmlType] = {BY_NAME[name].id: BY_NAME[name] for name in settings.CACHE_TYPES}
"""By ggml type id; the types that llama.cpp's own tools accept for a cache."""


class BlockKind(StrEnum):
    """Which memory a block was saved from."""

    ATTENTION = "attention"
    RECURRENT = "recurrent"


@dataclass(frozen=True)
class CacheTensor:
    """K or V of one layer: ``cells`` rows of ``n_values`` values, the first byte at ``start`` in the state.

    Cell-major (cells, n_values), or with ``transposed`` value-major (n_values, cells).
    """

    type: GgmlType
    n_values: int
    start: int
    transposed: bool = False

    @property
    def cell_bytes(self) -> int:
        """Bytes of one cell."""
        return self.type.row_bytes(self.n_values)


@dataclass(frozen=True, eq=False)
class StateBlock:
    """One cache of a state, bytes ``start`` to ``end``. An attention block without cells knows no layers.

    ``positions`` are the cells' positions in the order of their place in the cache; ``meta`` the span of the
    cells' own records (``cell_record_bytes`` each), ``v_trans`` whether V is stored transposed (no flash attention).
    Of a recurrent block only ``positions`` (one) and the span are known.
    """

    kind: BlockKind
    start: int
    end: int
    positions: NDArray[np.int32]
    n_stream: int = 1
    meta: tuple[int, int] = (0, 0)
    cell_record_bytes: int = 0
    v_trans: bool = False
    keys: tuple[CacheTensor, ...] = ()
    values: tuple[CacheTensor, ...] = ()

    @property
    def cells(self) -> int:
        """How many cells the state holds."""
        return len(self.positions)

    @property
    def layers(self) -> int:
        """How many layers this cache holds keys and values of."""
        return len(self.keys)

    @property
    def cell_bytes(self) -> int:
        """Bytes of one token's K and V over all layers of this cache; 0 where none was saved."""
        return sum(tensor.cell_bytes for tensor in (*self.keys, *self.values))

    @property
    def tensor_bytes(self) -> int:
        """Bytes of K and V of all cells saved; of a recurrent block its whole size."""
        return self.cell_bytes * self.cells if self.kind is BlockKind.ATTENTION else self.end - self.start

    @property
    def types_k(self) -> frozenset[str]:
        """Names of the types of K; one in all of today's llama.cpp."""
        return frozenset(tensor.type.name for tensor in self.keys)

    @property
    def types_v(self) -> frozenset[str]:
        """Names of the types of V; empty for MLA, which caches no V."""
        return frozenset(tensor.type.name for tensor in self.values)


@dataclass(frozen=True, eq=False)
class StateLayout:
    """A parsed state. ``blocks`` in llama.cpp's order: full attention, then window or indexer, then recurrent."""

    blocks: tuple[StateBlock, ...]
    size_bytes: int

    @property
    def attention(self) -> tuple[StateBlock, ...]:
        """The blocks that hold K and V."""
        return tuple(block for block in self.blocks if block.kind is BlockKind.ATTENTION)

    @property
    def is_recurrent(self) -> bool:
        """Whether a recurrent state is part of it (recurrent and hybrid models)."""
        return any(block.kind is BlockKind.RECURRENT for block in self.blocks)


# --- parsing ---------------------------------------------------------------------------------------------------


class _Misfit(Exception):
    """These bytes are not what was tried."""


def parse_blocks(view: memoryview, first: int, has_ids: bool) -> StateLayout:
    """The blocks from byte ``first`` to the end. ``has_ids``: recurrent cells name their sequence, as in the state of a
    whole context. CannotConvert unless exactly one reading of the bytes accounts for every one of them.
    """
    readings = list(_readings(view, first, has_ids, _MAX_BLOCKS))
    if len(readings) != 1 or not readings[0]:
        raise CannotConvert("unknown state layout" if not readings else "ambiguous state layout")
    return StateLayout(readings[0], len(view))


def _readings(view: memoryview, at: int, has_ids: bool, blocks_left: int) -> Iterator[tuple[StateBlock, ...]]:
    """Every way to read the bytes from ``at`` to the end as blocks."""
    if at == len(view):
        yield ()
        return
    if not blocks_left:
        return
    for block in _attention_readings(view, at):
        for rest in _readings(view, block.end, has_ids, blocks_left - 1):
            yield (block, *rest)
    with suppress(_Misfit, struct.error):
        yield (_recurrent(view, at, has_ids),)


def _attention_readings(view: memoryview, at: int) -> Iterator[StateBlock]:
    """With and without an extension per cell, with V and without (MLA)."""
    for extension in (0, _CELL_EXTENSION_BYTES):
        for has_values in (True, False):
            try:
                block = _attention(view, at, _CELL_BYTES + extension, has_values)
            except (_Misfit, struct.error):
                continue
            yield block
            if not block.cells:
                return  # the other readings would only be the same again
            if not block.keys:
                break


def _attention(view: memoryview, start: int, record_bytes: int, has_values: bool) -> StateBlock:
    (n_stream,) = _U32.unpack_from(view, start)
    _expect(1 <= n_stream <= _MAX_STREAMS)
    at = start + _U32.size
    block: StateBlock | None = None
    for _ in range(n_stream):
        (cells,) = _U32.unpack_from(view, at)
        at += _U32.size
        if cells:
            _expect(block is None)  # a sequence lies in one stream
            block = _stream(view, start, at, n_stream, cells, record_bytes, has_values)
            at = block.end
    if block is None:
        return StateBlock(BlockKind.ATTENTION, start, at, np.empty(0, np.int32), n_stream)
    return replace(block, end=at)


def _stream(
    view: memoryview, start: int, at: int, n_stream: int, cells: int, record_bytes: int, has_values: bool
) -> StateBlock:
    meta = (at, at + cells * record_bytes)
    _expect(meta[1] <= len(view))
    records = np.frombuffer(view, "<i4", cells * record_bytes // 4, at).reshape(cells, -1)
    _expect(bool((records[:, 0] >= 0).all() and (records[:, 1] == 1).all()))
    _expect(bool((records[:, -1] == records[0, -1]).all() and 0 <= records[0, -1] < _MAX_STREAMS))
    v_trans, n_layer = _U32_PAIR.unpack_from(view, meta[1])
    _expect(v_trans <= 1 and n_layer <= _MAX_LAYERS)
    at = meta[1] + _U32_PAIR.size
    keys: list[CacheTensor] = []
    values: list[CacheTensor] = []
    for _ in range(n_layer):
        tensor, at = _tensor(view, at, cells, transposed=False)
        keys.append(tensor)
    for _ in range(n_layer if has_values else 0):
        tensor, at = _tensor(view, at, cells, transposed=bool(v_trans))
        values.append(tensor)
    positions = records[:, 0].astype(np.int32)
    return StateBlock(
        BlockKind.ATTENTION,
        start,
        at,
        positions,
        n_stream,
        meta,
        record_bytes,
        bool(v_trans),
        tuple(keys),
        tuple(values),
    )


def _tensor(view: memoryview, at: int, cells: int, transposed: bool) -> tuple[CacheTensor, int]:
    if transposed:
        type_id, element_bytes, n_values = _TRANSPOSED_HEADER.unpack_from(view, at)
        at += _TRANSPOSED_HEADER.size
        _expect(type_id in CACHE_TYPES)
        cache_type = CACHE_TYPES[type_id]
        _expect(cache_type.block_values == 1 and element_bytes == cache_type.block_bytes and 0 < n_values < 1 << 24)
    else:
        type_id, row_bytes = _ROWS_HEADER.unpack_from(view, at)
        at += _ROWS_HEADER.size
        _expect(type_id in CACHE_TYPES)
        cache_type = CACHE_TYPES[type_id]
        _expect(0 < row_bytes < 1 << 28 and row_bytes % cache_type.block_bytes == 0)
        n_values = row_bytes // cache_type.block_bytes * cache_type.block_values
    tensor = CacheTensor(cache_type, n_values, at, transposed)
    at += tensor.cell_bytes * cells
    _expect(at <= len(view))
    return tensor, at


def _recurrent(view: memoryview, start: int, has_ids: bool) -> StateBlock:
    """The last block of a state: cells, then R and S of each recurrent layer, to the end of the state."""
    (cells,) = _U32.unpack_from(view, start)
    _expect(cells <= 1)  # one sequence has one recurrent state
    at = start + _U32.size
    positions = np.empty(cells, np.int32)
    if cells:
        position, n_ids = struct.unpack_from("<iI", view, at)
        at += 8
        _expect(position >= 0 and n_ids == has_ids)
        at += 4 * n_ids
        positions[0] = position
    s_trans, n_layer = _U32_PAIR.unpack_from(view, at)
    _expect(s_trans == 0 and 0 < n_layer <= _MAX_LAYERS)
    at += _U32_PAIR.size
    row_sizes: list[int] = []
    while at < len(view):
        type_id, row_bytes = _ROWS_HEADER.unpack_from(view, at)
        _expect(type_id in (0, 1) and row_bytes < 1 << 32)
        row_sizes.append(row_bytes)
        at += _ROWS_HEADER.size + row_bytes * cells
    half = len(row_sizes) // 2
    _expect(at == len(view) and 0 < half <= n_layer and len(row_sizes) == 2 * half)
    _expect(len(set(row_sizes[:half])) == 1 and len(set(row_sizes[half:])) == 1)
    return StateBlock(BlockKind.RECURRENT, start, at, positions)


def _expect(condition: bool) -> None:
    if not condition:
        raise _Misfit
