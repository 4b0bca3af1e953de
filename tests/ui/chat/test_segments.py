"""Messages fall into the same segments whatever pieces they arrive in, and Markdown's corners stay whole."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvdesk.ui.chat.segments import (
    HARD_LIMIT,
    LIST_LIMIT,
    SOFT_LIMIT,
    Segment,
    SegmentKind,
    SegmentParser,
    parse,
)

PROSE, CODE = SegmentKind.PROSE, SegmentKind.CODE


def prose(text: str, thinking: bool = False) -> Segment:
    return Segment(PROSE, text, thinking=thinking)


def code(text: str, language: str = "", thinking: bool = False) -> Segment:
    return Segment(CODE, text, language, thinking)


CASES: dict[str, tuple[str, list[Segment]]] = {
    "empty": ("", []),
    "blank": ("  \n\n \n", []),
    "one line": ("Hello", [prose("Hello")]),
    "leading blanks of base models": (" \n     Paris.", [prose("Paris.")]),
    "paragraphs stay together while short": ("a\n\nb\n\nc\n", [prose("a\n\nb\n\nc")]),
    "fence": ("a\n```py\nx = 1\n\ny\n```\nb", [prose("a"), code("x = 1\n\ny", "py"), prose("b")]),
    "fence at the start": ("```\nx\n```", [code("x")]),
    "empty fence": ("```\n```\nb", [code(""), prose("b")]),
    "unclosed fence": ("a\n```python\nx = 1\n  y", [prose("a"), code("x = 1\n  y", "python")]),
    "tilde fence": ("~~~ js title=1\nx\n~~~\n", [code("x", "js")]),
    "backticks inside tildes": ("~~~\n```\nx\n```\n~~~", [code("```\nx\n```")]),
    "four backticks around three": ("````md\n```py\nx\n```\n````\nb", [code("```py\nx\n```", "md"), prose("b")]),
    "a fence within Markdown": (
        "```markdown\n# T\n```py\nx\n```\n- y\n```\nb",
        [code("# T\n```py\nx\n```\n- y", "markdown"), prose("b")],
    ),
    "two fences within Markdown": (
        "```md\n```sh\na\n```\n\n```sh\nb\n```\n```\nc",
        [code("```sh\na\n```\n\n```sh\nb\n```", "md"), prose("c")],
    ),
    "no fence within other code": ("```py\n```sh\n```\nb", [code("```sh", "py"), prose("b")]),
    "longer end than beginning": ("```\nx\n`````\nb", [code("x"), prose("b")]),
    "shorter end does not end": ("`````\nx\n```\ny\n`````", [code("x\n```\ny")]),
    "language in braces": ("```{.Python}\nx\n```", [code("x", "python")]),
    "code span is no fence": ("```x``` is inline\nb", [prose("```x``` is inline\nb")]),
    "fence with info that has a backtick": ("``` a`b\ntext", [prose("``` a`b\ntext")]),
    "indented by three": ("   ```\n   x\n     y\n   ```\nb", [code("x\n  y"), prose("b")]),
    "indented by four is not a fence": ("a\n\n    ```\n    x\n", [prose("a\n\n    ```\n    x")]),
    "end indented by four does not end": ("```\nx\n    ```\n```", [code("x\n    ```")]),
    "fence in a list": (
        "1. Do:\n   ```sh\n   ls\n     -l\n   ```\n   then\n2. Next",
        [prose("1. Do:"), code("ls\n  -l", "sh"), prose("then\n\n2. Next")],
    ),
    "fence deep in a list": (
        "- a\n    - b\n      ```\n      x\n      ```\n      more\n    - c",
        [prose("- a\n    - b"), code("x"), prose("more\n\n    - c")],
    ),
    "fence beside the list's mark": ("- ```py\n  x\n  ```\n- b", [code("x", "py"), prose("- b")]),
    "fence in a list with tabs": ("1. a\n\t```\n\tx\n\t```", [prose("1. a"), code("x")]),
    "quoted fence is prose": ("> ```\n> x\n> ```\nb", [prose("> ```\n> x\n> ```\nb")]),
    "table": ("| a | b |\n|---|---|\n| 1 | 2 |\n", [prose("| a | b |\n|---|---|\n| 1 | 2 |")]),
    "windows line ends": ("a\r\n```\r\nx\r\n```\r\n", [prose("a"), code("x")]),
    "html is text": ("<div>\n<b>x</b>", [prose("<div>\n<b>x</b>")]),
    "right to left": ("سلام\n\nדג", [prose("سلام\n\nדג")]),
    "emoji and CJK": ("👩‍👩‍👧 你好\n```\n🙂\n```", [prose("👩‍👩‍👧 你好"), code("🙂")]),
    "nul": ("a\0b", [prose("ab")]),
    "tags are text, the engine has told thoughts apart": ("<think>hm</think>", [prose("<think>hm</think>")]),
    "closing tag in code is text": ("```\n</think>\n```", [code("</think>")]),
}


@pytest.mark.parametrize("name", CASES)
def test_segments(name: str) -> None:
    text, expected = CASES[name]
    assert parse(text) == expected


@pytest.mark.parametrize("name", CASES)
def test_char_by_char_is_the_same(name: str) -> None:
    text, expected = CASES[name]
    parser = SegmentParser()
    for char in text:
        parser.append(char)
    parser.finish()
    assert parser.segments == expected


LINES = [
    "",
    "",
    "A sentence with `code`, **bold** and a [link](https://example.org).",
    "# Heading",
    "- item",
    "  - nested item",
    "      deep text",
    "12. twelfth",
    "   continued",
    "```",
    "```python",
    "   ```",
    "      ```",
    "- ```sh",
    "````",
    "~~~",
    "> quote",
    "| a | b |",
    "|---|---|",
    "---",
    "    indented",
    "\ttab",
    "<think>",
    "</think>",
    "<b>html</b>",
    "$$ x_1 $$",
    "你好，世界。" * 30,
    "unbroken" * 120,
    "many words " * 400,
    "- long item " * 40,
]


def document(seed: int, n_lines: int = 120) -> str:
    rng = random.Random(seed)
    return rng.choice(["", "<think>", " \n"]) + "\n".join(rng.choice(LINES) for _ in range(n_lines))


@pytest.mark.parametrize("seed", range(25))
def test_pieces_do_not_matter(seed: int) -> None:
    text = document(seed)
    whole = parse(text)
    rng = random.Random(seed)
    for longest in (3, 40, 3000):
        parser = SegmentParser()
        at = 0
        while at < len(text):
            n = rng.randint(1, longest)
            parser.append(text[at : at + n])
            at += n
        parser.finish()
        assert parser.segments == whole


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([*LINES[:26], "`", "``x", "<thi", "\r", " "]), max_size=25), st.integers(1, 7))
def test_pieces_do_not_matter_for_any_lines(lines: list[str], step: int) -> None:
    text = "\n".join(lines)
    parser = SegmentParser()
    for at in range(0, len(text), step):
        parser.append(text[at : at + step])
    parser.finish()
    assert parser.segments == parse(text)


@pytest.mark.parametrize("seed", range(10))
def test_only_what_is_reported_changes(seed: int) -> None:
    text = document(seed, 60)
    parser = SegmentParser()
    before = parser.segments
    for at in range(0, len(text), 5):
        first = parser.append(text[at : at + 5])
        after = parser.segments
        assert after[:first] == before[:first]
        assert len(after) >= first
        before = after


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_lost(seed: int) -> None:
    rng = random.Random(seed)
    lines = [f"w{n} " + rng.choice(LINES[2:9]) for n in range(400)]
    marks = {f"w{n}" for n in range(400)}
    text = "\n".join(line + rng.choice(["", "", "\n"]) for line in lines)
    shown = " ".join(segment.text for segment in parse(text))
    assert {mark for mark in marks if mark + " " in shown} == marks


def test_long_prose_is_cut_at_blank_lines() -> None:
    paragraphs = [f"Paragraph {n}. " + "word " * 60 for n in range(60)]
    segments = parse("\n\n".join(paragraphs))
    assert len(segments) > 10
    assert all(len(segment.text) < SOFT_LIMIT + 400 for segment in segments)
    assert all(segment.text.startswith("Paragraph") for segment in segments)


def test_long_list_is_cut_between_outer_items_only() -> None:
    items = [f"{n}. Item {n} " + "word " * 12 + "\n   - inner\n\n   text of the item" for n in range(1, 100)]
    segments = parse("\n".join(items))
    assert len(segments) > 3
    assert all(segment.text.lstrip().split(".")[0].isdigit() for segment in segments)
    assert all(len(segment.text) < LIST_LIMIT + 300 for segment in segments)


def test_short_list_is_not_cut_although_it_has_blank_lines() -> None:
    text = "\n\n".join(f"- item {n}\n\n  more of it" for n in range(20))
    assert len(parse(text)) == 1


def test_code_is_never_cut() -> None:
    body = "\n".join(f"line {n}\n" for n in range(3000))
    segments = parse(f"```\n{body}\n```")
    assert [segment.text for segment in segments] == [body]


def test_endless_code_line_is_kept_whole() -> None:
    body = "x" * (3 * HARD_LIMIT)
    parser = SegmentParser()
    for at in range(0, len(body) + 4, 7):
        parser.append(("```\n" + body)[at : at + 7])
    parser.finish()
    assert parser.segments == [code(body)]


@pytest.mark.parametrize("char", ["word ", "长文本，", "x", "👋"])
def test_endless_line_is_cut_and_kept(char: str) -> None:
    text = char * (3 * HARD_LIMIT // len(char) + 5)
    segments = parse(text)
    assert len(segments) >= 3
    assert all(len(segment.text) <= HARD_LIMIT for segment in segments)
    assert "".join(segment.text for segment in segments).replace(" ", "") == text.replace(" ", "")


def test_endless_table_repeats_its_head() -> None:
    rows = [f"| {n} | {'x' * 40} |" for n in range(400)]
    segments = parse("| a | b |\n|---|---|\n" + "\n".join(rows))
    assert len(segments) > 3
    assert all(segment.text.startswith("| a | b |\n|---|---|\n| ") for segment in segments)
    assert sum(segment.text.count("x" * 40) for segment in segments) == 400


def test_half_fence_is_not_shown() -> None:
    parser = SegmentParser()
    parser.append("Text\n``")
    assert parser.segments == [Segment(PROSE, "Text", closed=False)]
    parser.append("`py")
    assert parser.segments == [Segment(PROSE, "Text", closed=False)]
    parser.append("\nx\n``")
    assert parser.segments == [prose("Text"), Segment(CODE, "x", "py", closed=False)]
    parser.append("`\n")
    assert parser.segments == [prose("Text"), code("x", "py")]


@pytest.mark.parametrize(
    ("thought", "answer", "segments"),
    [
        ("hm\nhm", "Yes.", [prose("hm\nhm", True), prose("Yes.")]),
        ("", "Yes.", [prose("Yes.")]),
        ("hm", "", [prose("hm", True)]),
        ("a\n```\nx\n", "b", [prose("a", True), code("x", thinking=True), prose("b")]),
    ],
)
def test_thoughts_come_first_and_are_told_apart(thought: str, answer: str, segments: list[Segment]) -> None:
    assert parse(answer, thought=thought) == segments


def test_thinking_lasts_until_the_answer_begins() -> None:
    parser = SegmentParser()
    assert not parser.is_thinking
    parser.append("hm", thinking=True)
    assert parser.is_thinking
    parser.append("", thinking=False)
    assert parser.is_thinking
    parser.append("Yes")
    assert not parser.is_thinking
    assert [segment.thinking for segment in parser.segments] == [True, False]


def test_what_a_user_types_is_not_interpreted() -> None:
    text = "    <think>indented</think>\n1. a\n   ```\n   x\n   ```\n   b"
    assert parse(text, is_reply=False) == [
        prose("    <think>indented</think>\n1. a"),
        code("x"),
        prose("   b"),
    ]
