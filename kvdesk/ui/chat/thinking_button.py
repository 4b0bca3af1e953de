"""The line that stands for what the model thought, and opens and closes it. UI thread."""

from __future__ import annotations

from PySide6.QtCore import QSize
from PySide6.QtWidgets import QPushButton, QWidget

from kvdesk.ui.widgets.icons import icon
from kvdesk.ui.widgets.numbers import format_tokens
from kvdesk.ui.widgets.theme import Theme

THINKING_HEIGHT = 28


class ThinkingButton(QPushButton):
    """Opens and closes what the model thought."""

    def __init__(self, theme: Theme, parent: QWidget) -> None:
        super().__init__(parent)
        self._theme = theme
        self._is_open = False
        self.setObjectName("thinking")
        self.setIconSize(QSize(14, 14))

    def show_state(self, is_thinking: bool, is_open: bool, n_tokens: int | None = None) -> None:
        """Say whether thinking goes on, how many tokens it has taken, and which way the button turns."""
        self._is_open = is_open
        words = self.tr("Thinking…") if is_thinking else self.tr("Thought")
        self.setText(self.tr("{0} {1} tokens").format(words, format_tokens(n_tokens)) if n_tokens else words)
        self.setToolTip(self.tr("Hide what the model thought") if is_open else self.tr("Show what the model thought"))
        self.set_theme(self._theme)

    def height_for(self, _width: int) -> int:
        """One line's height in pixels, at any width."""
        return THINKING_HEIGHT

    def set_theme(self, theme: Theme) -> None:
        """Take the colours of ``theme``."""
        self._theme = theme
        self.setIcon(icon("chevron-down" if self._is_open else "chevron-right", theme, theme.text_muted))
