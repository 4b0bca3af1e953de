"""Colours finished code blocks by pygments, in slices of a few milliseconds, so that the window never waits. UI thread.

Only a language's lexer is made in another thread, once: importing it and compiling its expressions takes long.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QColor, QFont, QTextBlock, QTextCharFormat, QTextDocument, QTextLayout

from kvdesk.ui.widgets.theme import Theme

MAX_CHARS = 60_000
"""Longer code stays in one colour."""
SLICE_S = 0.004


@dataclass(frozen=True)
class CodeColors:
    """Colours of source code, all 4.5:1 or better on ``Theme.code_background``."""

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


def color_of(token_type: Any, colors: CodeColors) -> str | None:
    """The colour of a pygments token type; None for plain text."""
    from pygments import token as t

    table = (
        (t.Comment.Preproc, colors.builtin),
        (t.Comment, colors.comment),
        (t.Keyword, colors.keyword),
        (t.Operator.Word, colors.keyword),
        (t.Literal.String, colors.string),
        (t.Literal.Number, colors.number),
        (t.Name.Function, colors.function),
        (t.Name.Class, colors.function),
        (t.Name.Decorator, colors.function),
        (t.Name.Tag, colors.function),
        (t.Name.Builtin, colors.builtin),
        (t.Name.Attribute, colors.builtin),
        (t.Name.Variable, colors.builtin),
        (t.Generic.Inserted, colors.inserted),
        (t.Generic.Deleted, colors.deleted),
        (t.Generic.Heading, colors.function),
        (t.Generic.Subheading, colors.function),
        (t.Generic.Prompt, colors.comment),
    )
    return next((color for kind, color in table if token_type in kind), None)


class Highlighter(QObject):
    """Colours one document. The colours lie beside the text, which stays as it is."""

    finished = Signal()

    def __init__(self, document: QTextDocument, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._lexer: Future[Any] | None = None
        self._lines: Iterator[list[tuple[int, int, str]]] = iter(())
        self._block = QTextBlock()
        self._colors = LIGHT_CODE
        self._formats: dict[str, QTextCharFormat] = {}
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._work)

    @property
    def is_working(self) -> bool:
        """Whether lines are left to colour."""
        return self._timer.isActive()

    def start(self, language: str, theme: Theme) -> None:
        """Colour the document as ``language``; ``finished`` comes when done, at once when there is nothing to do."""
        self._timer.stop()
        self._colors = code_colors(theme)
        self._formats.clear()
        self._lexer = None
        if not language or self._document.characterCount() > MAX_CHARS:
            self.finished.emit()
            return
        self._lexer = _lexer(language)
        self._lines = iter(())
        self._block = QTextBlock()
        self._timer.start(0 if self._lexer.done() else 20)

    def stop(self) -> None:
        """Leave the rest of the document as it is; needed before its text changes."""
        self._timer.stop()

    def _work(self) -> None:
        if self._lexer is not None:
            if not self._lexer.done():
                return
            lexer, self._lexer = self._lexer.result(), None
            if lexer is None:
                self._end()
                return
            self._lines = _spans(lexer, self._document.toPlainText(), self._colors)
            self._block = self._document.begin()
            self._timer.setInterval(0)
        until = time.perf_counter() + SLICE_S
        first = self._block.position()
        while self._block.isValid():
            spans = next(self._lines, None)
            if spans is None:
                self._end(first)
                return
            self._color(self._block, spans)
            self._block = self._block.next()
            if time.perf_counter() > until:
                self._document.markContentsDirty(first, self._block.position() - first)
                return
        self._end(first)

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

    def _end(self, first: int | None = None) -> None:
        self._timer.stop()
        if first is not None:
            self._document.markContentsDirty(first, self._document.characterCount() - first)
        self.finished.emit()


_threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lexers")


@lru_cache(maxsize=64)
def _lexer(language: str) -> Future[Any]:
    return _threads.submit(_make_lexer, language)


def _make_lexer(language: str) -> Any:
    """The lexer for ``language``, compiled; None for a language that pygments does not know."""
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        return None
    for _ in lexer.get_tokens_unprocessed("x\n"):
        pass
    return lexer


def _spans(lexer: Any, text: str, colors: CodeColors) -> Iterator[list[tuple[int, int, str]]]:
    """For each line of ``text`` its coloured spans: start and length in UTF-16 units, as Qt counts, and colour."""
    spans: list[tuple[int, int, str]] = []
    at = 0
    known: dict[Any, str | None] = {}
    for _, token_type, value in lexer.get_tokens_unprocessed(text + "\n"):
        if token_type not in known:
            known[token_type] = color_of(token_type, colors)
        color = known[token_type]
        for n, part in enumerate(value.split("\n")):
            if n:
                yield spans
                spans, at = [], 0
            length = len(part) if part.isascii() else len(part.encode("utf-16-le", "surrogatepass")) // 2
            if color and length:
                spans.append((at, length, color))
            at += length
    yield spans
