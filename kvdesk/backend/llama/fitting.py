"""Which turns of a long conversation the model still sees: the oldest exchanges are left out until the rest fits. Pure.

A conversation of hundreds of turns is fitted by the sizes of its turns, each counted once, and tokenized as a whole only
where it is about to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvdesk.backend.protocol.facts import ChatTurn

MIDDLE, ROLLING = "truncate-middle", "rolling"
FORGETTING = (MIDDLE, ROLLING)
"""Overflow policies that make room by forgetting. MIDDLE keeps the system prompt, the first exchange and the newest;
ROLLING keeps the system prompt and the newest."""
TURN_TOKENS = 4
"""What a template writes around a turn, before a rendering has shown more."""


@dataclass(frozen=True)
class Fitted:
    """``turns`` that are kept, their ``tokens``, and how many turns were left out."""

    turns: list[ChatTurn]
    tokens: list[int]
    n_forgotten: int


def fit(
    turns: Sequence[ChatTurn],
    policy: str,
    room: int,
    count: Callable[[ChatTurn], int],
    tokens_of: Callable[[Sequence[ChatTurn]], list[int]],
) -> Fitted:
    """As many of ``turns`` as make at most ``room`` tokens, by ``policy``; the system prompt and the last exchange always.

    ``count`` gives the tokens of one turn's words (and may raise to end it all), ``tokens_of`` those of a whole prompt.
    """
    system = [turn for turn in turns if turn.role == "system"]
    exchanges = _exchanges([turn for turn in turns if turn.role != "system"])
    sizes = [sum(count(turn) + TURN_TOKENS for turn in exchange) for exchange in exchanges]
    base = sum(count(turn) + TURN_TOKENS for turn in system)
    first = 1 if policy == MIDDLE and len(exchanges) > 2 else 0
    dropped = _surplus(sizes, first, base + sum(sizes) - room)
    while True:
        kept = [turn for exchange in (*exchanges[:first], *exchanges[first + dropped :]) for turn in exchange]
        tokens = tokens_of([*system, *kept])
        if len(tokens) <= room:
            break
        more = _surplus(sizes, first + dropped, len(tokens) - room, at_least=1)
        if more:
            dropped += more
        elif first:  # even the first exchange has to go
            first, dropped = 0, dropped + 1
        else:
            break
    return Fitted([*system, *kept], tokens, len(turns) - len(system) - len(kept))


def _exchanges(turns: Sequence[ChatTurn]) -> list[list[ChatTurn]]:
    """A question with what answers it; each begins with a user's turn."""
    found: list[list[ChatTurn]] = []
    for turn in turns:
        if turn.role == "user" or not found:
            found.append([])
        found[-1].append(turn)
    return found


def _surplus(sizes: Sequence[int], start: int, excess: int, at_least: int = 0) -> int:
    """How many exchanges from ``start`` on have to go to save ``excess`` tokens; never the last one."""
    n = 0
    while start + n < len(sizes) - 1 and (excess > 0 or n < at_least):
        excess -= sizes[start + n]
        n += 1
    return n
