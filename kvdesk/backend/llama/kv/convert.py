"""Rewrites a saved state for a context with other cache types or flash attention, instead of reading all tokens again.

Pure on bytes; ggml does the quantizing. What the target wants, types, order, V transposed, rotation, is not computed from
rules but learned from two states of the same few tokens, and anything that does not agree is refused. docs/KV_STATE.md.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvdesk.backend.llama.kv.layout import BlockKind, CacheTensor, CannotConvert, State, StateBlock, StateLayout
from kvdesk.backend.llama.kv.state import HEADER, cell_records, describe_state, stored_cells
from kvdesk.backend.llama.kv.values import Bytes, Floats, from_floats, rotated, to_floats

_CHUNK_VALUES = 1 << 18
"""Values turned at once: 1 MiB of floats, which stays in the processor's cache."""

_THREADS = min(4, os.cpu_count() or 1)
"""More would only wait for memory. numpy's own threads get in their way: OPENBLAS_NUM_THREADS=1 halves the work."""

_ROTATIONS_FROM, _ROTATIONS_TO = 64, 1024
"""Sizes of Walsh-Hadamard matrices that llama.cpp may use (llama-kv-cache.cpp, attn_rot_hadamard)."""

_CLEAR_MATCH = 0.5
"""Largest relative error at which vectors still count as the same; under another rotation they differ by 1.0 to 1.6."""


def convert_state(state: State, template: State, source_template: State | None = None) -> bytearray:
    """``state`` as the context that ``template`` is from would hold it, for llama_state_seq_set_data there.

    ``template``: a state of the conversation's first token or tokens, decoded from position 0 in the target context
    (probe_state in llama/kv/transfer.py). ``source_template``: the same tokens in a context of the source's settings; needed
    when ``state`` no longer holds them, as in a sliding window that has passed them. Both partial for a partial state.
    Raises CannotConvert for anything that is not understood or does not agree; then the tokens must be read again.
    """
    source, target = describe_state(state), describe_state(template)
    reference_state = state if source_template is None else source_template
    reference = source if source_template is None else describe_state(source_template)
    kinds = [block.kind for block in source.blocks]
    if kinds != [block.kind for block in target.blocks] or kinds != [block.kind for block in reference.blocks]:
        raise CannotConvert("the contexts keep different memories")
    view = memoryview(state).cast("B")
    plans: list[_BlockPlan | None] = []
    for number, block in enumerate(source.blocks):
        if block.kind is BlockKind.RECURRENT:
            plans.append(None)  # f32 in every context: taken over as it is
            continue
        samples = _Samples(
            memoryview(reference_state).cast("B"),
            reference.blocks[number],
            memoryview(template).cast("B"),
            target.blocks[number],
        )
        plans.append(_plan(block, target.blocks[number], samples))
    return _write(view, source, plans)


# --- what to do ------------------------------------------------------------------------------------------------


class _Samples(NamedTuple):
    """The same tokens in a context like the source (``reference``) and in the target (``template``)."""

    reference_view: memoryview
    reference: StateBlock
    template_view: memoryview
    template: StateBlock


class _TensorPlan(NamedTuple):
    """Turn ``source`` into ``target`` (whose ``start`` is meaningless), multiplying by the matrix of size ``rotation`` if not 0."""

    source: CacheTensor
    target: CacheTensor
    rotation: int


class _BlockPlan(NamedTuple):
    n_stream: int
    v_trans: bool
    keys: list[_TensorPlan]
    values: list[_TensorPlan]


def _plan(source: StateBlock, target: StateBlock, samples: _Samples) -> _BlockPlan:
    if not source.cells:
        return _BlockPlan(target.n_stream, target.v_trans, [], [])
    for block in (target, samples.reference):
        if not block.cells:
            raise CannotConvert("a template without cells")
        for ours, theirs in ((source.keys, block.keys), (source.values, block.values)):
            if [tensor.n_values for tensor in ours] != [tensor.n_values for tensor in theirs]:
                raise CannotConvert("the contexts keep different layers")
        if source.cell_record_bytes != block.cell_record_bytes:
            raise CannotConvert("the contexts record their cells differently")
    if [t.type for t in (*source.keys, *source.values)] != [
        t.type for t in (*samples.reference.keys, *samples.reference.values)
    ] or source.v_trans != samples.reference.v_trans:
        raise CannotConvert("the source template is of other types than the state")
    return _BlockPlan(
        target.n_stream,
        target.v_trans,
        _tensor_plans(source.keys, samples, samples.reference.keys, target.keys),
        _tensor_plans(source.values, samples, samples.reference.values, target.values),
    )


def _tensor_plans(
    sources: tuple[CacheTensor, ...],
    samples: _Samples,
    references: tuple[CacheTensor, ...],
    targets: tuple[CacheTensor, ...],
) -> list[_TensorPlan]:
    """All K or all V of a cache; they are rotated alike or not at all."""
    if not sources:
        return []
    rotation = _rotation(samples, references, targets)
    return [_TensorPlan(ours, theirs, rotation) for ours, theirs in zip(sources, targets, strict=True)]


