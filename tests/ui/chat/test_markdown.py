"""A model's Markdown reaches Qt with its line breaks, formulas and images as text."""

from __future__ import annotations

import pytest

from kvdesk.ui.chat.markdown import LINE_BREAK, prepare
from tests.bench.markdown_speed import HOSTILE

BR = LINE_BREAK


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Roses are red,\nviolets are blue", f"Roses are red,{BR}violets are blue"),
        ("one  \ntwo\\\nthree", f"one{BR}two{BR}three"),
        ("a\n\nb", "a\n\nb"),
        ("# Title\ntext", "# Title\ntext"),
        ("Title\n===\ntext", "Title\n===\ntext"),
        ("- a\n  more\n- b", f"- a{BR}more\n- b"),
        ("1. a\n2. b", "1. a\n2. b"),
        ("> a\n> b\n> - c", f"> a{BR}b\n> - c"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("| a<br>b | c |", f"| a{BR}b | c |"),
        ("    code\n    more", "    code\n    more"),
        ("---\ntitle: x\n---\ntext", "***\ntitle: x\n---\ntext"),
    ],
)
def test_lines(text: str, expected: str) -> None:
    assert prepare(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\(x_1 * y_2\)", r"\\\(x\_1 \* y\_2\\\)"),
        ("$$\na_1\n= b\n$$", f"\\$\\${BR}a\\_1{BR}\\= b{BR}\\$\\$"),
        ("$x_1$ and *so*", r"\$x\_1\$ and *so*"),
        (r"\[ a_1", r"\\\[ a\_1"),
        ("$5 and *six* dollars, $7", "$5 and *six* dollars, $7"),
        ("`$x_1$` and `` a`\\(b\\) ``", "`$x_1$` and `` a`\\(b\\) ``"),
    ],
)
def test_formulas_stay_text(text: str, expected: str) -> None:
    assert prepare(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("![a cat](http://x/y.png)", "[image: a cat](http://x/y.png)"),
        ("![](file:///etc/passwd)", "[image](file:///etc/passwd)"),
        ("![a][ref]", "[image: a][ref]"),
        ("`![a](b)`", "`![a](b)`"),
        (r"\![a](b)", r"\![a](b)"),
    ],
)
def test_images_become_links(text: str, expected: str) -> None:
    assert prepare(text) == expected


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_of_any_length_is_prepared(text: str) -> None:
    """Where patterns blow up, this never ends; tests/bench/markdown_speed.py has the figures."""
    n_chars = 100_000  # far beyond a segment's
    assert prepare((text * n_chars)[:n_chars])
