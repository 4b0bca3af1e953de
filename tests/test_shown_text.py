"""Text from outside is shown with nothing in it that a terminal or a text layout would obey."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvdesk.shown_text import shown_line, shown_text

CLIPBOARD = "\x1b]52;c;aGVsbG8=\x07"
"""OSC 52: a terminal that obeys it puts this into the clipboard."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Gemma 3 270M it", "Gemma 3 270M it"),
        (CLIPBOARD, "␛]52;c;aGVsbG8=␇"),
        ("\x9b31mred", "\N{REPLACEMENT CHARACTER}31mred"),
        ("a\0b\x7fc", "a␀b␡c"),
        ("exe.\u202egpj", "exe.\N{REPLACEMENT CHARACTER}gpj"),
        ("half \ud83d", "half \N{REPLACEMENT CHARACTER}"),
        ("one\ttwo\nthree\r\nfour\rfive", "one\ttwo\nthree\nfour␍five"),
        ("👩‍🔬 می‌خواهم שלום", "👩‍🔬 می‌خواهم שלום"),
        ("a  b", "a  b"),
    ],
)
def test_what_would_be_obeyed_is_a_sign(text: str, shown: str) -> None:
    assert shown_text(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n\n\tb", "a b"),
        ("evil\n\x1b[2J", "evil ␛[2J"),
        ("C:\\My  models\\a.gguf", "C:\\My  models\\a.gguf"),
        ("x" * 30, "x" * 19 + "…"),
        ("x" * 20, "x" * 20),
        ("\n" * 2_000_000, " "),
    ],
)
def test_a_line_is_one_line_and_short(text: str, shown: str) -> None:
    assert shown_line(text, 20) == shown


@given(st.text(st.characters()), st.integers(1, 40))
def test_nothing_that_is_shown_can_be_obeyed(text: str, longest: int) -> None:
    for shown in (shown_text(text), shown_line(text, longest)):
        assert not [
            sign for sign in shown if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") and sign not in "\t\n"
        ]
        assert not {unicodedata.bidirectional(sign) for sign in shown} & {
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "LRI",
            "RLI",
            "FSI",
        }
        assert shown_text(shown) == shown
    assert len(shown_line(text, longest)) <= longest
    assert len(shown_line(text, longest).splitlines()) <= 1
