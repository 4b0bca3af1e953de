"""chat_format/thinking.py: a model's thoughts told from its answer, by its own template's marks, however the text arrives."""

from __future__ import annotations

import pytest

from kvdesk.backend.chat_format.thinking import ANY_MODEL, Marks, ThinkingSplitter, as_written, marks_in, split_reply
from tests.source_archive import llama_cpp_source

TEMPLATES = llama_cpp_source() / "models" / "templates"


def marks_of(stem: str) -> Marks:
    return marks_in((TEMPLATES / f"{stem}.jinja").read_text("utf-8"))


def in_pieces(text: str, length: int, marks: Marks, opened: tuple[str, str] | None = None) -> tuple[str, str]:
    """(thought, answer) of a stream of pieces of ``length`` characters."""
    splitter = ThinkingSplitter(marks, opened)
    pieces = [
        p for at in range(0, len(text), length) for p in splitter.feed(text[at : at + length])
    ] + splitter.finish()
    thought, answer = ("".join(t for t, is_thinking in pieces if is_thinking is which) for which in (True, False))
    return thought, answer


HARMONY = "openai-gpt-oss-120b"
REPLIES = [
    # (template, raw reply, thought, answer): what such a model writes
    ("Qwen-Qwen3-0.6B", "<think>\nwhy\n</think>\n\nbecause", "why", "because"),
    ("Qwen-Qwen3-0.6B", "<think>\n\n</think>\n\nbecause", "", "because"),
    ("Qwen-Qwen3-0.6B", "<think>cut off", "cut off", ""),
    ("Qwen-Qwen3-0.6B", "plain", "", "plain"),
    ("Qwen-Qwen3-0.6B", "see <think> in HTML", "", "see <think> in HTML"),
    ("Qwen-Qwen3-0.6B", "<thin> ice", "", "<thin> ice"),
    ("Qwen-Qwen3-0.6B", "<thi", "", "<thi"),
    ("google-gemma-4-31B-it", "<|channel>thought\nwhy<channel|>because", "why", "because"),
    ("ByteDance-Seed-OSS", "<seed:think>why</seed:think>because", "why", "because"),
    ("mistralai-Ministral-3-14B-Reasoning-2512", "[THINK]why[/THINK]because", "why", "because"),
    (
        "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
        "<|START_THINKING|>why<|END_THINKING|><|START_RESPONSE|>because",
        "why",
        "because",
    ),
    ("MiniMax-M3", "<mm:think>why</mm:think>because", "why", "because"),
    ("upstage-Solar-Open-100B", "<|think|>why<|end|><|begin|>assistant<|content|>because", "why", "because"),
    (HARMONY, "<|channel|>final<|message|>because", "", "because"),
    (HARMONY, "<|channel|>commentary<|message|>because", "", "because"),
    (HARMONY, "plain", "", "plain"),
    (HARMONY, "<|channel|>analysis<|message|>why", "why", ""),
    (
        HARMONY,
        "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final<|message|>because",
        "why",
        "because",
    ),
    (
        HARMONY,
        (
            "<|channel|>analysis<|message|>one<|end|><|start|>assistant<|channel|>analysis<|message|>two<|end|>"
            "<|start|>assistant<|channel|>final <|constrain|>json<|message|>{}"
        ),
        "one\n\ntwo",
        "{}",
    ),
    (
        HARMONY,
        (
            "<|channel|>commentary to=assistant<|channel|>analysis<|message|>why<|end|>"
            "<|start|>assistant<|channel|>final<|message|>because"
        ),
        "why",
        "because",
    ),
]


@pytest.mark.parametrize("length", [1, 3, 1000])
@pytest.mark.parametrize(("stem", "reply", "thought", "answer"), REPLIES)
def test_a_reply_is_told_apart_whatever_pieces_it_comes_in(
    stem: str, reply: str, thought: str, answer: str, length: int
) -> None:
    told = in_pieces(reply, length, marks_of(stem))
    assert (told[0].strip(), told[1]) == (thought, answer)


@pytest.mark.parametrize(
    "answer",
    [
        "Here are my reasoning steps:\n1. one\n[BEGIN FINAL RESPONSE] two",
        "<response>200 OK</response>",
        "<thought>a poem</thought>",
        "[THINK] is a button",
        "<|channel|>analysis<|message|>is gpt-oss's",
    ],
)
def test_an_answer_that_looks_like_another_models_marks_stays_an_answer(answer: str) -> None:
    assert split_reply(answer, marks_of("Qwen-Qwen3-0.6B")) == ("", answer)
    assert split_reply(answer, Marks()) == ("", answer)


def test_a_thought_that_the_prompt_opened_ends_with_its_closing_mark() -> None:
    marks = marks_of("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B")
    opened = marks.opened_in("<|Assistant|><think>\n")
    assert opened
    for length in (1, 4, 100):
        assert in_pieces("why\n</think>\n\nbecause", length, marks, opened) == ("why\n", "because")
        assert in_pieces("<think>why</think>because", length, marks, opened) == ("why", "because")
    assert marks.opened_in("<|Assistant|>") is None


@pytest.mark.parametrize(
    "stem", ["Qwen-Qwen3-0.6B", "google-gemma-4-31B-it", "mistralai-Ministral-3-14B-Reasoning-2512", HARMONY]
)
@pytest.mark.parametrize(("thought", "answer"), [("why", "because"), ("why", ""), ("", "because")])
def test_an_unfinished_reply_is_written_as_the_model_writes_it(stem: str, thought: str, answer: str) -> None:
    marks = marks_of(stem)
    written = "".join(piece for piece, _ in as_written(thought, answer, marks, None))
    told = in_pieces(written, 2, marks)
    assert (told[0].strip(), told[1]) == (thought, answer)


def test_an_unfinished_reply_goes_on_in_the_thought_that_the_prompt_opened() -> None:
    opened = ("<think>", "</think>")
    written = "".join(piece for piece, _ in as_written("why", "because", Marks(), opened))
    assert in_pieces(written, 2, Marks(), opened) == ("why\n", "because")
    assert [piece for piece, _ in as_written("why", "", Marks(), opened)] == ["", "why"]


def test_texts_of_nobody_knows_what_are_told_apart_by_every_mark() -> None:
    assert split_reply("<seed:think>why</seed:think>because", ANY_MODEL) == ("why", "because")
    assert split_reply(
        "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final<|message|>because"
    ) == (
        "why",
        "because",
    )