def _rotation(samples: _Samples, references: tuple[CacheTensor, ...], targets: tuple[CacheTensor, ...]) -> int:
    """The size of the rotation that lies between ``references`` and ``targets``; 0 for none.

    llama.cpp keeps quantized caches rotated, each block of a power of two values times the orthonormal
    Walsh-Hadamard matrix, its own inverse; which size, and whether at all, depends on head sizes, architecture and
    environment (llama-kv-cache.cpp, attn_rot_k, build_input_k_rot). Here it is recognised by its effect.
    """
    places = _places(samples)
    pairs = [
        (
            _values_of(samples.reference_view, samples.reference, ours)[places[0]],
            _values_of(samples.template_view, samples.template, theirs)[places[1]],
        )
        for ours, theirs in zip(references, targets, strict=True)
    ]
    sizes = _possible_rotations(references)
    errors = np.array(
        [[_error(ours, theirs, size) for ours, theirs in pairs if ours.any() or theirs.any()] for size in sizes]
    )
    if not errors.size:
        return 0  # nothing is in any layer: a V that the model does not use
    best = int(errors.min(axis=1).argmin())
    others = np.delete(errors, best, axis=0)
    # The first layers tell: the deeper one is, the more a coarser cache before it has changed what it holds
    if errors[best].min() > _CLEAR_MATCH or bool((others <= errors[best]).any()):
        raise CannotConvert("the templates do not hold the same vectors")
    return sizes[best]


def _places(samples: _Samples) -> tuple[list[int], list[int]]:
    """Where, in reference and template, the template's positions lie."""
    cell_of = {int(position): cell for cell, position in enumerate(samples.reference.positions)}
    ours = [cell_of.get(int(position), -1) for position in samples.template.positions]
    if -1 in ours:
        raise CannotConvert("the template's tokens have left the window: a source template is needed")
    return ours, list(range(samples.template.cells))


def _possible_rotations(tensors: tuple[CacheTensor, ...]) -> list[int]:
    sizes = [0]
    size = _ROTATIONS_FROM
    while size <= _ROTATIONS_TO and all(tensor.n_values % size == 0 for tensor in tensors):
        sizes.append(size)
        size *= 2
    return sizes


def _error(ours: Floats, theirs: Floats, rotation: int) -> float:
    """Relative distance of ``ours``, rotated, from ``theirs``."""
    distance = np.linalg.norm(rotated(ours, rotation) - theirs)
    return float(distance / max(np.linalg.norm(ours), np.linalg.norm(theirs)))


# --- doing it --------------------------------------------------------------------------------------------------


def _write(view: memoryview, source: StateLayout, plans: list[_BlockPlan | None]) -> bytearray:
    sizes = [
        block.end - block.start if plan is None else _block_size(block, plan)
        for block, plan in zip(source.blocks, plans, strict=True)
    ]
    converted = bytearray(HEADER.size + sum(sizes))
    out = memoryview(converted)
    out[: HEADER.size] = view[: HEADER.size]
    at = HEADER.size
    for block, plan, size in zip(source.blocks, plans, sizes, strict=True):
        if plan is None:
            out[at : at + size] = view[block.start : block.end]
        else:
            _write_block(view, block, plan, out[at : at + size])
        at += size
    return converted


def _block_size(block: StateBlock, plan: _BlockPlan) -> int:
    head = 4 + 4 * plan.n_stream
    if not block.cells:
        return head
    keys = sum(12 + p.target.cell_bytes * block.cells for p in plan.keys)
    values = sum(12 + p.target.cell_bytes * block.cells for p in plan.values)
    return head + block.meta[1] - block.meta[0] + 8 + keys + values


def _write_block(view: memoryview, block: StateBlock, plan: _BlockPlan, out: memoryview) -> None:
    """The block as in llama-kv-cache.cpp, state_write: streams, cells, V transposed or not, layers, K of all, V of all."""
    struct.pack_into("<II", out, 0, plan.n_stream, block.cells)
    at = 8
    if block.cells:
        records = cell_records(view, block).tobytes()
        out[at : at + len(records)] = records
        at += len(records)
        struct.pack_into("<II", out, at, plan.v_trans, len(plan.keys))
        at += 8
        with ThreadPoolExecutor(_THREADS) as pool:  # numpy and ggml release the interpreter lock
            pending: list[Future[None]] = []
            for tensor_plan in (*plan.keys, *plan.values):
                target = tensor_plan.target
                if target.transposed:
                    struct.pack_into("<iII", out, at, target.type.id, target.type.block_bytes, target.n_values)
                else:
                    struct.pack_into("<iQ", out, at, target.type.id, target.cell_bytes)
                at += 12
                size = target.cell_bytes * block.cells
                pending.append(pool.submit(_convert_tensor, view, block.cells, tensor_plan, out[at : at + size]))
                at += size
            for conversion in pending:
                conversion.result()
    # the counts of the other streams: zero, as the buffer is


def _convert_tensor(view: memoryview, cells: int, plan: _TensorPlan, out: memoryview) -> None:
    source, target, rotation = plan
    stored = stored_cells(view, source, cells)
    into = stored_cells(out, target, cells, start=0)
    for part in _chunks(cells, source.n_values):
        rows = _rows(stored[:, part].T if source.transposed else stored[part])
        if source.type != target.type or rotation:
            rows = from_floats(rotated(to_floats(rows, source), rotation), target.type)
        if target.transposed:
            into[:, part] = rows.view(into.dtype).T
        else:
            into[part] = rows


def _rows(stored: NDArray[Any]) -> Bytes:
    """(cells, bytes of a cell), contiguous, from cell-major bytes or words."""
    return np.ascontiguousarray(stored).view(np.uint8)


def _chunks(cells: int, n_values: int) -> Iterator[slice]:
    step = max(1, _CHUNK_VALUES // n_values)
    for start in range(0, cells, step):
        yield slice(start, min(start + step, cells))


def _values_of(view: memoryview, block: StateBlock, tensor: CacheTensor) -> Floats:
    """(cells, n_values) of a small block."""
    stored = stored_cells(view, tensor, block.cells)
    return to_floats(_rows(stored.T if tensor.transposed else stored), tensor)
