"""One segment of prose: read-only, selectable, as high as its text. Loads nothing, opens nothing. UI thread."""

from __future__ import annotations

import math

from PySide6.QtCore import QEvent, QPoint, Qt, QUrl, Signal
from PySide6.QtGui import (
    QColor,
    QCursor,
    QFont,
    QFontDatabase,
    QKeyEvent,
    QTextBlock,
    QTextBlockFormat,
    QTextCharFormat,
    QTextCursor,
    QTextDocument,
    QTextFormat,
    QTextLength,
    QTextOption,
    QTextTable,
    QTextTableFormat,
    QWheelEvent,
)
from PySide6.QtWidgets import QFrame, QTextBrowser, QToolTip, QWidget

from kvdesk.shown_text import shown_text
from kvdesk.ui.chat.markdown import plain_end, prepare
from kvdesk.ui.widgets.plain_text import plain_tip
from kvdesk.ui.widgets.theme import Theme

MARKDOWN = QTextDocument.MarkdownFeature.MarkdownDialectGitHub | QTextDocument.MarkdownFeature.MarkdownNoHTML
LINK_SCHEMES = frozenset({"http", "https", "mailto"})
_HEADING_SIZES = {1: 2, 2: 1}
"""Heading level -> step of Qt's font size ladder (2: 1.5 times, 1: 1.2 times); the others keep the body's size."""
_SCROLL_KEYS = frozenset(
    {
        Qt.Key.Key_Up,
        Qt.Key.Key_Down,
        Qt.Key.Key_PageUp,
        Qt.Key.Key_PageDown,
        Qt.Key.Key_Home,
        Qt.Key.Key_End,
        Qt.Key.Key_Space,
    }
)


class ProseView(QTextBrowser):
    """Shows Markdown, or plain text. ``link_activated`` is all that a click on a link does."""

    link_activated = Signal(str)

    def __init__(
        self, theme: Theme, parent: QWidget | None = None, *, is_markdown: bool = True, width: int = 400
    ) -> None:
        super().__init__(parent)
        # A width of its own, so that text is laid out once, for the width it will have, and never for the widget's.
        self.setLineWrapMode(QTextBrowser.LineWrapMode.FixedPixelWidth)
        self.setLineWrapColumnOrWidth(width)
        self._theme = theme
        self._is_markdown = is_markdown
        self._text = ""
        self._document: QTextDocument | None = None
        self.setObjectName("prose")
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWordWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        self.setOpenLinks(False)
        self.setAcceptDrops(False)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.viewport().setAutoFillBackground(False)
        self.anchorClicked.connect(self._on_anchor_clicked)
        self.highlighted.connect(self._on_link_hovered)

    @property
    def shown_text(self) -> str:
        """The text that is shown."""
        return self._text

    def show_text(self, text: str) -> None:
        """Show ``text`` instead of what there was; what would be obeyed, as signs."""
        text = shown_text(text)
        if text == self._text:
            return
        more = plain_end(self._text, text) if self._is_markdown and self._document else None
        self._text = text
        if more is None or not self._append(more):
            self._render()

    def height_for(self, width: int) -> int:
        """How high the text is at ``width`` pixels; it is laid out for that width."""
        if self.lineWrapColumnOrWidth() != width:
            self.setLineWrapColumnOrWidth(width)
        return math.ceil(self.document().size().height())

    def ideal_width(self) -> int:
        """The width below which lines would break."""
        return math.ceil(self.document().idealWidth()) + 1

    def set_theme(self, theme: Theme) -> None:
        """Take the colours of ``theme``."""
        self._theme = theme
        self._render()

    def _append(self, text: str) -> bool:
        """Put plain ``text`` at the end, which costs a small part of laying all out anew; False where it would not look
        like plain text there."""
        cursor = QTextCursor(self.document())
        cursor.beginEditBlock()  # else moving and inserting each have the paragraph laid out, to know the cursor's x
        try:
            cursor.movePosition(QTextCursor.MoveOperation.End)
            style = cursor.charFormat()
            marked = style.isAnchor() or style.fontFixedPitch() or style.fontItalic() or style.fontStrikeOut()
            if marked or style.fontWeight() > QFont.Weight.Normal or cursor.atBlockStart():
                return False
            cursor.insertText(text)
            return True
        finally:
            cursor.endEditBlock()

    def _render(self) -> None:
        # A document is filled and dressed before a view lays it out: once, instead of once for every change.
        document = _DeafDocument(self)
        document.setUndoRedoEnabled(False)
        document.setDocumentMargin(0)
        document.setIndentWidth(24)
        document.setDefaultFont(self.font())
        if self._is_markdown:
            document.setMarkdown(prepare(self._text, self.tr("image")), MARKDOWN)
            has_link = _dress(document, self._theme)
            self.setFocusPolicy(Qt.FocusPolicy.StrongFocus if has_link else Qt.FocusPolicy.ClickFocus)
        else:
            document.setPlainText(self._text)
        before, self._document = self._document, document
        self.setDocument(document)
        if before is not None:
            before.deleteLater()

    # --- nothing is opened ---------------------------------------------------------------------------------------

    def _on_anchor_clicked(self, url: QUrl) -> None:
        if url.scheme() in LINK_SCHEMES:
            self.link_activated.emit(url.toString())

    def _on_link_hovered(self, url: QUrl) -> None:
        place = QCursor.pos() if self.underMouse() else self.mapToGlobal(QPoint(0, self.height()))
        QToolTip.showText(place, plain_tip(url.toString()), self)

    # --- scrolling is the transcript's ------------------------------------------------------------------------

    def wheelEvent(self, event: QWheelEvent) -> None:
        event.ignore()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in _SCROLL_KEYS and event.modifiers() == Qt.KeyboardModifier.NoModifier:
            event.ignore()
        else:
            super().keyPressEvent(event)

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange and self._text:
            self._render()


