"""controllers/token_counts.py: what is asked how often, and which answers count."""

from __future__ import annotations

from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ChatTurn
from kvdesk.ui.controllers.token_counts import TokenCounts
from tests.ui.controllers.conftest import Desk

TURNS = (ChatTurn("user", "hello"), ChatTurn("assistant", "hi"))


def test_a_conversation_is_counted_once_and_the_draft_each_time(desk: Desk) -> None:
    counts = TokenCounts(desk.session)
    told: list[tuple[int, int]] = []
    counts.counted.connect(lambda *both: told.append(both))
    counts.ask(TURNS, "a")
    counts.ask(TURNS, "ab")
    whole, first, second = desk.asked.sent(m.CountTokens)
    assert (whole.turns, first.turns, second.turns) == (TURNS, (ChatTurn("user", "a"),), (ChatTurn("user", "ab"),))
    assert (whole.is_plain, second.is_plain) == (False, True)
    counts.take(m.TokensCounted(first.request_id, 99))  # of a draft that has changed
    counts.take(m.TokensCounted(second.request_id, 2))
    assert told == []  # the conversation's is not known yet
    counts.take(m.TokensCounted(whole.request_id, 9))
    assert told == [(9, 2)]


def test_another_model_counts_anew(desk: Desk) -> None:
    counts = TokenCounts(desk.session)
    counts.ask(TURNS, "")
    counts.forget()
    counts.ask(TURNS, "")
    assert [one.turns for one in desk.asked.sent(m.CountTokens) if not one.is_plain] == [TURNS, TURNS]


def test_a_system_prompt_alone_is_no_conversation(desk: Desk) -> None:
    counts = TokenCounts(desk.session)
    told: list[tuple[int, int]] = []
    counts.counted.connect(lambda *both: told.append(both))
    counts.ask((ChatTurn("system", "Be brief."),), "")
    whole, draft = desk.asked.sent(m.CountTokens)
    counts.take(m.TokensCounted(draft.request_id, 0))
    counts.take(m.TokensCounted(whole.request_id, 12))
    assert told == [(0, 0)]
