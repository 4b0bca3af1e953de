"""What of a code block is what: the question and its answer, as window, service and process hand them on. Values only."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = ("comment", "keyword", "string", "number", "function", "builtin", "inserted", "deleted")
"""What a stretch of code may be; an answer names them by their place here."""
Span = tuple[int, int, int, str]
"""Line, start and length in it (UTF-16 units, as Qt counts), and one of KINDS."""


@dataclass(frozen=True)
class CodeQuestion:
    """``request_id`` comes back with the answer; ``language`` is a name that pygments may know."""

    request_id: int
    language: str
    text: str


@dataclass(frozen=True)
class CodeAnswer:
    """What of the text is what, four numbers a stretch; none where the language is unknown or the text was given up."""

    request_id: int
    numbers: array[int]

    def spans(self) -> Iterator[Span]:
        """The stretches in their order."""
        it = iter(self.numbers)
        return ((line, start, length, KINDS[kind]) for line, start, length, kind in zip(it, it, it, it, strict=True))