class _DeafDocument(QTextDocument):
    """Loads no file and no address: a model's text must not make this program read anything.

    The views' own ``loadResource`` would not do: where it gives nothing, QTextDocument reads local files itself.
    """

    def loadResource(self, kind: int, url: QUrl | str) -> None:
        """Nothing, whatever is asked for."""


def _dress(document: QTextDocument, theme: Theme) -> bool:
    """Give freshly read Markdown our spacing and colours. Returns whether there is a link in it."""
    cursor = QTextCursor(document)
    cursor.beginEditBlock()
    has_link = False
    after_list = False
    block = document.begin()
    while block.isValid():
        is_last = not block.next().isValid()
        has_link |= _dress_block(cursor, block, theme, is_first=block.position() == 0, is_last=is_last)
        in_list = block.textList() is not None
        if in_list and not after_list and block.position() > 0:
            shape = block.blockFormat()
            shape.setTopMargin(6)
            cursor.setPosition(block.position())
            cursor.setBlockFormat(shape)
        after_list = in_list
        block = block.next()
    for frame in document.rootFrame().childFrames():
        if isinstance(frame, QTextTable):
            frame.setFormat(_table_format(frame, theme))
    cursor.endEditBlock()
    return has_link


def _dress_block(cursor: QTextCursor, block: QTextBlock, theme: Theme, *, is_first: bool, is_last: bool) -> bool:
    shape = block.blockFormat()
    quote_level = int(shape.property(QTextFormat.Property.BlockQuoteLevel) or 0)
    is_code = shape.hasProperty(QTextFormat.Property.BlockCodeLanguage)
    whole = QTextCharFormat()
    if shape.headingLevel():
        shape.setTopMargin(10)
        shape.setBottomMargin(4)
        whole.setProperty(QTextFormat.Property.FontSizeAdjustment, _HEADING_SIZES.get(shape.headingLevel(), 0))
        whole.setFontWeight(QFont.Weight.DemiBold)
    elif block.textList():
        shape.setTopMargin(2)
        shape.setBottomMargin(2)
    elif shape.hasProperty(QTextFormat.Property.BlockTrailingHorizontalRulerWidth):
        shape.setBackground(QColor(theme.border))  # Qt draws the rule in this colour
    elif block.length() <= 1:
        shape.setLineHeight(4, QTextBlockFormat.LineHeightTypes.FixedHeight.value)  # Qt's rests around tables
    if quote_level:
        shape.setLeftMargin(16 * quote_level)
        shape.setRightMargin(0)
        whole.setForeground(QColor(theme.text_muted))
    if is_code:
        shape.setBackground(QColor(theme.code_background))
        whole.setFontFamilies(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont).families())
    if is_first:
        shape.setTopMargin(0)
    if is_last:
        shape.setBottomMargin(0)
    cursor.setPosition(block.position())
    cursor.setBlockFormat(shape)
    if not whole.isEmpty():
        cursor.movePosition(QTextCursor.MoveOperation.EndOfBlock, QTextCursor.MoveMode.KeepAnchor)
        cursor.mergeCharFormat(whole)
    return _dress_spans(cursor, block, theme)


def _dress_spans(cursor: QTextCursor, block: QTextBlock, theme: Theme) -> bool:
    """Set code spans off, and links in the theme's colour. Returns whether there is a link."""
    code, link = QTextCharFormat(), QTextCharFormat()
    code.setBackground(QColor(theme.surface_raised))
    link.setForeground(QColor(theme.accent))
    spans: list[tuple[int, int, QTextCharFormat]] = []
    pieces = block.begin()
    while not pieces.atEnd():
        piece = pieces.fragment()
        style = piece.charFormat()
        if style.isAnchor():
            spans.append((piece.position(), piece.length(), link))
        elif style.fontFixedPitch():
            spans.append((piece.position(), piece.length(), code))
        pieces += 1
    for start, length, style in spans:
        cursor.setPosition(start)
        cursor.setPosition(start + length, QTextCursor.MoveMode.KeepAnchor)
        cursor.mergeCharFormat(style)
    return any(style is link for _, _, style in spans)


def _table_format(table: QTextTable, theme: Theme) -> QTextTableFormat:
    shape = table.format()
    shape.setBorder(1)
    shape.setBorderCollapse(True)
    shape.setBorderBrush(QColor(theme.border))
    shape.setBorderStyle(QTextTableFormat.BorderStyle.BorderStyle_Solid)
    shape.setCellPadding(5)
    shape.setCellSpacing(0)
    shape.setTopMargin(2)
    shape.setBottomMargin(2)
    shape.setWidth(QTextLength())
    return shape
