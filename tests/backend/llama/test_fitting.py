"""backend/llama/fitting.py: what a long conversation leaves out, and in how many looks. Tokens are words here."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kvdesk.backend.llama.fitting import MIDDLE, ROLLING, Fitted, fit
from kvdesk.backend.protocol.facts import ChatTurn

AROUND = 6
"""What this template writes around each turn; more than fit expects."""


def conversation(n: int, words: int = 10) -> list[ChatTurn]:
    turns = [ChatTurn("system", "be brief")]
    for i in range(n):
        turns += [ChatTurn("user", f"q{i} " * words), ChatTurn("assistant", f"a{i} " * words)]
    return [*turns, ChatTurn("user", "last " * words)]


def count(turn: ChatTurn) -> int:
    return len(turn.content.split())


class Template:
    """Renders, and remembers how often it was asked."""

    def __init__(self) -> None:
        self.renderings = 0

    def __call__(self, turns: Sequence[ChatTurn]) -> list[int]:
        self.renderings += 1
        return [0] * sum(count(turn) + AROUND for turn in turns)


def kept(fitted: Fitted) -> list[str]:
    return [turn.content.split()[0] for turn in fitted.turns]


def test_what_fits_stays_whole() -> None:
    turns = conversation(3)
    for policy in (MIDDLE, ROLLING):
        fitted = fit(turns, policy, 10_000, count, Template())
        assert (fitted.turns, fitted.n_forgotten) == (turns, 0)


def test_rolling_keeps_the_system_prompt_and_the_newest() -> None:
    fitted = fit(conversation(10), ROLLING, 130, count, Template())
    assert kept(fitted) == ["be", "q7", "a7", "q8", "a8", "q9", "a9", "last"]
    assert fitted.n_forgotten == 14
    assert len(fitted.tokens) <= 130


def test_middle_keeps_the_first_exchange_too() -> None:
    fitted = fit(conversation(10), MIDDLE, 130, count, Template())
    assert kept(fitted) == ["be", "q0", "a0", "q8", "a8", "q9", "a9", "last"]
    assert fitted.n_forgotten == 14


def test_the_first_exchange_goes_before_the_question_does() -> None:
    turns = conversation(3)
    turns[1] = ChatTurn("user", "long " * 500)
    fitted = fit(turns, MIDDLE, 60, count, Template())
    assert kept(fitted)[0] == "be"
    assert kept(fitted)[-1] == "last"
    assert "long" not in kept(fitted)


def test_the_last_exchange_stays_even_when_it_is_too_long() -> None:
    for policy in (MIDDLE, ROLLING):
        assert kept(fit(conversation(4), policy, 10, count, Template())) == ["be", "last"]


@pytest.mark.parametrize("policy", [MIDDLE, ROLLING])
def test_a_long_conversation_is_looked_at_a_few_times_only(policy: str) -> None:
    template = Template()
    fitted = fit(conversation(600, words=200), policy, 4000, count, template)
    assert 3000 < len(fitted.tokens) <= 4000
    assert template.renderings <= 3


def test_a_stop_ends_it() -> None:
    def stopped(_turn: ChatTurn) -> int:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(conversation(3), ROLLING, 10, stopped, Template())
