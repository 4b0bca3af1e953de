"""Text from outside in labels and tool tips: shown letter by letter, never read as HTML. UI thread.

Qt guesses from a text whether it is HTML; a model's name could have it load an image, on Windows from another machine.
"""

from __future__ import annotations

import html

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QMessageBox, QWidget

from kvdesk.shown_text import shown_text

LONGEST = 4000
"""Characters of a label or a tool tip: what is longer cannot be read there, and is laid out on every change."""


class PlainLabel(QLabel):
    """A label for any text. All labels are of this class, so that none has to be thought about."""

    def __init__(self, text: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setText(text)

    def setText(self, text: str) -> None:
        """Show ``text``, what would be obeyed as signs."""
        super().setText(shown_text(text, LONGEST))


def plain_tip(text: str) -> str:
    """``text`` for ``setToolTip``: a tool tip has no text format to set."""
    shown = shown_text(text, LONGEST)
    return f"<span style='white-space: pre-wrap'>{html.escape(shown)}</span>" if "<" in shown else shown


def message_box(parent: QWidget, question: str, more: str) -> QMessageBox:
    """A message box with ``question`` and, below it, ``more``."""
    box = QMessageBox(parent)
    box.setText(shown_text(question, LONGEST))
    box.setInformativeText(shown_text(more, LONGEST))
    for label in box.findChildren(QLabel):  # QMessageBox.setTextFormat is for the first text alone
        label.setTextFormat(Qt.TextFormat.PlainText)
    return box
