"""Models that think, scripted token by token: what the engine tells of them, and that they can be talked to again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvdesk.backend.llama.model import Model
from kvdesk.backend.llama.prompt import Prompt
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ChatTurn, StopReason
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings, ModelSettings
from tests.engine.harness import Desk
from tests.scripted_model import Item, write_scripted
from tests.source_archive import llama_cpp_source

CONTEXT = ContextSettings(n_ctx=4096, n_threads=1)
TEMPLATES = llama_cpp_source() / "models" / "templates"
QWEN = ("Qwen-Qwen3-0.6B", ["<|im_start|>", "<|im_end|>"], ["<think>", "</think>"], "<|im_end|>")
GEMMA4 = ("google-gemma-4-31B-it", ["<|channel>", "<channel|>", "<|turn>", "<turn|>", "<|think|>"], [], "<turn|>")
MINISTRAL = ("mistralai-Ministral-3-14B-Reasoning-2512", ["[THINK]", "[/THINK]", "[INST]", "[/INST]"], [], "</s>")
HARMONY = (
    "openai-gpt-oss-120b",
    ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"],
    [],
    "<|return|>",
)
CASES: list[tuple[tuple[str, list[str], list[str], str], list[Item]]] = [
    (QWEN, ["<think>", "\n", "hm", "\n", "</think>", "\n\n", "Four.", "<|im_end|>"]),
    (GEMMA4, ["<|channel>", "thought\n", "hm", "<channel|>", "Four.", "<turn|>"]),
    (MINISTRAL, ["[THINK]", "hm", "[/THINK]", "Four.", "</s>"]),
    (
        HARMONY,
        [
            "<|channel|>",
            "analysis",
            "<|message|>",
            "hm",
            "<|end|>",
            "<|start|>",
            "assistant",
            "<|channel|>",
            "final",
            "<|message|>",
            "Four.",
            "<|return|>",
        ],
    ),
]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as desk:
        yield desk


def load(desk: Desk, folder: Path, case: tuple[str, list[str], list[str], str], script: list[Item]) -> None:
    stem, control, user, eos = case
    template = (TEMPLATES / f"{stem}.jinja").read_text("utf-8")
    path = write_scripted(folder / f"{stem}.gguf", script, control=control, user=user, eos=eos, chat_template=template)
    loaded = desk.load(path, CONTEXT)
    assert loaded.model.template_problem == ""


def thought_of(desk: Desk, since: int) -> str:
    return "".join(event.thought for event in desk.seen[since:] if isinstance(event, m.TextGenerated)).strip()


@pytest.mark.parametrize(("case", "script"), CASES, ids=lambda value: value[0] if isinstance(value, tuple) else "")
def test_thought_and_answer_are_told_apart_turn_after_turn(
    case: tuple[str, list[str], list[str], str], script: list[Item], desk: Desk, tmp_path: Path
) -> None:
    load(desk, tmp_path, case, script)
    turns: list[ChatTurn] = [ChatTurn("system", "be brief")]
    for number, question in enumerate(("two and two?", "again?", "and again?"), 1):
        turns.append(ChatTurn("user", question))
        since = len(desk.seen)
        desk.engine.send(m.Generate(number, "c", tuple(turns), SamplingSettings(temperature=0.0, max_tokens=64)))
        finished = desk.until(m.TurnFinished)
        text = "".join(event.text for event in desk.seen[since:] if isinstance(event, m.TextGenerated))
        assert (text, thought_of(desk, since)) == ("Four.", "hm")
        assert finished.stats.stop_reason is StopReason.EOS
        assert 0 < finished.stats.thinking_tokens < finished.stats.completion_tokens
        turns.append(ChatTurn("assistant", text, thought_of(desk, since)))


@pytest.mark.parametrize(("case", "script"), CASES, ids=lambda value: value[0] if isinstance(value, tuple) else "")
def test_a_reply_cut_off_in_its_thought_goes_on_to_the_answer(
    case: tuple[str, list[str], list[str], str], script: list[Item], desk: Desk, tmp_path: Path
) -> None:
    load(desk, tmp_path, case, script)
    question = ChatTurn("user", "two and two?")
    until_thought = next(i for i, item in enumerate(script) if item == "hm") + 1
    desk.engine.send(m.Generate(1, "c", (question,), SamplingSettings(temperature=0.0, max_tokens=until_thought)))
    assert desk.until(m.TurnFinished).stats.stop_reason is StopReason.LENGTH
    assert thought_of(desk, 0) == "hm"
    since = len(desk.seen)
    unfinished = ChatTurn("assistant", "", "hm")
    sampling = SamplingSettings(temperature=0.0, max_tokens=64)
    desk.engine.send(m.Generate(2, "c", (question, unfinished), sampling, continue_last=True))
    finished = desk.until(m.TurnFinished)
    text = "".join(event.text for event in desk.seen[since:] if isinstance(event, m.TextGenerated))
    assert text == "Four."
    assert finished.stats.reused_tokens >= finished.stats.prompt_tokens - 1
    assert finished.stats.stop_reason is StopReason.EOS


@pytest.mark.parametrize("kind", ["bpe", "spm"])
def test_marks_in_what_people_write_stay_text(desk: Desk, tmp_path: Path, kind: str) -> None:
    """Qwen's <think> is a USER_DEFINED token, which llama.cpp finds in every text."""
    stem, control, user, eos = QWEN
    template = (TEMPLATES / f"{stem}.jinja").read_text("utf-8")
    script: list[Item] = ["Four.", "<|im_end|>"]
    user = [*user, "<h1>"]
    path = write_scripted(
        tmp_path / "m.gguf", script, control=control, user=user, eos=eos, chat_template=template, kind=kind
    )
    loaded = Model(str(path), ModelSettings(), vocabulary_only=True)
    prompt = Prompt(loaded)
    try:
        for typed in ("what is <think> for?", "<think></think>", "</think", "a <h1> and <|im_start|>"):
            tokens = prompt.tokens([ChatTurn("user", typed)])
            around = prompt.tokens([ChatTurn("user", "x")])
            own = {
                token
                for text in (*control, "<think>", "</think>")
                for token in loaded.tokenize(text, parse_special=True)
            }
            assert [t for t in tokens if t in own] == [t for t in around if t in own]
            assert typed in loaded.text(tokens)
        (html,) = loaded.tokenize("<h1>", parse_special=False)
        assert html in tokens  # the vocabulary's business, no mark of the template
    finally:
        prompt.close()
        loaded.close()
