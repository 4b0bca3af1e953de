"""What stands in a reply's place before its first word: how much of the prompt is read. UI thread."""

from __future__ import annotations

from PySide6.QtWidgets import QHBoxLayout, QProgressBar, QWidget

from kvdesk.ui.chat.message_row import MessageState
from kvdesk.ui.widgets.numbers import format_tokens
from kvdesk.ui.widgets.plain_text import PlainLabel

PROGRESS_HEIGHT = 24


class ReplyProgress(QWidget):
    """ "Reading prompt 512 / 2,048" beside a bar."""

    def __init__(self, state: MessageState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.label = PlainLabel()
        self.label.setProperty("role", "muted")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setMaximumWidth(240)
        self.bar.setAccessibleName(self.tr("Prompt read"))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(10)
        row.addWidget(self.label)
        row.addWidget(self.bar, 1)
        row.addStretch(1)
        self.refresh()

    def refresh(self) -> None:
        """Show what the state says now."""
        done, total = self._state.prompt_done, self._state.prompt_total
        self.bar.setVisible(done is not None)
        if done is None:
            self.label.setText(self.tr("Waiting for the first word…"))
            return
        self.bar.setRange(0, max(1, total))
        self.bar.setValue(done)
        self.label.setText(
            self.tr("Reading prompt {done} / {total}").format(done=format_tokens(done), total=format_tokens(total))
        )

    def height_for(self, _width: int) -> int:
        """One line's height in pixels, at any width."""
        return PROGRESS_HEIGHT
