"""Characters that a vocabulary has no token for. Pure once made, any thread; engine and helper processes only.

A SentencePiece vocabulary usually spells what it lacks in 256 byte tokens. Where it has none, llama.cpp ends the process
(llama-vocab.cpp, byte_to_token throws); such characters become the unknown token before it sees them, as SentencePiece has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kvdesk.backend.llama.library import lib

SPM = 1
"""LLAMA_VOCAB_TYPE_SPM."""
UNKNOWN, CONTROL, USER_DEFINED = 1 << 0, 1 << 3, 1 << 4
"""enum llama_token_attr (llama.h)."""
_BYTE = re.compile(rb"<0x[0-9A-F]{2}>")


class VocabularyGaps:
    """What ``vocab`` can spell. ``unknown`` is the token for the rest, None without one: the rest is left out."""

    def __init__(self, vocab: Any, n_vocab: int) -> None:
        texts = [lib.llama_vocab_get_text(vocab, token) for token in range(n_vocab)]
        attributes = [lib.llama_vocab_get_attr(vocab, token) for token in range(n_vocab)]
        self.unknown = next((token for token in range(n_vocab) if attributes[token] & UNKNOWN), None)
        self._known = {text.decode("utf-8", "replace") for text in texts} | {" "}  # a blank is written as U+2581
        self._bytes = {int(text[3:5], 16) for text in texts if _BYTE.fullmatch(text)}
        whole = [(t.decode("utf-8", "replace"), a) for t, a in zip(texts, attributes, strict=True) if t]
        self._marks = _alternatives([t for t, a in whole if a & USER_DEFINED])
        self._template_marks = _alternatives([t for t, a in whole if a & (USER_DEFINED | CONTROL | UNKNOWN)])

    def parts(self, text: str, parse_special: bool) -> Iterator[str]:
        """``text`` in parts that can be spelled, "" between them for each character that cannot."""
        marks = self._template_marks if parse_special else self._marks
        start = at = 0
        while at < len(text):
            mark = marks.match(text, at)
            if mark:
                at = mark.end()
                continue
            if not self._has(text[at]):
                if start < at:
                    yield text[start:at]
                yield ""
                start = at + 1
            at += 1
        if start < at:
            yield text[start:]

    def _has(self, character: str) -> bool:
        return character in self._known or all(byte in self._bytes for byte in character.encode())


def find_gaps(vocab: Any, n_vocab: int) -> VocabularyGaps | None:
    """The gaps of ``vocab``; None where llama.cpp can spell any text. Cheap where the byte tokens come first."""
    if lib.llama_vocab_type(vocab) != SPM:
        return None
    n_bytes = 0
    for token in range(n_vocab):
        n_bytes += _BYTE.fullmatch(lib.llama_vocab_get_text(vocab, token)) is not None
        if n_bytes == 256:
            return None
    return VocabularyGaps(vocab, n_vocab)


def _alternatives(texts: list[str]) -> re.Pattern[str]:
    """Matches any of ``texts``, the longest first as llama.cpp does; nothing without texts."""
    return re.compile("|".join(re.escape(t) for t in sorted(texts, key=len, reverse=True)) or r"(?!)")
