"""One reply: prompt in, tokens out, text coalesced, a reason at the end. Engine process only."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from kvdesk.backend.chat_format.reply_reader import ReplyReader
from kvdesk.backend.chat_format.thinking import NO_MARKS, ThinkingSplitter
from kvdesk.backend.llama.fitting import FORGETTING, MIDDLE, fit
from kvdesk.backend.llama.kv.checkpoints import common_prefix
from kvdesk.backend.llama.kv.conversation_cells import ConversationCells
from kvdesk.backend.llama.kv.growth_question import Cancelled, ContextFull, GrowQuestion
from kvdesk.backend.llama.kv.growth_step import REPLY_TOKENS
from kvdesk.backend.llama.prompt import Prompt
from kvdesk.backend.llama.sampler import Sampler
from kvdesk.backend.llama.snapshot_cache import SnapshotCache
from kvdesk.backend.protocol.facts import ChatTurn, StopReason, TurnStats
from kvdesk.backend.protocol.messages import (
    Event,
    Forgot,
    Generate,
    KvChanged,
    PromptProgress,
    TextGenerated,
    TurnFinished,
)
from kvdesk.errors import PromptTooLong

FLUSH_S = 0.05
"""Text goes up at most this often, which is as smooth as reading is: every message costs the processor in two processes."""

KV_S = 0.5
"""Occupancy goes up at most this often while a reply is written, as often as memory is sampled: people read it."""


class Turn:
    """Runs one Generate command. ``send`` takes events, ``ask`` decides on growth."""

    def __init__(
        self,
        session: ConversationCells,
        prompt: Prompt,
        keeper: SnapshotCache | None,
        request: Generate,
        send: Callable[[Event], None],
        ask: GrowQuestion,
    ) -> None:
        self._keeper = keeper
        self._session = session
        self._prompt = prompt
        self._request = request
        self._send = send
        self._ask = ask
        self._started = time.monotonic()
        self._text: list[str] = []
        self._completion = 0
        self._first_token: float | None = None
        self._flushed = 0.0
        self._kv_told = 0.0
        self._prompt_text = ""
        self._thought: list[str] = []
        self._thinking_tokens = 0
        self._closing: list[int] = []
        """What is left of the tokens that close a thought."""
        self._splitter = ThinkingSplitter(NO_MARKS)
        """Tells thoughts from the answer; of this prompt once there is one."""

    def run(self) -> None:
        """Answer, and send TurnFinished with why it ended.

        Raises PromptTooLong or SettingsError (nothing was changed), or EngineError; text already sent stays sent.
        """
        sampler = Sampler(self._request.sampling, self._session.model)
        try:
            self._run(sampler)
        finally:
            sampler.close()

    def _run(self, sampler: Sampler) -> None:
        session, request = self._session, self._request
        try:
            turns, tokens = self._fitting_prompt()
        except Cancelled:  # nothing was read or written
            stats = TurnStats(StopReason.CANCELLED, 0, 0, 0, (time.monotonic() - self._started) * 1000, None, None)
            self._send(TurnFinished(request.request_id, stats, session.kv()))
            return
        if request.conversation_id != session.conversation_id:
            if self._keeper:
                self._keeper.keep(session)
            session.start_conversation(request.conversation_id)
            if self._keeper and self._keeper.bring_back(session, request.conversation_id, tokens, self._ask):
                tokens = self._tokens(turns)
            session.keep_prefix(tokens)
            session.shrink(len(tokens))
        session.n_keep = self._kept_prefix(turns, tokens)
        session.asks_at_limit = request.overflow == "ask"
        session.on_forgotten = lambda n: self._send(Forgot(request.request_id, 0, n))
        known = common_prefix(session.known, tokens)
        reused = session.keep_prefix(tokens)
        prompt_started = time.monotonic()
        read = 0

        def progress(done: int) -> None:
            nonlocal read
            read = done
            self._send(PromptProgress(request.request_id, reused + done, len(tokens), reused))
            self._send(KvChanged(session.kv()))

        try:
            if reused < len(tokens):
                session.feed(tokens[reused:], self._ask, progress, logits=True, spare=self._reply_cells())
            prompt_s = time.monotonic() - prompt_started
            reason = self._generate(sampler, has_read=reused < len(tokens))
        except Cancelled:
            prompt_s, reason = time.monotonic() - prompt_started, StopReason.CANCELLED
        except ContextFull:
            prompt_s = time.monotonic() - prompt_started
            reason = StopReason.CANCELLED if session.abort.is_set() else StopReason.CONTEXT_FULL
        self._flush()
        self._note_text(tokens)
        session.note_known()
        session.checkpoint()
        generated_s = time.monotonic() - self._first_token if self._first_token else 0.0
        self._send(
            TurnFinished(
                request.request_id,
                TurnStats(
                    stop_reason=reason,
                    prompt_tokens=len(tokens),
                    reused_tokens=reused,
                    completion_tokens=self._completion,
                    ttft_ms=((self._first_token or time.monotonic()) - self._started) * 1000,
                    prompt_tokens_per_second=read / prompt_s if read and prompt_s > 0 else None,
                    tokens_per_second=(self._completion - 1) / generated_s
                    if self._completion > 1 and generated_s > 0
                    else None,
                    reread_tokens=max(0, min(known, len(tokens)) - reused),
                    thinking_tokens=self._thinking_tokens,
                ),
                session.kv(),
            )
        )

    def _note_text(self, tokens: list[int]) -> None:
        """If the cells hold this prompt and what was generated, remember which text that is."""
        session = self._session
        if self._prompt_text and session.tokens[: len(tokens)] == tokens:
            session.text = self._prompt_text + session.model.text(session.tokens[len(tokens) :])

    # --- the prompt ---------------------------------------------------------------------------------------------

    def _fitting_prompt(self) -> tuple[list[ChatTurn], list[int]]:
        """Turns and tokens that leave room for a reply, the oldest turns forgotten if the policy says so."""
        request, limit = self._request, self._session.limit
        if request.overflow not in FORGETTING:
            tokens = self._tokens(request.turns)
            if len(tokens) >= limit:
                raise PromptTooLong(
                    f"The conversation has {len(tokens):,} tokens and the context {limit:,}; choose a longer context or "
                    "let it forget the oldest turns.",
                    len(tokens),
                    limit,
                )
            return list(request.turns), tokens
        room = limit - min(request.sampling.max_tokens or limit // 4, limit // 4)
        fitted = fit(request.turns, request.overflow, room, self._count, self._tokens)
        turns, tokens = fitted.turns, fitted.tokens
        if len(tokens) >= limit:
            raise PromptTooLong(
                f"The last message alone has {len(tokens):,} tokens and the context {limit:,}; shorten it or choose "
                "a longer context.",
                len(tokens),
                limit,
            )
        if fitted.n_forgotten:
            kept = set(map(id, turns))
            lost = sum(self._count(turn) for turn in request.turns if id(turn) not in kept)
            self._send(Forgot(request.request_id, fitted.n_forgotten, lost))
        return turns, tokens

    def _count(self, turn: ChatTurn) -> int:
        """Tokens of what ``turn`` says. Raises Cancelled once a stop was asked for."""
        if self._session.abort.is_set():
            raise Cancelled
        return self._prompt.count(turn.content) + self._prompt.count(turn.thought)

    def _tokens(self, turns: Sequence[ChatTurn]) -> list[int]:
        """The prompt's tokens; where its text goes on from what the cells hold, those very tokens and then the rest."""
        session = self._session
        text, contents, self._splitter = self._prompt.text(
            turns,
            continue_last=self._request.continue_last,
            held=session.text or "",
            thinking=self._request.sampling.thinking,
        )
        self._prompt_text = "" if contents else text
        if session.text and not contents and text.startswith(session.text):
            rest = session.model.tokenize(text[len(session.text) :], parse_special=True)
            if not rest or session.model.joins_cleanly or session.model.is_control(rest[0]):
                return session.tokens + rest
        return self._prompt.tokenize(text, contents)

    def _kept_prefix(self, turns: Sequence[ChatTurn], tokens: Sequence[int]) -> int:
        """Tokens at the front that are never forgotten: the system prompt with what the template puts around it, and the
        first exchange where the policy keeps it."""
        n_kept = sum(turn.role == "system" for turn in turns)
        if self._request.overflow == MIDDLE and len(turns) > n_kept + 2:
            n_kept += 2
        one, other = (
            self._prompt.tokens([*turns[:n_kept], ChatTurn("user", text)], thinking=self._request.sampling.thinking)
            for text in "12"
        )
        return min(common_prefix(one, other), common_prefix(one, tokens))

    def _reply_cells(self) -> int:
        """Cells that the reply will need, as far as that can be told: room for them is made with the prompt's."""
        return min(self._request.sampling.max_tokens or REPLY_TOKENS, REPLY_TOKENS)

    # --- the reply ----------------------------------------------------------------------------------------------

    def _generate(self, sampler: Sampler, *, has_read: bool) -> StopReason:
        """Write until something ends the reply. ``has_read``: some of the prompt was decoded, and its end is worth going back
        to; that is saved once the first text is out, before the cells hold more than the prompt."""
        session = self._session
        sampling, prompt = self._request.sampling, self._prompt
        strips = prompt.is_dialogue and not self._request.continue_last
        reader = ReplyReader(self._splitter, prompt.ends, sampling.stop, strips=strips)
        try:
            for token in session.tokens[-sampler.looks_back :] if sampler.looks_back else ():
                sampler.accept(token)
            kept_logits = session.logits
            while True:
                token = self._next(sampler, reader, kept_logits)
                kept_logits = None
                if token is None:
                    return StopReason.EOS
                ended = self._taken(token, reader)
                if has_read and self._completion == 1:
                    session.checkpoint(logits=True)
                if ended:
                    return ended
                self._feed(token)
                if sampling.max_tokens and self._completion >= sampling.max_tokens:
                    return StopReason.LENGTH
        except Cancelled:
            return StopReason.CANCELLED
        finally:
            self._sort(reader.finish())

    def _next(self, sampler: Sampler, reader: ReplyReader, logits: bytes | None) -> int | None:
        """The next token: of a thought that has taken its budget, what closes it; else what the samplers pick."""
        budget = self._request.sampling.thinking_budget
        if not self._closing and 0 <= budget <= self._thinking_tokens and reader.is_thinking:
            self._closing = self._session.model.tokenize(reader.closing, parse_special=True)
        if self._closing:
            token = self._closing.pop(0)
            sampler.accept(token)
            return token
        if logits:
            return sampler.pick(logits, is_thinking=reader.is_thinking)
        return sampler.next_token(self._session.context.ptr, is_thinking=reader.is_thinking)

    def _taken(self, token: int, reader: ReplyReader) -> StopReason | None:
        """Say what ``token`` writes; why the reply ends before it is in the cells, None where it goes on."""
        model, prompt = self._session.model, self._prompt
        self._completion += 1
        if self._first_token is None:
            self._first_token = time.monotonic()
        if model.is_end(token) or (token in prompt.end_tokens and not reader.is_thinking):
            return StopReason.EOS
        self._say(reader.feed(model.piece(token, special=token in prompt.mark_tokens)), reader.is_thinking)
        if reader.ended_by:
            return StopReason.STOP_STRING if reader.was_stopped else StopReason.EOS
        return StopReason.CANCELLED if self._session.abort.is_set() else None

    def _feed(self, token: int) -> None:
        """Decode ``token``; at the limit forget first, if the policy says so."""
        try:
            self._session.feed_one(token, self._ask)
        except ContextFull:
            session = self._session
            if self._request.overflow not in FORGETTING or len(session.tokens) < session.limit:
                raise
            forgotten = session.shift(session.n_keep, self._ask)
            self._send(Forgot(self._request.request_id, 0, forgotten))
            session.feed_one(token, self._ask)

    def _sort(self, pieces: Sequence[tuple[str, bool]]) -> None:
        for piece, is_thinking in pieces:
            (self._thought if is_thinking else self._text).append(piece)

    def _say(self, pieces: Sequence[tuple[str, bool]], is_thinking: bool) -> None:
        self._sort(pieces)
        self._thinking_tokens += is_thinking
        now = time.monotonic()
        if now - self._flushed >= FLUSH_S:
            self._flushed = now
            self._flush()

    def _flush(self) -> None:
        text, thought = "".join(self._text), "".join(self._thought)
        self._text.clear()
        self._thought.clear()
        if not text and not thought:
            return
        now = time.monotonic()
        since = now - self._first_token if self._first_token else 0.0
        speed = (self._completion - 1) / since if self._completion > 1 and since > 0 else None
        self._send(TextGenerated(self._request.request_id, text, self._completion, speed, thought))
        if now - self._kv_told >= KV_S:
            self._kv_told = now
            self._send(KvChanged(self._session.kv()))
