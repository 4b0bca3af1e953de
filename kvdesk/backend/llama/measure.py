"""How fast the engine reads and writes at a given depth of its context. Engine process only; what to measure is decided
by backend/planning/context_profile.py."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from kvdesk.backend.llama import library
from kvdesk.backend.llama.kv.conversation_cells import ConversationCells
from kvdesk.backend.llama.kv.growth_question import Cancelled
from kvdesk.backend.llama.library import lib
from kvdesk.backend.llama.model import Model
from kvdesk.backend.protocol.messages import Event, GrowAnswer, Measure, Measured, PromptProgress


class _OutOfTime(Exception):
    """The request's time is over."""


def measure(session: ConversationCells, request: Measure, send: Callable[[Event], None]) -> Measured:
    """Fill the cells with ``request.n_past`` tokens, read ``n_prompt`` and write ``n_decode`` more, and time both.

    The tokens are the same whatever the depth, so a deeper request after a shallower one reads only the difference. The
    context must hold them all. A stop, or the limit of time, ends it with what is known by then.
    """
    deadline_s = time.monotonic() + request.limit_s
    read_at = request.n_past + request.n_prompt
    tokens = filler(session.model, read_at + request.n_decode)
    if len(session.tokens) > request.n_past or tokens[: len(session.tokens)] != session.tokens:
        session.forget()
    first = len(session.tokens)
    prompt_speed = speed = None

    def progress(done: int) -> None:
        send(PromptProgress(request.request_id, first + done, len(tokens), first))
        if time.monotonic() > deadline_s:
            raise _OutOfTime

    try:
        _read(session, tokens[first : request.n_past], progress)
        started_s = time.perf_counter()
        _read(session, tokens[request.n_past : read_at])
        prompt_speed = _per_second(request.n_prompt, time.perf_counter() - started_s)
        started_s = time.perf_counter()
        for token in tokens[read_at:]:
            _write(session, token)
        speed = _per_second(request.n_decode, time.perf_counter() - started_s)
    except (Cancelled, _OutOfTime):
        pass
    library.give_back_free_memory()
    return Measured(request.request_id, len(session.tokens), prompt_speed, speed, session.kv())


def filler(model: Model, n: int) -> list[int]:
    """``n`` tokens that begin a text and then mean nothing; those of a smaller ``n`` come first."""
    bos = lib.llama_vocab_bos(model.vocab)
    numbers = random.Random(0)  # noqa: S311
    return [max(bos, 0), *numbers.choices(range(model.n_vocab), k=n)][:n]


def _read(session: ConversationCells, tokens: list[int], on_progress: Callable[[int], None] | None = None) -> None:
    """Read ``tokens`` as a turn does and wait until that is really done: for the logits of the last, since a network
    worker computes on after llama_synchronize."""
    session.feed(tokens, _never_grow, on_progress, logits=True)
    lib.llama_synchronize(session.context.ptr)


def _write(session: ConversationCells, token: int) -> None:
    """As the token loop does, which waits for each token's logits."""
    session.feed_one(token, _never_grow)
    lib.llama_synchronize(session.context.ptr)


def _per_second(n_tokens: int, elapsed_s: float) -> float | None:
    return n_tokens / elapsed_s if n_tokens and elapsed_s > 0 else None


def _never_grow(*_: object) -> GrowAnswer:
    return GrowAnswer("stop")
