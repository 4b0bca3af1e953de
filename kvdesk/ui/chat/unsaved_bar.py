"""Says, above the composer, since when and why what is said is not stored, and saves it elsewhere. UI thread."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget

from kvdesk.ui.chat.notice_view import NoticeView
from kvdesk.ui.widgets.theme import Theme


class UnsavedBar(NoticeView):
    """Hidden while everything is stored. ``action_clicked``: save the conversation in view as a file."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__("", "error", "Save as…", theme, parent)
        assert self.button
        self.button.setText(self.tr("Save as…"))
        self.hide()

    def show_problem(self, sentence: str) -> None:
        """Say ``sentence``; "" hides the bar."""
        self.label.setText(sentence)
        self.label.setAccessibleName(sentence)
        self.setVisible(bool(sentence))
