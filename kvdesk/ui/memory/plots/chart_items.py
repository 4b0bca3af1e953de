"""What a memory chart is drawn with: the stack of areas and its lines, and the marks of events. Raster, no antialiasing.

Imports pyqtgraph: after the first paint.
"""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QLineF, QRectF, Qt
from PySide6.QtGui import QBrush, QColor, QPainter, QPen, QPolygonF, QTransform

from kvdesk.ui.memory.composition import LAYERS
from kvdesk.ui.memory.plots.chart_history import Columns
from kvdesk.ui.memory.plots.series import known_runs


class Stack(pg.GraphicsObject):
    """The filled areas from the bottom up, other programs hanging from the domain's capacity, and the lines over them.

    Lines go through the least and the greatest value of every column; areas are as high as the greatest.
    """

    def __init__(self) -> None:
        super().__init__()
        self._brushes: dict[str, QBrush] = {}
        self._pens: dict[str, QPen] = {}
        self._areas: list[tuple[str, QPolygonF]] = []
        self._lines: list[tuple[str, QPolygonF]] = []
        self._bounds = QRectF()

    def set_colors(self, areas: dict[str, str], lines: dict[str, QPen]) -> None:
        """Colours of the areas, pens of the lines."""
        self._brushes = {name: QBrush(QColor(color)) for name, color in areas.items()}
        self._pens = lines
        self.update()

    def set_columns(self, columns: Columns, capacity: float | None, height: float) -> None:
        """Draw ``columns``; the chart is ``height`` bytes high."""
        x, high, low = columns.x, columns.high, columns.low
        self._areas, self._lines = [], []
        if capacity is not None:
            others = high["others"]
            for part in known_runs(others):
                top = np.full(len(x[part]), capacity)
                self._areas.append(("others", _area(x[part], capacity - others[part], top)))
        below = np.zeros(len(x), np.float32)
        for name in LAYERS:
            top = high[name]
            if np.nanmax(top - below, initial=0.0) > 0:
                self._areas += [(name, _area(x[part], below[part], top[part])) for part in known_runs(top)]
            below = top
        for line, series in (
            ("total", LAYERS[-1]),
            ("ceiling", "ceiling"),
            ("oom_line", "oom_line"),
            ("predicted", "predicted"),
        ):
            runs = known_runs(high[series])
            self._lines += [(line, _line(x[part], low[series][part], high[series][part])) for part in runs]
        self.prepareGeometryChange()
        self._bounds = QRectF(float(x[0]), 0.0, max(1e-9, float(x[-1] - x[0])), max(height, capacity or 0.0))
        self.update()

    def boundingRect(self) -> QRectF:
        """Where it draws, in seconds and bytes."""
        return self._bounds

    def paint(self, painter: QPainter, *_: object) -> None:
        """Qt asks for the picture."""
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        to_pixels = _take_transform(painter)
        painter.setPen(Qt.PenStyle.NoPen)
        for name, polygon in self._areas:
            painter.setBrush(self._brushes[name])
            painter.drawPolygon(to_pixels.map(polygon))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        for name, polyline in self._lines:
            painter.setPen(self._pens[name])
            painter.drawPolyline(to_pixels.map(polyline))


class EventMarks(pg.GraphicsObject):
    """A line with a foot for each event."""

    def __init__(self) -> None:
        super().__init__()
        self._pens: dict[str, QPen] = {}
        self._marks: list[tuple[float, str]] = []
        self._height = 1.0

    def set_colors(self, colors: dict[str, str]) -> None:
        """Give each bar the colour of its tone."""
        self._pens = {tone: cosmetic_pen(color, Qt.PenStyle.DashLine) for tone, color in colors.items()}
        self.update()

    def set_marks(self, marks: list[tuple[float, str]], height: float) -> None:
        """(time, tone) of every event."""
        self.prepareGeometryChange()
        self._marks, self._height = marks, height
        self.update()

    def boundingRect(self) -> QRectF:
        """Where it draws, in seconds and bytes."""
        if not self._marks:
            return QRectF()
        first, last = self._marks[0][0], self._marks[-1][0]
        return QRectF(min(first, last) - 1, 0, abs(last - first) + 2, self._height)

    def paint(self, painter: QPainter, *_: object) -> None:
        """Qt asks for the picture."""
        view = self.viewRect()
        to_pixels = _take_transform(painter)
        for x, tone in self._marks:
            if view.left() <= x <= view.right():
                painter.setPen(self._pens[tone])
                painter.drawLine(to_pixels.map(QLineF(x, 0, x, self._height)))


class GhostLine(pg.GraphicsObject):
    """A dashed line across the chart at a height, with words at its left end."""

    def __init__(self) -> None:
        super().__init__()
        self.height_bytes: float | None = None
        """Where it stands; None: it is hidden."""
        self._bounds = QRectF()
        self._pen = QPen()
        self._words = pg.TextItem(anchor=(0, 1))
        self._words.setParentItem(self)

    def set_colors(self, color: str, background: str) -> None:
        """Colour of line and words, and what is behind them."""
        self._pen = cosmetic_pen(color, Qt.PenStyle.DashLine)
        self._words.setColor(color)
        self._words.fill = QBrush(QColor(background))
        self.update()

    def show_at(self, height_bytes: float | None, words: str) -> None:
        """Stand at ``height_bytes``, or nowhere."""
        self.height_bytes = height_bytes
        self._words.setText(words)
        self.setVisible(height_bytes is not None)

    def place(self, time_range: tuple[float, float]) -> None:
        """Go across this stretch of time (seconds)."""
        if self.height_bytes is None:
            return
        self.prepareGeometryChange()
        start, end = time_range
        self._bounds = QRectF(start, self.height_bytes, max(1e-9, end - start), 1.0)
        self._words.setPos(start, self.height_bytes)
        self.update()

    def boundingRect(self) -> QRectF:
        """The line, in seconds and bytes."""
        return self._bounds

    def paint(self, painter: QPainter, *_: object) -> None:
        """Qt asks for the picture."""
        painter.setPen(self._pen)
        painter.drawLine(self._bounds.topLeft(), self._bounds.topRight())


def cosmetic_pen(color: str, style: Qt.PenStyle = Qt.PenStyle.SolidLine) -> QPen:
    """A pen of one pixel, whatever the scale."""
    pen = QPen(QColor(color), 1, style)
    pen.setCosmetic(True)
    return pen


def _take_transform(painter: QPainter) -> QTransform:
    """The painter's transform, which it has no more: seconds and bytes are mapped here, in double precision. An SVG file
    has six figures for a transform and for a point, too few for bytes."""
    transform = painter.transform()
    painter.resetTransform()
    return transform


def _area(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> QPolygonF:
    return pg.functions.arrayToQPolygonF(
        np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]]).astype(np.float64)
    )


def _line(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> QPolygonF:
    if np.shares_memory(low, high):  # few rows: they are drawn as they are
        return pg.functions.arrayToQPolygonF(x, high.astype(np.float64))
    return pg.functions.arrayToQPolygonF(np.repeat(x, 2), np.column_stack([low, high]).ravel().astype(np.float64))


def greatest(values: np.ndarray) -> float | None:
    """The largest value that is not NaN; None without one."""
    known = values[~np.isnan(values)]
    return float(known.max()) if len(known) else None


def last_known(values: np.ndarray) -> float | None:
    """The newest value that is not NaN; None without one."""
    known = np.flatnonzero(~np.isnan(values))
    return float(values[known[-1]]) if len(known) else None
