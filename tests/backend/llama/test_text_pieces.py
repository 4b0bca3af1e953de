"""backend/llama/text_pieces.py: long texts are cut between words, and nothing of them is lost."""

from __future__ import annotations

import random

import pytest

from kvdesk.backend.llama.text_pieces import PIECE, WHOLE, pieces

WORDS = ("alpha", "beta,", "gamma", "\n\n", "  ", "δελτα", "<|im_end|>", "x" * 300)


def text_of(seed: int, length: int) -> str:
    chance = random.Random(seed)
    parts: list[str] = []
    while sum(map(len, parts)) < length:
        parts.append(chance.choice(WORDS))
    return " ".join(parts)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost(seed: int) -> None:
    text = text_of(seed, 5 * WHOLE)
    assert "".join(pieces(text, takes_blank=False)) == text
    assert " ".join(pieces(text, takes_blank=True)) == text
    assert max(map(len, pieces(text, takes_blank=False))) <= WHOLE


def test_a_short_text_is_whole() -> None:
    assert list(pieces("x" * WHOLE, takes_blank=False)) == ["x" * WHOLE]


def test_a_text_without_breaks_is_cut_but_not_within_a_mark() -> None:
    text = "y" * (PIECE - 5) + "<|im_end|>" + "y" * 3 * WHOLE
    found = list(pieces(text, takes_blank=False))
    assert "".join(found) == text
    assert any("<|im_end|>" in piece for piece in found)
    assert list(pieces(text, takes_blank=True)) == [text]
