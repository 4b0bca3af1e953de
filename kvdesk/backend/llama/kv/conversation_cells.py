"""The cells of the running conversation: which tokens they hold, what of them the next prompt can keep, and how the
context grows, changes its settings and forgets. Engine process only; every decision that costs memory is asked upward.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from kvdesk.backend.llama import context as contexts
from kvdesk.backend.llama import library
from kvdesk.backend.llama.abort_flag import AbortFlag
from kvdesk.backend.llama.context import ABORTED, Context
from kvdesk.backend.llama.kv.batches import ReadCost, batches
from kvdesk.backend.llama.kv.checkpoints import Checkpoint, Checkpoints, common_prefix
from kvdesk.backend.llama.kv.growth_question import Cancelled, ContextFull, GrowQuestion, always_grow, always_trim
from kvdesk.backend.llama.kv.growth_step import MoveSpeed
from kvdesk.backend.llama.kv.saved_cells import SavedCells, needs_conversion, save_cells
from kvdesk.backend.llama.kv.transfer import restore_checkpoint, save_checkpoint
from kvdesk.backend.llama.library import lib
from kvdesk.backend.llama.model import Model
from kvdesk.backend.protocol.facts import ContextFacts, GrowStep, KvState
from kvdesk.backend.settings import ContextSettings, pad256
from kvdesk.errors import ContextFailed, EngineError


class ConversationCells:
    """Sequence 0 of one context and the tokens in it. ``tokens`` are exactly those whose cells exist."""

    def __init__(self, model: Model, settings: ContextSettings, abort: AbortFlag) -> None:
        """Make the context. Raises ContextFailed."""
        self.model = model
        self.settings = settings
        self.abort = abort
        self.conversation_id = ""
        self.tokens: list[int] = []
        self.known: list[int] = []
        """The conversation's tokens that were in the cells at any time: what of it is decoded again was *reread*."""
        self.asks_at_limit = False
        """Whether the end of the context length is a question ("ask") or an end."""
        self.n_keep = 0
        """Tokens at the front that forgetting spares: the system prompt's."""
        self.text: str | None = None
        """What ``tokens`` are the tokens of, if that is known: lets a next prompt go on with them and not with others
        that make the same text."""
        self.logits: bytes | None = None
        """Of the last of ``tokens``, where keep_prefix could bring them back and nothing is left to decode."""
        self.checkpoints = Checkpoints()
        self.on_grown: Callable[[GrowStep], None] = _ignore
        """Called after each change of size."""
        self.is_memory_short: Callable[[], bool] = bool
        """Whether other programs need what this context has too much of."""
        self.on_changed: Callable[[str, float], None] = _ignore
        """Called when the answer to a growth step was to convert the cells: what came of them (as change returns) and
        how many milliseconds it took."""
        self.on_forgotten: Callable[[int], None] = _ignore
        """Called with how many tokens were forgotten when that was the answer."""
        self._read_cost = ReadCost()
        self._move_speed = MoveSpeed()
        cells, self.limit = contexts.first_cells(settings, model)
        self.context = Context(model, settings, cells, abort)
        self.limit = max(self.limit, self.context.n_ctx)

    # --- facts -------------------------------------------------------------------------------------------------

    def kv(self) -> KvState:
        """How many cells are occupied and allocated now, and their bytes."""
        return replace(self.context.kv(), checkpoints_bytes=self.checkpoints.n_bytes)

    def facts(self, how: str = "new", elapsed_ms: float = 0.0) -> ContextFacts:
        """The context as it is."""
        return self.context.facts(self.limit, self.kv(), how, len(self.tokens), elapsed_ms)

    # --- keeping what is there ---------------------------------------------------------------------------------

    def keep_prefix(self, prompt: Sequence[int]) -> int:
        """Cut the cells back to what ``prompt`` shares with them and return how many tokens that leaves.

        At least one token of the prompt is left to decode, since its logits are wanted, unless ``logits`` are there.
        Where the cache cannot be cut to the shared length (sliding window, recurrent state), the nearest checkpoint
        before it is used.
        """
        self.logits = None
        common = common_prefix(self.tokens, prompt)
        answered = self.checkpoints.with_logits(common) if common == len(prompt) else None
        if answered and self._return_to(answered):
            self.logits = answered.logits
            return common
        shared = min(common, len(prompt) - 1)
        if self.context.has_tiles:
            shared = len(prompt) - self._read_cost.to_read(len(prompt) - shared, len(prompt))
        if self.context.can_cut(shared) and self.context.cut(shared):
            self._truncate(shared)
            return shared
        return self._return_before(shared)

    def _return_before(self, n_tokens: int) -> int:
        """Go back to the newest checkpoint of at most ``n_tokens`` tokens, or to none at all; returns its tokens."""
        for checkpoint in reversed(self.checkpoints):
            if checkpoint.n_tokens <= n_tokens and self._return_to(checkpoint):
                return checkpoint.n_tokens
        self.forget()
        return 0

    def _return_to(self, checkpoint: Checkpoint) -> bool:
        n, state = checkpoint.n_tokens, checkpoint.state
        restored = restore_checkpoint(self.context.ptr, state, n) if state else self.context.cut(n)
        if restored:
            self._truncate(n)
        return restored

    def _truncate(self, n: int) -> None:
        if n < len(self.tokens):
            self.text = None
        del self.tokens[n:]
        self.checkpoints.drop_after(n)

    def forget(self) -> None:
        """Empty all cells; the context stays."""
        self.context.clear()
        self.tokens.clear()
        self.checkpoints.clear()
        self.text = None

    def take(self, tokens: Sequence[int]) -> None:
        """The cells have been filled with those of ``tokens``, read in an earlier life of the conversation."""
        self.tokens = list(tokens)
        self.known = list(tokens)
        self.checkpoints.clear()
        start = tuple(tokens[:1]) == (lib.llama_vocab_bos(self.model.vocab),)
        text = self.model.text(tokens[1:] if start else tokens)
        self.text = text if self.model.joins_cleanly else text.removeprefix(" ")

    def start_conversation(self, conversation_id: str) -> None:
        """From now on the cells belong to ``conversation_id``; nothing of another one counts as known."""
        if conversation_id != self.conversation_id:
            self.conversation_id = conversation_id
            self.known = []

    def checkpoint(self, *, logits: bool = False) -> None:
        """Remember this point, if the model is one whose cells cannot always be cut back, or for the ``logits`` that
        the last decode left."""
        forgets = not self.context.can_always_cut
        if not (forgets or logits) or self.checkpoints.has(len(self.tokens)):
            return
        state = save_checkpoint(self.context.ptr) if forgets else None
        self.checkpoints.add(Checkpoint(len(self.tokens), state, self.context.logits() if logits else None))

    # --- filling ------------------------------------------------------------------------------------------------

    def feed(
        self,
        tokens: Sequence[int],
        ask: GrowQuestion,
        on_progress: Callable[[int], None] | None = None,
        *,
        logits: bool = False,
        spare: int = 0,
    ) -> None:
        """Decode ``tokens`` after those that are there, a physical batch at a time so that a stop is quick; with
        ``logits`` the next token can be sampled afterwards. The context grows at most once for all of them, with ``spare``
        cells for what comes next.

        Raises Cancelled, ContextFull or EngineError; the tokens decoded so far stay.
        """
        if not self.make_room(len(tokens), ask, spare=spare, trims=False):
            ask = always_trim  # not asked again for the same prompt
        done = 0
        for size in batches(len(tokens), self.settings.n_ubatch):
            part = tokens[done : done + size]
            self.make_room(size, ask)
            is_last = done + size == len(tokens)
            started, depth = time.monotonic(), len(self.tokens)
            if self.abort.is_set() or self.context.decode(part, logits=logits and is_last) == ABORTED:
                self._mend()
                raise Cancelled
            self._read_cost.note(size, depth, time.monotonic() - started)
            self.tokens.extend(part)
            done += size
            if on_progress:
                on_progress(done)

    def feed_one(self, token: int, ask: GrowQuestion) -> None:
        """As feed with logits, for the token loop."""
        if len(self.tokens) >= self.context.n_ctx:
            self.make_room(1, ask)
        if self.context.decode_one(token) == ABORTED:
            self._mend()
            raise Cancelled
        self.tokens.append(token)

    def note_known(self) -> None:
        """The cells' tokens are known to this conversation from now on."""
        self.known = list(self.tokens)

    def _mend(self) -> None:
        """After an aborted decode: make the cells and ``tokens`` agree again."""
        n = len(self.tokens)
        whole = not (self.model.is_recurrent or self.model.is_hybrid)  # a recurrent state may be half written
        if not (whole and self.context.cut(n) and self.context.end() == n):
            self._return_before(n)

    # --- forgetting ---------------------------------------------------------------------------------------------

    def shift(self, n_keep: int, ask: GrowQuestion) -> int:
        """Forget the older half of what follows the first ``n_keep`` tokens; returns how many tokens that were.

        Cells are moved where llama.cpp can turn their positions (llama_memory_can_shift), else the rest is read again.
        """
        n = (len(self.tokens) - n_keep) // 2
        rest = self.tokens[n_keep + n :]
        memory = self.context.memory
        model = self.model
        plain = not (model.is_recurrent or model.is_hybrid or model.n_swa or model.positions.most)
        if plain and lib.llama_memory_can_shift(memory):
            lib.llama_memory_seq_rm(memory, 0, n_keep, n_keep + n)
            lib.llama_memory_seq_add(memory, 0, n_keep + n, -1, -n)
            del self.tokens[n_keep : n_keep + n]
            self.checkpoints.drop_after(n_keep)
            # llama.cpp turns the keys with the next decode; a save before it would keep them unturned
            last = self.tokens.pop()
            self.context.cut(len(self.tokens))
            self.feed_one(last, ask)
            return n
        kept = self.tokens[:n_keep]
        self.keep_prefix([*kept, -1])
        self.feed([*kept[len(self.tokens) :], *rest], ask)
        return n

    # --- growing ------------------------------------------------------------------------------------------------

    def make_room(self, n_tokens: int, ask: GrowQuestion, *, spare: int = 0, trims: bool = True) -> bool:
        """See that ``n_tokens`` more fit, growing up to the limit, each step asked for first; ``spare`` cells more where it
        grows anyway. False where the answer is to forget and ``trims`` says that this is not the time.

        Raises ContextFull at the limit or when the answer is to stop.
        """
        failed = ""
        while (cells := len(self.tokens) + n_tokens) > self.context.n_ctx:
            if cells > self.limit or self.context.n_ctx >= self.limit:
                wanted, why = self._beyond_limit(cells)
                failed = failed or why
            else:
                kv_bytes = self.context.kv().bytes_allocated
                wanted = self._move_speed.next_cells(self.context.n_ctx, cells + spare, self.limit, kv_bytes)
            answer = ask(len(self.tokens), self.context.n_ctx, wanted, failed)
            if answer.action == "trim" and not trims:
                return False
            if answer.action == "grow" and wanted > self.context.n_ctx:
                before = self.limit, self.settings
                if wanted > self.limit:
                    n_ctx = pad256(wanted) * self.settings.n_seq_max
                    self.limit, self.settings = wanted, replace(self.settings, n_ctx=n_ctx)
                try:
                    self.resize(wanted)
                except ContextFailed as error:
                    self.limit, self.settings = before
                    failed = str(error)
            elif answer.action == "convert":
                started = time.monotonic()
                how = self.change(replace(self.settings, type_k=answer.type_k, type_v=answer.type_v))
                self.on_changed(how, (time.monotonic() - started) * 1000)
            elif answer.action == "trim" and len(self.tokens) > self.n_keep + 1:
                self.on_forgotten(self.shift(self.n_keep, ask))
            else:
                raise ContextFull
        return True

    def _beyond_limit(self, cells: int) -> tuple[int, str]:
        """How many cells to ask for beyond the limit, and what there is to say about it. Raises ContextFull."""
        if not self.asks_at_limit:
            raise ContextFull
        own = self.model.positions.within(pad256(lib.llama_model_n_ctx_train(self.model.ptr)))
        wanted = max(self.limit, min(own, max(2 * self.limit, pad256(cells))))
        turned = " In a longer one this model reads the whole conversation again."
        reached = f"The context length of {self.limit:,} tokens is reached."
        return wanted, reached + turned * self._turns(self.context.n_ctx, wanted)

    def shrink(self, n_tokens: int) -> None:
        """Give back what a conversation of ``n_tokens`` does not need, if that is half or more and memory is short."""
        first, _ = contexts.first_cells(self.settings, self.model)
        cells = max(first, pad256(n_tokens + self.settings.n_ubatch))
        if 2 * cells <= self.context.n_ctx and len(self.tokens) < cells and self.is_memory_short():
            self.resize(cells)

    def resize(self, cells: int) -> None:
        """Move everything into a context of ``cells``, or read it again there where cells cannot be moved.

        Raises ContextFailed with the old size back in place, or Cancelled while it is read again.
        """
        started = time.monotonic()
        before, occupied_bytes = self.context.n_ctx, self.context.kv().bytes_used
        saved = save_cells(self.context, self.tokens)
        self.context.close()
        try:
            made = Context(self.model, self.settings, cells, self.abort)
        except ContextFailed:
            self._go_back(before, saved)
            raise
        self.context, tokens = made, list(self.tokens)
        is_moved = saved is None or (not self._turns(before, made.n_ctx) and saved.move_into(made))
        del saved
        library.give_back_free_memory()  # the old cells and the copy: the chart shows what is really held
        self._move_speed.note(made.kv().bytes_allocated + occupied_bytes, time.monotonic() - started)
        try:
            if not is_moved:
                self.forget()
                self.feed(tokens, always_grow)
        finally:
            self.on_grown(GrowStep(len(self.tokens), before, made.n_ctx, (time.monotonic() - started) * 1000))

    def _turns(self, from_cells: int, to_cells: int) -> bool:
        """Whether cells of a context so long mean something else in one of another length (LongRoPE)."""
        positions = self.model.positions
        return positions.is_long(from_cells) != positions.is_long(to_cells)

    def _go_back(self, cells: int, saved: SavedCells | None) -> None:
        """Make the context as it was. Raises EngineError, and has none then, where there is no memory even for that."""
        try:
            made = Context(self.model, self.settings, cells, self.abort)
        except ContextFailed:
            self.tokens, self.known, self.checkpoints = [], [], Checkpoints()
            raise EngineError(
                "There is no memory left even for the context as it was; close other programs or load the model anew "
                "with a shorter context. The conversation is whole."
            ) from None
        self.context = made
        if saved is not None and not saved.move_into(made):
            self.forget()

    @property
    def is_lost(self) -> bool:
        """There is no context any more."""
        return self.context.ptr is None

    # --- changing settings ---------------------------------------------------------------------------------------

    def change(self, settings: ContextSettings, on_progress: Callable[[int], None] | None = None) -> str:
        """Make the context anew with ``settings`` and keep the conversation's cells: "moved" where types and flash
        attention stay, "converted" where they can be rewritten, else "reread"; "new" when there were none, "dropped"
        when the new length does not hold them.

        Raises ContextFailed, or Cancelled while they are read again; the old settings and cells are back in place then.
        """
        old, old_cells = (self.settings, self.limit), self.context.n_ctx
        tokens, checkpoints = list(self.tokens), self.checkpoints.copy()
        cells, limit = contexts.first_cells(settings, self.model)
        cells = min(limit, max(cells, pad256(len(tokens) + 1)))
        converts = needs_conversion(self.settings, settings)
        saved = save_cells(self.context, tokens, to_convert=converts)
        self.context.close()
        try:
            self.context = Context(self.model, settings, cells, self.abort)
            self.settings, self.limit = settings, max(limit, self.context.n_ctx)
            turns = self._turns(old_cells, self.context.n_ctx)
            how = self._fill(tokens, None if turns else saved, converts, on_progress)
        except (ContextFailed, EngineError, Cancelled):
            self.context.close()
            self.settings, self.limit = old
            self._go_back(old_cells, saved)
            self.tokens, self.checkpoints = tokens, checkpoints
            raise
        del saved
        library.give_back_free_memory()
        self._read_cost = ReadCost()
        return how

    def _fill(
        self,
        tokens: list[int],
        saved: SavedCells | None,
        converts: bool,
        on_progress: Callable[[int], None] | None,
    ) -> str:
        """Give the new, empty context the cells of ``tokens``, from ``saved`` where they mean the same in it."""
        if not tokens:
            return "new"
        if len(tokens) >= self.context.n_ctx:
            self.forget()
            return "dropped"
        if saved and not converts and saved.move_into(self.context):
            return "moved"
        if saved and converts:
            self.checkpoints.clear()
            if saved.convert_into(self.context):
                return "converted"
        self.forget()
        self.feed(tokens, always_grow, on_progress)
        return "reread"

    def close(self) -> None:
        """Free the context and its cells."""
        self.context.close()


def _ignore(*_facts: object) -> None:
    """For those whom nobody listens to."""
