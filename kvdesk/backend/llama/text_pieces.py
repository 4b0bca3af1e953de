"""Cuts a very long text where a tokenizer would cut it anyway, because llama.cpp's cost of a text grows with its square:
a megabyte without a break took minutes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

WHOLE = 16_384
"""Characters up to which a text is tokenized as one."""
PIECE = 8_192
_BETWEEN_WORDS = re.compile(r"(?<=\w) (?=\w)")
"""A single blank between two words: pre-tokenizers and SentencePiece put it with the word behind it."""
_LONGEST_MARK = 64
"""Characters of the longest special token that a cut must not go through."""


def pieces(text: str, *, takes_blank: bool) -> Iterator[str]:
    """``text`` in pieces that make the same tokens one by one, but where 8,192 characters hold no single blank: there it is
    cut anyhow, which costs a token or two.

    ``takes_blank``: a tokenizer that puts a blank before every text it is given (SentencePiece's dummy prefix). Then a
    piece leaves out the blank before it, and a text without blanks is not cut.
    """
    at = 0
    while len(text) - at > WHOLE:
        end, resume = _cut(text, at, takes_blank=takes_blank)
        if end is None:
            break
        yield text[at:end]
        at = resume
    yield text[at:]


def _cut(text: str, at: int, *, takes_blank: bool) -> tuple[int | None, int]:
    """Where the piece that begins at ``at`` ends, and where the next one begins."""
    blanks = list(_BETWEEN_WORDS.finditer(text, at + PIECE // 2, at + PIECE))
    if blanks:
        blank = blanks[-1]
        return blank.start(), blank.end() if takes_blank else blank.start()
    if takes_blank:
        return None, at
    end = at + PIECE
    mark = max(text.rfind(sign, end - _LONGEST_MARK, end) for sign in "<[")
    end = mark if mark > at else end
    return end, end
