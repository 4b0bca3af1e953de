"""A column of widgets that scrolls down, and only down: it is never narrower than what is in it. UI thread."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QFrame, QScrollArea, QWidget

from kvdesk.ui.widgets.wheel import zooms


class ScrollColumn(QScrollArea):
    """Holds ``page``, which keeps the look of what lies behind. ``name`` is what a screen reader calls it."""

    def __init__(self, page: QWidget, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(name)
        self.setWidget(page)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.viewport().setAutoFillBackground(False)
        page.setAutoFillBackground(False)
        page.installEventFilter(self)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Scroll; with Ctrl it is the window's zoom."""
        if zooms(event):
            event.ignore()
        else:
            super().wheelEvent(event)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Follow the page's own least width."""
        page = self.widget()
        if event.type() == QEvent.Type.LayoutRequest and page is not None and watched is page:
            self.setMinimumWidth(page.minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width())
        return super().eventFilter(watched, event)
