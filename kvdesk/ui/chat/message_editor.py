"""Edits a user's message in its place; the old one stays as another version. UI thread."""

from __future__ import annotations

import math

from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtGui import QFontMetrics, QKeyEvent, QTextCursor
from PySide6.QtWidgets import QHBoxLayout, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

MOST_LINES = 14


class MessageEditor(QWidget):
    """A text field with Send and Cancel. Enter sends, Shift+Enter makes a line, Esc cancels."""

    submitted = Signal(str)
    cancelled = Signal()
    height_changed = Signal()

    def __init__(self, text: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.field = _Field(text)
        self.field.moveCursor(QTextCursor.MoveOperation.End)
        self.field.setAccessibleName(self.tr("Edited message"))
        self.send_button = QPushButton(self.tr("Send as new branch"))
        self.send_button.setProperty("role", "primary")
        self.cancel_button = QPushButton(self.tr("Cancel"))
        buttons = QHBoxLayout()
        buttons.addStretch(1)
        buttons.addWidget(self.cancel_button)
        buttons.addWidget(self.send_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addWidget(self.field, 1)
        column.addLayout(buttons)
        self.setFocusProxy(self.field)
        self.field.textChanged.connect(self._on_text_changed)
        self.field.submitted.connect(self._on_submitted)
        self.field.cancelled.connect(self.cancelled)
        self.send_button.clicked.connect(self._on_submitted)
        self.cancel_button.clicked.connect(self.cancelled)

    def height_for(self, width: int) -> int:
        """Room for the text, up to MOST_LINES lines, and the buttons."""
        metrics = QFontMetrics(self.field.font())
        columns = max(1, (width - 24) // max(1, metrics.averageCharWidth()))
        lines = sum(math.ceil(max(1, len(line)) / columns) for line in self.field.toPlainText().split("\n"))
        return min(max(2, lines), MOST_LINES) * metrics.lineSpacing() + 20 + self.send_button.sizeHint().height() + 8

    def _on_text_changed(self) -> None:
        self.send_button.setEnabled(bool(self.field.toPlainText().strip()))
        self.height_changed.emit()

    def _on_submitted(self) -> None:
        text = self.field.toPlainText()
        if text.strip():
            self.submitted.emit(text)


class _Field(QPlainTextEdit):
    submitted = Signal()
    cancelled = Signal()

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.setTabChangesFocus(True)

    def event(self, event: QEvent) -> bool:
        """Esc is this field's before it is the action's that stops a reply."""
        is_escape = isinstance(event, QKeyEvent) and event.key() == Qt.Key.Key_Escape
        if is_escape and event.type() == QEvent.Type.ShortcutOverride:
            event.accept()
            return True
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        is_enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if is_enter and not event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            self.submitted.emit()
        elif event.key() == Qt.Key.Key_Escape:
            self.cancelled.emit()
        else:
            super().keyPressEvent(event)
