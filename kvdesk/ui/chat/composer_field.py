"""The text field of the composer: grows with its text, Enter sends, files dropped or pasted are told, not read. UI thread."""

from __future__ import annotations

from PySide6.QtCore import QMimeData, QSize, Qt, Signal
from PySide6.QtGui import QKeyEvent, QResizeEvent
from PySide6.QtWidgets import QFrame, QPlainTextEdit, QSizePolicy, QWidget

FEWEST_LINES = 2
MOST_LINES = 8


class ComposerField(QPlainTextEdit):
    """FEWEST_LINES to MOST_LINES high, then it scrolls."""

    submitted = Signal()
    files_dropped = Signal(list)
    """Paths of local files that were dropped on the field or pasted into it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setTabChangesFocus(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.document().documentLayout().documentSizeChanged.connect(self._on_text_resized)
        self._on_text_resized()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Enter sends; with Shift it makes a line, as everywhere in chats."""
        is_enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if is_enter and not event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            self.submitted.emit()
        else:
            super().keyPressEvent(event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """A narrower field has more lines."""
        super().resizeEvent(event)
        self._on_text_resized()

    def minimumSizeHint(self) -> QSize:
        """Let the layout make the field as narrow as it needs to."""
        return QSize(120, 0)

    def canInsertFromMimeData(self, source: QMimeData) -> bool:
        """Accept text and files from clipboard and drag."""
        return source.hasUrls() or super().canInsertFromMimeData(source)

    def insertFromMimeData(self, source: QMimeData) -> None:
        """Files are told; anything else is put in as plain text."""
        paths = local_paths(source)
        if paths:
            self.files_dropped.emit(paths)
        else:
            super().insertFromMimeData(source)

    def _on_text_resized(self) -> None:
        lines = min(
            max(FEWEST_LINES, round(self.document().size().height())), MOST_LINES
        )  # a plain document counts lines
        layout = self.document().firstBlock().layout()
        metrics_height = (
            self.fontMetrics().lineSpacing()
        )  # rounded otherwise than the height of a line that is laid out
        line_height = layout.lineAt(0).height() if layout.lineCount() else metrics_height
        margins = self.contentsMargins()
        edges = margins.top() + margins.bottom() + 2 * self.document().documentMargin() + 1  # less, and it scrolls
        self.setFixedHeight(round(lines * line_height + edges))


def local_paths(source: QMimeData) -> list[str]:
    """The files on this computer that ``source`` names."""
    return [url.toLocalFile() for url in source.urls() if url.isLocalFile()]
