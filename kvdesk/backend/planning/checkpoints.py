"""What the engine's checkpoints of a conversation will hold in RAM. Pure.

Models whose cells cannot always be cut back (sliding windows, recurrent state) have what a cut cannot rebuild saved, at the
end of each prompt and of each reply; every model has the logits saved that a prompt ends with, to answer it again.
"""

from __future__ import annotations

from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.protocol.facts import CHECKPOINTS_BYTES, CHECKPOINTS_KEPT, BufferKind
from kvdesk.backend.protocol.footprint import Footprint

LOGIT_BYTES = 4


def checkpoints_bytes(model: ModelFile, footprint: Footprint) -> int:
    """The most they hold in a long conversation, in bytes: as many as are kept, half of them of a prompt's end, within
    the engine's limit for all; one alone may be larger."""
    one = _state_bytes(model, footprint)
    logits = LOGIT_BYTES * model.n_vocab
    if not one:
        return min(CHECKPOINTS_KEPT * logits, CHECKPOINTS_BYTES)
    of_all = CHECKPOINTS_KEPT * one + CHECKPOINTS_KEPT // 2 * logits
    return max(one + logits, min(of_all, CHECKPOINTS_BYTES))


def _state_bytes(model: ModelFile, footprint: Footprint) -> int:
    """What one checkpoint holds of the cells: those that the windows see, and the recurrent state, of one sequence."""
    context = footprint.settings.context
    n_seq = context.n_seq_max
    recurrent = footprint.bytes_of(BufferKind.RECURRENT) // n_seq
    window = model.sliding_window
    if not window or context.swa_full or not any(model.windowed_layers):
        return recurrent
    n_windowed = sum(model.windowed_layers)  # in a context as short as the window both caches have the same cells
    ring = min(footprint.caches, key=lambda cache: (cache.cells, cache.layers != n_windowed), default=None)
    if ring is None or not ring.cells:
        return recurrent
    streams = footprint.n_ctx // footprint.n_ctx_seq if footprint.n_ctx_seq else 1
    return recurrent + ring.size_bytes // (ring.cells * streams) * min(window, ring.cells)
