"""A line between messages that says what the app did or what went wrong, with at most one thing to do. UI thread."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton, QWidget

from kvdesk.ui.widgets.icons import icon
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.theme import Theme

NOTICE_KINDS = ("note", "warning", "error")


class NoticeView(QFrame):
    """One notice. ``kind`` is one of NOTICE_KINDS."""

    action_clicked = Signal()

    def __init__(
        self, text: str, kind: str, action_text: str | None, theme: Theme, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._kind = kind
        self.setObjectName("notice")
        self.setProperty("kind", kind)
        self._picture = PlainLabel()
        self._picture.setFixedSize(16, 16)
        self.label = PlainLabel(text)
        self.label.setWordWrap(True)
        self.label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.label.setAccessibleName(text)
        row = QHBoxLayout(self)
        row.setContentsMargins(12, 6, 8, 6)
        row.setSpacing(8)
        row.addWidget(self._picture)
        row.addWidget(self.label, 1)
        self.button: QPushButton | None = None
        if action_text:
            self.button = QPushButton(action_text)
            self.button.clicked.connect(self.action_clicked)
            row.addWidget(self.button)
        self.set_theme(theme)

    def height_for(self, width: int) -> int:
        """How high the notice is at ``width`` pixels."""
        return max(self.heightForWidth(width), self.minimumSizeHint().height() if self.button else 0)

    def set_theme(self, theme: Theme) -> None:
        """Take the colours of ``theme``."""
        color = {"note": theme.text_muted, "warning": theme.amber, "error": theme.red}[self._kind]
        name = "notice" if self._kind == "note" else "warning"
        self._picture.setPixmap(icon(name, theme, color).pixmap(QSize(16, 16), self.devicePixelRatioF()))
