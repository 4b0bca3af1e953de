"""A figure that changes while one looks at it. UI thread."""

from __future__ import annotations

from PySide6.QtCore import QEvent
from PySide6.QtWidgets import QWidget

from kvdesk.ui.widgets.plain_text import PlainLabel


class StableWidthLabel(PlainLabel):
    """One line that is as wide as the widest text it has had: numbers do not dance, and a new one does not lay out the
    whole window again, which any change of a plain label's text does."""

    def __init__(self, text: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.show_text(text)

    def show_text(self, text: str) -> None:
        """Show ``text``."""
        if text != self.text():
            self.setText(text)
            self._fit(self.minimumWidth())

    def _fit(self, least_px: int) -> None:
        hint = self.sizeHint()
        width = max(hint.width(), least_px)
        if width != self.minimumWidth() or hint.height() != self.minimumHeight():
            self.setFixedSize(width, hint.height())

    def changeEvent(self, event: QEvent) -> None:
        """Another font has other widths."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._fit(0)
