"""Paints one line of the conversation list: a heading, or title, snapshot size, the dot of a reply under way, excerpt.

UI thread.
"""

from __future__ import annotations

from PySide6.QtCore import QRect, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetrics, QPainter
from PySide6.QtWidgets import QLineEdit, QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from kvdesk.backend.conversations.conversation import ConversationRow
from kvdesk.ui.chat.conversation_rows import ROW_ROLE, Index
from kvdesk.ui.widgets.numbers import format_file_size
from kvdesk.ui.widgets.theme import Theme, smaller

SIDE_PX = 8
DOT_PX = 6


class ConversationDelegate(QStyledItemDelegate):
    """One line per conversation, two where a search found words in its text."""

    def __init__(self, theme: Theme, parent: QWidget) -> None:
        super().__init__(parent)
        self.theme = theme
        self.busy_id: str | None = None
        """The conversation in which a reply is being written."""

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        row: ConversationRow | None = index.data(ROW_ROLE)
        line = option.fontMetrics.height()
        if row is None:
            return QSize(0, line + 14)
        return QSize(0, (2 * line + 14) if row.excerpt else line + 12)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        row: ConversationRow | None = index.data(ROW_ROLE)
        inside = option.rect.adjusted(SIDE_PX, 0, -SIDE_PX, 0)
        painter.save()
        if row is None:
            painter.setFont(_small_bold(option.font))
            painter.setPen(QColor(self.theme.text_muted))
            bottom = inside.adjusted(0, 0, 0, -4)
            painter.drawText(bottom, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignBottom, index.data())
        else:
            if option.widget is not None:
                style = option.widget.style()
                style.drawPrimitive(QStyle.PrimitiveElement.PE_PanelItemViewItem, option, painter, option.widget)
            self._paint_row(painter, option, inside, index.data(), row)
        painter.restore()

    def createEditor(self, parent: QWidget, option: QStyleOptionViewItem, index: Index) -> QWidget:  # noqa: ARG002
        editor = QLineEdit(parent)
        editor.setAccessibleName(self.tr("Title"))
        editor.setMaxLength(200)
        return editor

    def updateEditorGeometry(self, editor: QWidget, option: QStyleOptionViewItem, index: Index) -> None:  # noqa: ARG002
        editor.setGeometry(option.rect)

    def _paint_row(
        self, painter: QPainter, option: QStyleOptionViewItem, inside: QRect, title: str, row: ConversationRow
    ) -> None:
        metrics = option.fontMetrics
        is_selected = bool(option.state & QStyle.StateFlag.State_Selected)
        muted = QColor(self.theme.text if is_selected else self.theme.text_muted)  # too faint on the selection
        line = QRect(inside.left(), inside.top() + 6, inside.width(), metrics.height())
        right = line.right()
        if row.id == self.busy_id:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(self.theme.accent))
            painter.drawEllipse(right - DOT_PX, line.center().y() - DOT_PX // 2 + 1, DOT_PX, DOT_PX)
            right -= DOT_PX + 8
        if row.snapshot_bytes:
            size = format_file_size(row.snapshot_bytes)
            small = smaller(option.font)
            painter.setFont(small)
            painter.setPen(muted)
            area = QRect(line.left(), line.top(), right - line.left(), line.height())
            painter.drawText(area, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, size)
            right -= QFontMetrics(small).horizontalAdvance(size) + 8
        painter.setFont(option.font)
        painter.setPen(QColor(self.theme.text) if row.title else muted)
        title = metrics.elidedText(title, Qt.TextElideMode.ElideRight, right - line.left())
        painter.drawText(line, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, title)
        if row.excerpt:
            painter.setFont(smaller(option.font))
            painter.setPen(muted)
            line.translate(0, metrics.height() + 1)
            text = QFontMetrics(painter.font()).elidedText(row.excerpt, Qt.TextElideMode.ElideRight, line.width())
            painter.drawText(line, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, text)


def _small_bold(font: QFont) -> QFont:
    result = smaller(font)
    result.setWeight(QFont.Weight.DemiBold)
    return result
