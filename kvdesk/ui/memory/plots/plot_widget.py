"""What both plots share: raster drawing, a wheel that leaves the page alone, a focus that can be seen.

Imports pyqtgraph: after the first paint.
"""

from __future__ import annotations

import pyqtgraph as pg
from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QColor, QFocusEvent, QPainter, QPaintEvent, QWheelEvent
from PySide6.QtWidgets import QWidget

from kvdesk.ui.widgets.theme import Theme


class PlotWidget(pg.PlotWidget):
    """A plot in a page that scrolls: the wheel zooms once the plot was clicked, or with Ctrl."""

    def __init__(self, theme: Theme, axes: dict[str, pg.AxisItem], parent: QWidget | None = None) -> None:
        super().__init__(parent, axisItems=axes, useOpenGL=False, enableMenu=False)
        self._theme = theme
        self.setAntialiasing(False)
        self.destroyed.connect(
            self.plotItem.ctrlMenu.deleteLater
        )  # pyqtgraph gives it no owner: it would stay for ever
        self.hideButtons()
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        box = self.getViewBox()
        box.setMouseEnabled(x=True, y=False)
        box.disableAutoRange()

    def sizeHint(self) -> QSize:
        """No more than the least: the layout around it stretches a plot."""
        return self.minimumSize().expandedTo(QSize(200, 56))

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Zoom, or let the page scroll."""
        if self.hasFocus() or event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            super().wheelEvent(event)
        else:
            event.ignore()

    def focusInEvent(self, event: QFocusEvent) -> None:
        """Draw a frame while the plot has the keyboard."""
        super().focusInEvent(event)
        self.viewport().update()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        """Remove the frame."""
        super().focusOutEvent(event)
        self.viewport().update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """A frame around what has the keyboard."""
        super().paintEvent(event)
        if self.hasFocus():
            painter = QPainter(self.viewport())
            painter.setPen(QColor(self._theme.accent))
            painter.drawRect(self.viewport().rect().adjusted(0, 0, -1, -1))
