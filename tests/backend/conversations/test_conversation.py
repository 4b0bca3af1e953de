"""Conversations as values: branches, prompts, titles, files."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvdesk.backend.conversations.conversation import (
    TITLE_LENGTH,
    Message,
    active_path,
    new_conversation,
    new_message,
    newest_leaf,
    siblings,
    stats_to_dict,
    title_of,
    to_turns,
)
from kvdesk.backend.conversations.file_format import from_json, to_json, to_markdown
from kvdesk.backend.conversations.read_values import stats_from
from kvdesk.backend.protocol.facts import ChatTurn, StopReason, TurnStats
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings, EngineSettings
from kvdesk.errors import UsageError

STATS = TurnStats(StopReason.EOS, 12, 3, 41, 300.5, 99.0, 18.23, 2)


def tree():
    """A question, two replies to it, a question after the first, and an edit of the first question with its reply."""
    question = new_message("user", "Why is the sky blue?", None, 1.0)
    first = new_message("assistant", "Rayleigh.", question.id, 2.0, stats=STATS, model_name="Gemma 3")
    second = new_message("assistant", "Scattering.", question.id, 3.0, stop_note="stopped", is_complete=False)
    more = new_message("user", "More", first.id, 4.0)
    edited = new_message("user", "Why is the sea blue?", None, 5.0)
    reply = new_message("assistant", "It mirrors.", edited.id, 6.0)
    return question, first, second, more, edited, reply


def test_a_branch_is_the_way_from_the_first_message_to_the_leaf():
    question, first, second, more, edited, reply = messages = tree()
    assert active_path(messages, more.id) == (question, first, more)
    assert active_path(messages, second.id) == (question, second)
    assert active_path(messages, reply.id) == (edited, reply)
    assert active_path(messages, None) == ()
    assert active_path((), "gone") == ()
    assert active_path(messages, "gone") == (edited, reply)  # better the newest branch than an empty window


def test_versions_of_a_message_are_its_siblings_oldest_first():
    question, first, second, more, edited, _reply = messages = tree()
    assert siblings(reversed(messages), second) == (first, second)
    assert siblings(messages, question) == (question, edited)
    assert siblings(messages, more) == (more,)


def test_switching_to_a_version_shows_the_newest_way_on():
    question, first, second, more, edited, reply = messages = tree()
    assert newest_leaf(messages, first.id) == more.id
    assert newest_leaf(messages, edited.id) == reply.id
    assert newest_leaf(messages, question.id) == second.id


def test_messages_that_answer_each_other_do_not_hang():
    a = Message("a", "b", "user", "", 0.0)
    b = Message("b", "a", "assistant", "", 1.0)
    assert {m.id for m in active_path((a, b), "a")} == {"a", "b"}
    assert newest_leaf((a, b), "a") in {"a", "b"}


def test_turns_are_the_system_prompt_and_the_branch():
    question, first, _second, more, *_ = tree()
    conversation = new_conversation(0.0, system_prompt="Be brief.")
    assert to_turns(conversation, (question, first, more)) == (
        ChatTurn("system", "Be brief."),
        ChatTurn("user", "Why is the sky blue?"),
        ChatTurn("assistant", "Rayleigh."),
        ChatTurn("user", "More"),
    )
    assert to_turns(new_conversation(0.0, system_prompt=" \n"), (question,))[0].role == "user"


def test_turns_alternate_even_after_a_reply_that_never_began():
    question = new_message("user", "One", None, 1.0)
    nothing = new_message("assistant", "", question.id, 2.0, is_complete=False)
    again = new_message("user", "Two", nothing.id, 3.0)
    assert to_turns(new_conversation(0.0), (question, nothing, again)) == (ChatTurn("user", "One\n\nTwo"),)


def test_only_people_and_models_speak():
    with pytest.raises(ValueError, match="tool"):
        new_message("tool", "", None, 0.0)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        ("\n\n  ## A **heading**\nand more", "A heading"),
        ("> - `__init__` or **new**?", "__init__ or new?"),
        ("-480 MiB of *what*", "-480 MiB of *what*"),
        ("```\ncode()\n```", "code()"),
        ("  \n\t", ""),
        ("word " * 30, "word word word word word word word word word word word…"),
        ("x" * 100, "x" * 59 + "…"),
    ],
)
def test_a_title_is_the_first_line_with_words(text, title):
    assert title_of(text) == title


@given(st.text())
def test_a_title_fits_on_one_line(text):
    assert len(title_of(text)) <= TITLE_LENGTH
    assert len(title_of(text).splitlines()) <= 1


def test_stats_survive_json_and_newer_keys():
    values = json.loads(json.dumps(stats_to_dict(STATS)))
    assert stats_from({**values, "from_the_future": 1}) == STATS


def test_markdown_is_the_branch_for_people():
    messages = tree()
    conversation = new_conversation(
        86400.0 * 365, title="Sky", system_prompt="Be brief.", active_leaf_id=messages[1].id
    )
    text = to_markdown(conversation, messages)
    assert text.startswith("# Sky\n\n1971-01-01\n\n## System\n\nBe brief.\n\n## User\n\nWhy is the sky blue?\n\n")
    assert text.endswith("## Assistant (Gemma 3)\n\nRayleigh.\n\n*41 tokens, 18.2 tok/s, stop: eos*\n")


def test_json_holds_every_branch_and_can_be_read_back():
    messages = tree()
    conversation = new_conversation(
        7.0,
        title="Sky",
        system_prompt="Be brief. \N{CLOUD}",
        sampling=SamplingSettings(temperature=0.25, seed=4_000_000_000),
        engine_settings=EngineSettings(context=ContextSettings(n_ctx=4096, type_k="q8_0")),
        overflow="rolling",
        active_leaf_id=messages[3].id,
        model_path="C:\\models\\gemma.gguf",
    )
    read, read_messages = from_json(to_json(conversation, messages))
    assert read.id != conversation.id
    assert {m.id for m in read_messages}.isdisjoint(m.id for m in messages)
    assert dataclasses.replace(read, id="", active_leaf_id=None) == dataclasses.replace(
        conversation, id="", active_leaf_id=None
    )

    def plain(some, leaf):
        return [(m.role, m.content, m.created_s, m.stats, m.model_name, m.stop_note, m.is_complete)
                for m in active_path(some, leaf)]  # fmt: skip

    by_time = {m.created_s: m for m in read_messages}
    for message in messages:
        assert plain(read_messages, by_time[message.created_s].id) == plain(messages, message.id)
    assert read.active_leaf_id == by_time[4.0].id
    seen = set()
    for message in read_messages:  # a store with foreign keys needs parents first
        assert message.parent_id is None or message.parent_id in seen
        seen.add(message.id)


def broken(change):
    document = json.loads(to_json(new_conversation(1.0), tree()))
    change(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "not a JSON object"),
        ("{}", "no kvdesk conversation"),
        (broken(lambda d: d.update(version=2)), "newer kvdesk"),
        (broken(lambda d: d.update(messages=3)), "not a list"),
        (broken(lambda d: d.update(conversation=[])), "not a JSON object"),
        (broken(lambda d: d["messages"][0].update(parent_id=d["messages"][1]["id"])), "no tree"),
        (broken(lambda d: d["messages"][1].update(parent_id="gone")), "no tree"),
        (broken(lambda d: d["messages"][1].update(parent_id=[5])), "no tree"),
        (broken(lambda d: d["messages"][1].update(id=d["messages"][0]["id"])), "id of its own"),
        (broken(lambda d: d["messages"][0].update(role="tool")), "'tool'"),
        (broken(lambda d: d["messages"][0].update(content=7)), "not a text"),
        (broken(lambda d: d["messages"][0].update(created_s=float("nan"))), "not a time"),
        (broken(lambda d: d["messages"][0].update(created_s=10**400)), "not a time"),
        (broken(lambda d: d["messages"][0].update(stats={"stop_reason": "bored"})), "stats"),
        (broken(lambda d: d["messages"][0].update(stats=[])), "stats"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(text, words):
    with pytest.raises(UsageError, match=words):
        from_json(text)


def test_odd_settings_in_a_file_fall_back_to_their_defaults():
    def change(document):
        document["conversation"].update(
            sampling={"temperature": "hot", "top_k": 3, "new": 1}, engine_settings={"context": 5}, overflow="panic"
        )

    conversation, _ = from_json(broken(change))
    assert conversation.sampling == SamplingSettings(top_k=3)
    assert conversation.engine_settings == EngineSettings()
    assert conversation.overflow == "ask"


def test_a_file_that_names_no_branch_shows_the_newest():
    conversation, messages = from_json(broken(lambda d: d["conversation"].update(active_leaf_id="gone")))
    assert conversation.active_leaf_id == messages[-1].id
    conversation, _ = from_json(broken(lambda d: d.update(messages=[])))
    assert conversation.active_leaf_id is None


def test_half_characters_do_not_reach_the_store():
    _, messages = from_json(broken(lambda d: d["messages"][0].update(content="a\ud800b")))
    assert messages[0].content == "a?b"
