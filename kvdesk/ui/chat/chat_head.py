"""The head of the chat: a button that opens the conversation's settings over the messages. UI thread."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QPoint
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from kvdesk.ui.widgets.theme import set_role

POPOVER_PX = (400, 560)
"""Width and greatest height of the settings over the messages."""


class ChatHead(QWidget):
    """``settings`` is shown under the head's button, over what lies below in the same parent."""

    def __init__(self, settings: QWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._settings = settings
        settings.setParent(self)  # until it is wanted; it goes with the window all the same
        settings.hide()
        self._popover: QFrame | None = None
        self._button = QPushButton(self.tr("Chat settings"))
        self._button.setCheckable(True)
        self._button.setToolTip(
            self.tr("System prompt, sampling and what happens at the context's end, for this conversation")
        )
        set_role(self._button, "flat")
        self._button.toggled.connect(self._on_toggled)
        self._row = QHBoxLayout(self)
        self._row.setContentsMargins(8, 2, 8, 2)
        self._row.addStretch(1)
        self._row.addWidget(self._button)

    @property
    def is_open(self) -> bool:
        """Whether the settings are shown."""
        return self._button.isChecked()

    def open_settings(self) -> None:
        """Show the settings."""
        self._button.setChecked(True)

    def close_settings(self) -> None:
        """Hide the settings again."""
        self._button.setChecked(False)

    def _on_toggled(self, shown: bool) -> None:
        popover = self._popover or self._build()
        popover.setVisible(shown)
        if shown:
            self._place()
            popover.raise_()
            self._settings.setFocus()

    def _build(self) -> QFrame:
        parent = self.parentWidget() or self
        self._popover = popover = QFrame(parent)
        popover.setObjectName("popover")
        inside = QVBoxLayout(popover)
        inside.setContentsMargins(1, 1, 1, 1)
        inside.addWidget(self._settings)
        self._settings.show()
        parent.installEventFilter(self)
        return popover

    def _place(self) -> None:
        popover = self._popover
        parent = popover.parentWidget() if popover else None
        if popover is None or parent is None:
            return
        top = self.mapTo(parent, QPoint(0, self.height())).y()
        width = min(POPOVER_PX[0], parent.width() - 16)
        height = min(POPOVER_PX[1], parent.height() - top - 16)
        popover.setGeometry(parent.width() - width - 12, top, width, height)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Stay at the right edge when the parent's size changes."""
        if event.type() == QEvent.Type.Resize and self.is_open:
            self._place()
        return super().eventFilter(watched, event)
