"""One llama.cpp context: its cells, decoding and cutting back. Engine and helper processes only.

What the cells mean (which conversation, which tokens) is llama/kv/conversation_cells.py's; saving and restoring them llama/kv/transfer.py's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from kvdesk.backend.ggml_log import failed_allocation
from kvdesk.backend.llama import library
from kvdesk.backend.llama.abort_flag import AbortFlag
from kvdesk.backend.llama.kv.batches import ENOUGH_HEADS
from kvdesk.backend.llama.kv.state import cut_keeps_window
from kvdesk.backend.llama.library import lib
from kvdesk.backend.llama.model import Model
from kvdesk.backend.llama.params import context_params
from kvdesk.backend.llama.sizing import context_buffers, log_parser
from kvdesk.backend.protocol.facts import BufferKind, ContextFacts, KvState
from kvdesk.backend.settings import ContextSettings, pad256
from kvdesk.errors import ContextFailed, EngineError

OK, ABORTED = 0, 2
"""What llama_decode returns that is no error (llama.h)."""


class Context:
    """Cells for ``model``: ``n_ctx`` of them, or a few less where it knows no more positions, can be used by each of
    n_seq_max sequences. Sequence 0 is the conversation."""

    def __init__(self, model: Model, settings: ContextSettings, n_ctx: int, abort: AbortFlag | None = None) -> None:
        """Make it. Raises ContextFailed with llama.cpp's reason; nothing stays allocated then."""
        self.model = model
        self.settings = settings
        params = context_params(settings, pad256(n_ctx) * settings.n_seq_max)
        if abort:
            params.abort_callback = abort.callback
            params.abort_callback_data = abort.user_data
        with library.start().captured() as self.log_lines:
            ptr = lib.llama_init_from_model(model.ptr, params)
        if not ptr:
            failed = failed_allocation(self.log_lines)
            asked = failed.asked_bytes if failed else None
            reasons = [ln.split(": ", 1)[-1] for ln in self.log_lines if "fail" in ln.lower() or "requires" in ln]
            reason = reasons[0] if reasons else "it gave no reason"
            raise ContextFailed(f"llama.cpp could not make a context of {n_ctx:,} tokens: {reason}.", asked)
        self.ptr = ptr
        self.memory = lib.llama_get_memory(ptr)
        self.n_ctx: int = model.positions.within(lib.llama_n_ctx_seq(ptr))
        self.flash_attn = log_parser.flash_attention(self.log_lines, settings.flash_attn)
        self.buffers = context_buffers.buffers(ptr, model.log_lines, self.log_lines, model.mapped_bytes())
        self.caches = context_buffers.caches(self.log_lines, self.buffers)
        self._one = (lib.llama_token * 1)()

    def decode(self, tokens: Sequence[int], *, logits: bool = False) -> int:
        """Append ``tokens`` to sequence 0; with ``logits`` those of the last one are there afterwards. With a large
        vocabulary they cost as much as many tokens. Returns OK or ABORTED.

        Raises EngineError on anything else; cells of the failed batch are gone then (llama-context.cpp, decode).
        """
        n = len(tokens)
        array = (lib.llama_token * n)(*tokens)
        batch = lib.llama_batch_get_one(array, n)
        if not logits:
            batch.logits = (ctypes.c_int8 * n)()
        return self._checked(lib.llama_decode(self.ptr, batch))

    def logits(self) -> bytes:
        """The last decoded token's: n_vocab floats. Only after a decode that had them."""
        return ctypes.string_at(
            lib.llama_get_logits_ith(self.ptr, -1), self.model.n_vocab * ctypes.sizeof(ctypes.c_float)
        )

    def decode_one(self, token: int) -> int:
        """As decode, for one token, with its logits and without making arrays: the token loop's call."""
        self._one[0] = token
        return self._checked(lib.llama_decode(self.ptr, lib.llama_batch_get_one(self._one, 1)))

    def _checked(self, status: int) -> int:
        if status in (OK, ABORTED):
            return status
        reason = {
            1: "there was no room in the KV cache",
            -2: "memory for the computation could not be had",
            -3: "the computation failed",
        }.get(status, f"status {status}")
        raise EngineError(f"llama.cpp could not decode: {reason}.")

    def warm_up(self) -> None:
        """Decode a batch and a token and forget them: builds that cannot compute on this machine die here, not in a chat."""
        token = max(lib.llama_vocab_bos(self.model.vocab), 0)
        self.decode([token, token])
        self.decode_one(token)
        self.clear()

    def end(self) -> int:
        """Position after the last token; 0 when empty."""
        return lib.llama_memory_seq_pos_max(self.memory, 0) + 1

    @property
    def can_always_cut(self) -> bool:
        """Whether tokens can be dropped from any position on: no window that forgets and no recurrent state."""
        model = self.model
        return not (model.is_recurrent or model.is_hybrid or (model.n_swa and not self.settings.swa_full))

    @property
    def has_tiles(self) -> bool:
        """Whether batches of kv/batches.py's TILE tokens are computed in another way than smaller ones, and enough so to
        matter: flash attention on the CPU over cells of f16 or f32."""
        types = {self.settings.type_k, self.settings.type_v}
        return (
            self.flash_attn
            and self.can_always_cut
            and (types == {"f16"} or types == {"f32"})
            and all(b.device == "CPU" for b in self.buffers if b.kind is BufferKind.KV)
            and lib.llama_model_n_layer(self.model.ptr) * lib.llama_model_n_head(self.model.ptr) >= ENOUGH_HEADS
        )

    def can_cut(self, position: int) -> bool:
        """Whether tokens from ``position`` on can be dropped and decoding go on there with equal results.

        llama.cpp does not check windows itself; docs/KV_STATE.md says what happens otherwise.
        """
        n_swa = 0 if self.settings.swa_full else self.model.n_swa
        first = lib.llama_memory_seq_pos_min(self.memory, 0)
        return position == 0 or cut_keeps_window(position, first, self.end() - 1, n_swa)

    def cut(self, position: int) -> bool:
        """Drop everything from ``position`` on; False when llama.cpp refuses (the cells are unchanged then)."""
        return lib.llama_memory_seq_rm(self.memory, 0, position, -1)

    def clear(self) -> None:
        """Forget all cells; the buffers stay."""
        lib.llama_memory_clear(self.memory, False)

    def kv(self) -> KvState:
        """Cells and bytes, occupied and allocated. A sliding-window cache holds the positions it has not passed."""
        used = self.end()
        allocated = sum(c.size_bytes for c in self.caches)
        state = sum(b.size_bytes for b in self.buffers if b.kind is BufferKind.RECURRENT)
        first = max(0, lib.llama_memory_seq_pos_min(self.memory, 0))
        occupied = 0
        full = max((c.cells for c in self.caches), default=0)
        for cache in self.caches:
            cells = min(used if cache.cells == full else used - first, cache.cells)
            occupied += cache.size_bytes * cells // cache.cells
        cells_allocated = full or self.n_ctx
        return KvState(used, cells_allocated, occupied + (state if used else 0), allocated + state)

    def facts(self, limit: int, kv: KvState, how: str, kept_tokens: int, elapsed_ms: float) -> ContextFacts:
        """What it is, and how it came to hold ``kept_tokens`` within ``elapsed_ms``; it may grow up to ``limit`` cells."""
        return ContextFacts(
            settings=self.settings,
            n_ctx=self.n_ctx,
            n_ctx_limit=limit,
            flash_attn=self.flash_attn,
            buffers=self.buffers,
            caches=self.caches,
            kv=kv,
            how=how,
            kept_tokens=kept_tokens,
            elapsed_ms=elapsed_ms,
        )

    def close(self) -> None:
        """Free the cells and the compute buffers."""
        if self.ptr:
            lib.llama_free(self.ptr)
            self.ptr = None


def first_cells(settings: ContextSettings, model: Model) -> tuple[int, int]:
    """(cells to start with, cells the conversation may reach): one sequence's share of what ``settings`` ask for.

    Where lengths are rotated in two ways (LongRoPE) a context begins on the side of the boundary where it may end.
    """
    positions, n_seq = model.positions, settings.n_seq_max
    whole = settings.n_ctx or lib.llama_model_n_ctx_train(model.ptr)
    limit = positions.within(pad256(pad256(whole) // n_seq))
    if settings.allocation == "reserve":
        return limit, limit
    start = min(limit, pad256(settings.initial_ctx // n_seq))
    if positions.long_rope_above is not None and positions.is_long(limit):
        start = min(limit, max(start, pad256(positions.long_rope_above + 1)))
    return start, limit
