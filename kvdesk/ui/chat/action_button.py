"""A small icon button under a message: seen when the message is hovered or the button has the focus. UI thread."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt, QTimer, Signal
from PySide6.QtGui import QFocusEvent, QPaintEvent
from PySide6.QtWidgets import QToolButton, QWidget

from kvdesk.ui.widgets.icons import icon
from kvdesk.ui.widgets.theme import Theme

DONE_MS = 1500


class ActionButton(QToolButton):
    """Takes its place and can be reached by keyboard also while it is not revealed."""

    focus_changed = Signal()

    def __init__(self, icon_name: str, label: str, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._icon_name = icon_name
        self._theme = theme
        self._is_revealed = False
        self._is_done = False
        self.setIconSize(QSize(16, 16))
        self.setFixedSize(26, 26)
        self.setToolTip(label)
        self.setAccessibleName(label)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._on_done_shown)
        self._set_icon()

    @property
    def is_revealed(self) -> bool:
        """Whether the button can be seen."""
        return self._is_revealed or self.hasFocus()

    def set_revealed(self, revealed: bool) -> None:
        """Let the button be seen, or leave its place empty."""
        if revealed != self._is_revealed:
            self._is_revealed = revealed
            self.update()

    def show_done(self) -> None:
        """Show a check mark for a moment."""
        self._is_done = True
        self._set_icon()
        self._timer.start(DONE_MS)

    def set_theme(self, theme: Theme) -> None:
        """Take the colours of ``theme``."""
        self._theme = theme
        self._set_icon()

    def paintEvent(self, event: QPaintEvent) -> None:
        if self.is_revealed:
            super().paintEvent(event)

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        self.focus_changed.emit()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self.focus_changed.emit()

    def _set_icon(self) -> None:
        if self._is_done:
            self.setIcon(icon("check", self._theme, self._theme.green))
        else:
            self.setIcon(icon(self._icon_name, self._theme, self._theme.text_muted))

    def _on_done_shown(self) -> None:
        self._is_done = False
        self._set_icon()
