"""Colours finished code blocks, in slices of a few milliseconds, so that the window never waits. UI thread.

What is a keyword and what a string is found out in a process of its own (backend/code_lexer.py); until then, and where that takes
too long, the code is plain.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QColor, QFont, QTextBlock, QTextCharFormat, QTextDocument, QTextLayout

from kvdesk.backend.code_spans import CodeAnswer, Span
from kvdesk.ui.chat.code_questions import code_questions
from kvdesk.ui.widgets.theme import Theme

MAX_CHARS = 60_000
"""Longer code stays in one colour."""
SLICE_S = 0.004


@dataclass(frozen=True)
class CodeColors:
    """Colours of source code, all 4.5:1 or better on ``Theme.code_background``; as named in code_spans.KINDS."""

    comment: str
    keyword: str
    string: str
    number: str
    function: str
    builtin: str
    inserted: str
    deleted: str


LIGHT_CODE = CodeColors(
    comment="#5d6773",
    keyword="#b4232f",
    string="#0a5a2c",
    number="#0a5fa5",
    function="#6b3fa0",
    builtin="#8a4b00",
    inserted="#1a7440",
    deleted="#b42318",
)
DARK_CODE = CodeColors(
    comment="#8b98a5",
    keyword="#ff8f86",
    string="#a3d9a5",
    number="#79c0ff",
    function="#d2a8ff",
    builtin="#ffb366",
    inserted="#5fc487",
    deleted="#f2776b",
)


def code_colors(theme: Theme) -> CodeColors:
    """The colours of code that go with ``theme``."""
    return DARK_CODE if theme.is_dark else LIGHT_CODE


class Highlighter(QObject):
    """Colours one document. The colours lie beside the text, which stays as it is."""

    finished = Signal()

    def __init__(self, document: QTextDocument, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._request_id = 0
        self._spans: Iterator[Span] = iter(())
        self._next: Span | None = None
        self._block = QTextBlock()
        self._colors = LIGHT_CODE
        self._formats: dict[str, QTextCharFormat] = {}
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._work)
        code_questions().answered.connect(self._on_answered)

    @property
    def is_working(self) -> bool:
        """Whether lines are left to colour."""
        return bool(self._request_id) or self._timer.isActive()

    def start(self, language: str, theme: Theme) -> None:
        """Colour the document as ``language``; ``finished`` comes when done, at once when there is nothing to do."""
        self.stop()
        self._colors = code_colors(theme)
        self._formats.clear()
        if not language or self._document.characterCount() > MAX_CHARS:
            self.finished.emit()
            return
        self._request_id = code_questions().ask(language, self._document.toPlainText())

    def stop(self) -> None:
        """Leave the rest of the document as it is; needed before its text changes."""
        self._timer.stop()
        self._request_id = 0

    def _on_answered(self, answer: CodeAnswer) -> None:
        if answer.request_id != self._request_id:
            return
        self._request_id = 0
        self._spans = answer.spans()
        self._next = next(self._spans, None)
        self._block = self._document.begin()
        self._timer.start(0)

    def _work(self) -> None:
        until = time.perf_counter() + SLICE_S
        first = self._block.position()
        while self._next and self._block.isValid():
            self._color(self._block, self._spans_of(self._block.blockNumber()))
            self._block = self._block.next()
            if time.perf_counter() > until:
                self._document.markContentsDirty(first, self._block.position() - first)
                return
        self._end(first)

    def _spans_of(self, line: int) -> list[tuple[int, int, str]]:
        """Start, length and colour of what is coloured in ``line``; lines are asked for in their order."""
        found: list[tuple[int, int, str]] = []
        while self._next and self._next[0] == line:
            _, start, length, kind = self._next
            found.append((start, length, getattr(self._colors, kind)))
            self._next = next(self._spans, None)
        return found

    def _color(self, block: QTextBlock, spans: list[tuple[int, int, str]]) -> None:
        ranges: list[QTextLayout.FormatRange] = []
        for start, length, color in spans:
            span = QTextLayout.FormatRange()
            span.start, span.length, span.format = start, length, self._format(color)
            ranges.append(span)
        block.layout().setFormats(ranges)

    def _format(self, color: str) -> QTextCharFormat:
        if color not in self._formats:
            made = QTextCharFormat()
            made.setForeground(QColor(color))
            if color == self._colors.keyword:
                made.setFontWeight(QFont.Weight.DemiBold)
            self._formats[color] = made
        return self._formats[color]

    def _end(self, first: int) -> None:
        self._timer.stop()
        self._document.markContentsDirty(first, max(0, self._document.characterCount() - first))
        self.finished.emit()
