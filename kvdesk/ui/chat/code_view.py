"""One code block: its language, a Copy button, the code in a fixed-width font with a scroll bar of its own for long
lines. UI thread."""

from __future__ import annotations

from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtGui import QFontMetrics, QKeyEvent, QTextCursor, QTextOption, QWheelEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPlainTextEdit, QVBoxLayout, QWidget

from kvdesk.shown_text import shown_text
from kvdesk.ui.chat.action_button import ActionButton
from kvdesk.ui.chat.highlighter import Highlighter
from kvdesk.ui.chat.segments import Segment
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.theme import Theme, mono_font

HEADER_HEIGHT = 30
PADDING = 10
BAR_HEIGHT = 12
"""What the theme's style sheet gives a horizontal scroll bar."""


def code_height(text: str, line_height: int) -> int:
    """The height of a block with this code, before there is a widget for it."""
    return HEADER_HEIGHT + (text.count("\n") + 1) * line_height + PADDING + 2


class CodeView(QFrame):
    """Shows one code segment, also while it grows."""

    copy_requested = Signal(str)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._text = ""
        self._shown = ""  # the same, what a terminal or a text layout would obey as signs
        self._language = ""
        self._is_colored = False
        self._longest = ""
        self.setObjectName("code_card")
        self._label = PlainLabel()
        self._label.setProperty("role", "muted")
        self._copy = ActionButton("copy", self.tr("Copy code"), theme)
        self._copy.set_revealed(True)
        self._copy.clicked.connect(self._on_copy_clicked)
        self._code = _CodeText()
        self._code.setAccessibleName(self.tr("Code"))
        self._highlighter = Highlighter(self._code.document(), self)
        header = QHBoxLayout()
        header.setContentsMargins(PADDING, 0, 4, 0)
        header.addWidget(self._label, 1)
        header.addWidget(self._copy)
        column = QVBoxLayout(self)
        column.setContentsMargins(1, 1, 1, 1)
        column.setSpacing(0)
        bar = QWidget()
        bar.setFixedHeight(HEADER_HEIGHT)
        bar.setLayout(header)
        column.addWidget(bar)
        column.addWidget(self._code, 1)
        self._set_font()

    @property
    def text(self) -> str:
        """The block's code, as it is copied."""
        return self._text

    @property
    def language(self) -> str:
        """The language as labelled."""
        return self._label.text()

    @property
    def highlighter(self) -> Highlighter:
        """What colours the code of this block."""
        return self._highlighter

    def show_segment(self, segment: Segment) -> None:
        """Show ``segment``; when it only grew, only what is new is added."""
        if segment.text != self._text:
            self._highlighter.stop()
            self._is_colored = False
            shown = shown_text(segment.text)
            if self._shown and shown.startswith(self._shown):
                self._code.add(shown[len(self._shown) :])
            else:
                self._code.setPlainText(shown)
                self._longest = ""
            self._track_longest(shown, len(self._shown) if self._longest else 0)
            self._text, self._shown = segment.text, shown
        self._language = segment.language
        self._label.setText(segment.language or self.tr("text"))
        if segment.closed and not self._is_colored:
            self._is_colored = True
            self._highlighter.start(self._language, self._theme)

    def height_for(self, width: int) -> int:
        """How high the block is at ``width`` pixels."""
        needs_bar = QFontMetrics(self._code.font()).horizontalAdvance(self._longest) + 2 * PADDING + 2 > width
        self._code.setHorizontalScrollBarPolicy(
            Qt.ScrollBarPolicy.ScrollBarAlwaysOn if needs_bar else Qt.ScrollBarPolicy.ScrollBarAlwaysOff
        )
        return code_height(self._shown, self.line_height) + (BAR_HEIGHT if needs_bar else 0)

    @property
    def line_height(self) -> int:
        """Pixels of one line of code."""
        return QFontMetrics(self._code.font()).lineSpacing()

    def set_theme(self, theme: Theme) -> None:
        """Take the colours of ``theme``."""
        self._theme = theme
        self._copy.set_theme(theme)
        self._set_font()
        if self._is_colored:
            self._highlighter.start(self._language, theme)

    def changeEvent(self, event: QEvent) -> None:
        """Code follows the size of all text."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange:
            self._set_font()

    def _set_font(self) -> None:
        self._code.setFont(mono_font(self.font()))
        self._code.setTabStopDistance(4 * QFontMetrics(self._code.font()).horizontalAdvance(" "))

    def _track_longest(self, text: str, since: int) -> None:
        """Remember the longest line; only lines after ``since`` can be longer than the one known."""
        start = text.rfind("\n", 0, since) + 1
        longest = max(text[start:].split("\n"), key=_columns)
        if _columns(longest) > _columns(self._longest):
            self._longest = longest.expandtabs(4)

    def _on_copy_clicked(self) -> None:
        self.copy_requested.emit(self._text)
        self._copy.show_done()


def _columns(line: str) -> int:
    """Roughly how wide ``line`` is: Chinese, Japanese and Korean characters and emoji take two columns."""
    return len(line) if line.isascii() else sum(2 if char > "\u2e7f" else 1 for char in line)


class _CodeText(QPlainTextEdit):
    """Read-only code that leaves vertical scrolling to the transcript."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("code")
        self.setReadOnly(True)
        self.setUndoRedoEnabled(False)
        self.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.setWordWrapMode(QTextOption.WrapMode.NoWrap)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.setAcceptDrops(False)
        self.viewport().setAutoFillBackground(False)
        self.document().setDocumentMargin(0)
        self.setViewportMargins(PADDING, 0, PADDING, 0)

    def add(self, text: str) -> None:
        """Put ``text`` at the end; a selection stays."""
        cursor = QTextCursor(self.document())
        cursor.movePosition(QTextCursor.MoveOperation.End)
        cursor.insertText(text)

    def wheelEvent(self, event: QWheelEvent) -> None:
        sideways = abs(event.angleDelta().x()) > abs(event.angleDelta().y())
        if sideways or event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            super().wheelEvent(event)
        else:
            event.ignore()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        vertical = (Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_PageUp, Qt.Key.Key_PageDown, Qt.Key.Key_Space)
        if event.key() in vertical and event.modifiers() == Qt.KeyboardModifier.NoModifier:
            event.ignore()
        else:
            super().keyPressEvent(event)
