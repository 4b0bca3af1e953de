"""What ends a reply, and thinking turned off, in a real engine whose tiny model writes a script (tests/scripted_model.py)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import StopReason
from tests.engine.harness import GREEDY, Desk
from tests.scripted_model import Item, write_scripted

TURN = "{%% for m in messages %%}<|%s|>{{ m.content }}%s{%% endfor %%}<|assistant|>"
SHORT = replace(GREEDY, max_tokens=12)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as desk:
        yield desk


def load(desk: Desk, folder: Path, script: list[Item], template: str, *control: str) -> None:
    path = write_scripted(folder / "scripted.gguf", script, control=control, chat_template=template)
    desk.load(path)


def thought(desk: Desk) -> str:
    return "".join(event.thought for event in desk.of(m.TextGenerated))


def test_an_end_mark_that_is_no_token_ends_the_reply(desk: Desk, tmp_path: Path) -> None:
    load(desk, tmp_path, ["Four.", "</assi", "stant>", "<|user|>"], TURN % ("{{ m.role }}", "</assistant>\n"))
    text, stats = desk.answer("two and two", sampling=SHORT)
    assert text == "Four."
    assert stats.stop_reason == StopReason.EOS
    assert stats.completion_tokens == 3


def test_an_end_mark_that_the_vocabulary_does_not_call_an_end_ends_the_reply(desk: Desk, tmp_path: Path) -> None:
    script: list[Item] = ["<think>", "a", "<|stop|>", "b", "</think>", "Four.", "<|stop|>", "never"]
    load(desk, tmp_path, script, TURN % ("{{ m.role }}", "<|stop|>"), "<|stop|>", "<think>", "</think>")
    text, stats = desk.answer("two and two", sampling=SHORT)
    assert (thought(desk), text) == ("ab", "Four.")  # in a thought it is one more token
    assert stats.stop_reason == StopReason.EOS


def test_a_stop_string_ends_the_answer_and_no_thought(desk: Desk, tmp_path: Path) -> None:
    script: list[Item] = ["<think>", "one. ", "two. ", "</think>", "three", ". ", "four. ", "</s>"]
    load(desk, tmp_path, script, TURN % ("{{ m.role }}", "</s>"), "<think>", "</think>")
    text, stats = desk.answer("count", sampling=replace(SHORT, stop=(".",)))
    assert (thought(desk), text) == ("one. two. ", "three")
    assert stats.stop_reason == StopReason.STOP_STRING


def test_a_thought_that_the_prompt_opens_is_closed_when_thinking_is_off(desk: Desk, tmp_path: Path) -> None:
    template = TURN % ("{{ m.role }}", "</s>") + "<think>\n"
    load(desk, tmp_path, ["Four.", "</s>"], template, "<think>", "</think>")
    text, stats = desk.answer("two and two", sampling=replace(SHORT, thinking="off"))
    assert (thought(desk), text) == ("", "Four.")
    assert stats.thinking_tokens == 0
    text, stats = desk.answer("two and two", sampling=SHORT)
    assert (thought(desk), text) == ("Four.", "")


def test_a_reply_that_ends_within_a_character_holds_no_replacement_character(desk: Desk, tmp_path: Path) -> None:
    load(desk, tmp_path, ["ok", "é".encode()[:1], "</s>"], TURN % ("{{ m.role }}", "</s>"))
    assert desk.answer("say it", sampling=SHORT)[0] == "ok"
