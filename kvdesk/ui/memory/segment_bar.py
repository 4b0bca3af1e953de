"""A horizontal bar of coloured segments with marks, and the swatch that a legend puts before a name. UI thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QEvent, QRectF, QSize, Qt
from PySide6.QtGui import QBrush, QColor, QHelpEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from kvdesk.ui.widgets.theme import Theme


@dataclass(frozen=True)
class Segment:
    """A stretch of a bar: ``size`` in the bar's unit; ``is_room`` is drawn hollow, as what could still be had."""

    size: float
    color: str
    label: str
    is_room: bool = False


@dataclass(frozen=True)
class BarMark:
    """A tick across a bar at ``at``."""

    at: float
    color: str
    label: str


class SegmentBar(QWidget):
    """A horizontal bar of segments, from 0 to ``whole``, with ticks. Hovering a part says what it is."""

    def __init__(self, theme: Theme, height_px: int = 12, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._height_px = height_px
        self._segments: tuple[Segment, ...] = ()
        self._marks: tuple[BarMark, ...] = ()
        self._whole = 0.0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(self.tr("Memory bar"))

    def show_segments(self, whole: float, segments: Sequence[Segment], marks: Sequence[BarMark] = ()) -> None:
        """Draw ``segments`` one after another; what is left up to ``whole`` stays empty."""
        wanted = (whole, tuple(segments), tuple(marks))
        if wanted == (self._whole, self._segments, self._marks):
            return
        self._whole, self._segments, self._marks = wanted
        self.setAccessibleDescription("; ".join([*(s.label for s in segments), *(m.label for m in marks)]))
        self.update()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours; segments keep theirs until shown anew."""
        self._theme = theme
        self.update()

    def sizeHint(self) -> QSize:
        """Take any width, and the height of one bar."""
        return QSize(120, self._height_px + 4)

    def event(self, event: QEvent) -> bool:
        """The tool tip is that of the part under the mouse."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            text = self.label_at(event.pos().x())
            QToolTip.showText(event.globalPos(), text, self)
            return True
        return super().event(event)

    def label_at(self, x_px: float) -> str:
        """What lies at ``x_px``; a mark within three pixels goes before the segment."""
        if self._whole <= 0 or self.width() <= 0:
            return ""
        for mark in self._marks:
            if abs(mark.at / self._whole * self.width() - x_px) <= 3:
                return mark.label
        at, passed = x_px / self.width() * self._whole, 0.0
        for segment in self._segments:
            passed += segment.size
            if at < passed:
                return segment.label
        return ""

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        """Segments with hairline gaps, then the marks."""
        painter = QPainter(self)
        bar = QRectF(0, (self.height() - self._height_px) / 2, self.width(), self._height_px)
        painter.fillRect(bar, QColor(self._theme.surface_raised))
        if self._whole > 0:
            x = 0.0
            for segment in self._segments:
                width = min(segment.size / self._whole * bar.width(), bar.width() - x)
                if width > 0:
                    self._paint_segment(painter, QRectF(bar.x() + x, bar.y(), width, bar.height()), segment)
                    x += width
            for mark in self._marks:
                at = round(min(mark.at / self._whole, 1.0) * (bar.width() - 1))
                painter.fillRect(QRectF(at - 1, bar.y() - 2, 2, bar.height() + 4), QColor(mark.color))
        painter.setPen(QPen(QColor(self._theme.border), 1))
        painter.drawRect(bar.adjusted(0.5, 0.5, -0.5, -0.5))

    def _paint_segment(self, painter: QPainter, rect: QRectF, segment: Segment) -> None:
        if segment.is_room:
            painter.fillRect(rect, QColor(self._theme.surface))
            painter.fillRect(rect, QBrush(QColor(segment.color), Qt.BrushStyle.BDiagPattern))
        else:
            painter.fillRect(rect.adjusted(0, 0, -1 if rect.width() > 3 else 0, 0), QColor(segment.color))


class Swatch(QWidget):
    """A square of colour before a legend's name. ``kind``: "full", "edged" (pale with an edge), "room" (hatched: not
    there yet), "line", "dotted"."""

    def __init__(self, kind: str = "full", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._color = "#000000"
        self._kind = kind
        self.setFixedSize(12, 12)

    def set_color(self, color: str) -> None:
        """Paint it in ``color``."""
        if color != self._color:
            self._color = color
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        """The square, or the line."""
        painter = QPainter(self)
        color = QColor(self._color)
        if self._kind in ("line", "dotted"):
            style = Qt.PenStyle.DotLine if self._kind == "dotted" else Qt.PenStyle.SolidLine
            painter.setPen(QPen(color, 2, style))
            painter.drawLine(0, 6, 12, 6)
            return
        if self._kind == "full":
            painter.fillRect(1, 1, 10, 10, color)
            return
        if self._kind == "edged":
            pale = QColor(color)
            pale.setAlphaF(0.4)
            painter.fillRect(1, 1, 10, 10, pale)
        else:
            painter.fillRect(1, 1, 10, 10, QBrush(color, Qt.BrushStyle.BDiagPattern))
        painter.setPen(color)
        painter.drawRect(1, 1, 9, 9)
