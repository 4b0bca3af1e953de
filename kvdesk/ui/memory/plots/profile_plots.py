"""The plots of a context profile: memory, predicted and measured on the same axes, and speed at each depth.

Imports pyqtgraph: build them after the first paint. Raster Qt only; pens of width 1, the one width that is cheap there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyqtgraph as pg
from PySide6.QtCore import QEvent, QPointF, Qt, Signal
from PySide6.QtGui import QMouseEvent
from PySide6.QtWidgets import QWidget

from kvdesk.backend.planning.context_profile import ProfilePoint
from kvdesk.ui.memory.plots.chart_axes import BytesAxis, RateAxis, TokensAxis
from kvdesk.ui.memory.plots.plot_widget import PlotWidget
from kvdesk.ui.widgets.theme import Theme

DOT_PX = 8
Value = Callable[[ProfilePoint], float | None]


class _ProfilePlot(PlotWidget):
    """x: context length in tokens. Tells which measured point is nearest to the mouse."""

    hovered = Signal(object)
    """The ProfilePoint nearest to the mouse, None when the mouse has left."""

    def __init__(
        self, theme: Theme, axis: BytesAxis | RateAxis, values: Sequence[Value], parent: QWidget | None
    ) -> None:
        """``values``: what of a point is drawn, for the mouse to find."""
        self._axis, self._tokens_axis = axis, TokensAxis()
        super().__init__(theme, {"left": axis, "bottom": self._tokens_axis}, parent)
        self._values = values
        self._points: tuple[ProfilePoint, ...] = ()
        self._colors: Mapping[str, str] = {}
        self._tokens_axis.setHeight(20)
        self._axis.setGrid(70)
        self.plotItem.setContentsMargins(0, 7, 12, 0)
        self.getViewBox().setMouseEnabled(x=False, y=False)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setMouseTracking(True)

    def show_points(self, points: Sequence[ProfilePoint], colors: Mapping[str, str]) -> None:
        """Draw ``points``, those of one cache type in ``colors[cache type]``."""
        self._points, self._colors = tuple(points), colors
        self._draw()

    def set_theme(self, theme: Theme, colors: Mapping[str, str]) -> None:
        """Take the theme's colours."""
        self._theme, self._colors = theme, colors
        self.setBackground(theme.surface)
        for axis in (self._axis, self._tokens_axis):
            axis.set_theme(theme)
            axis.set_small_font(self.font())
        self._draw()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Find the point under the mouse."""
        super().mouseMoveEvent(event)
        self.hovered.emit(self._nearest(event.position()))

    def leaveEvent(self, event: QEvent) -> None:
        """Nothing is under the mouse."""
        super().leaveEvent(event)
        self.hovered.emit(None)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _nearest(self, position: QPointF) -> ProfilePoint | None:
        box = self.getViewBox()
        scene = self.mapToScene(position.toPoint())
        if not box.sceneBoundingRect().contains(scene):
            return None

        def distance(point: ProfilePoint) -> tuple[float, float]:
            """Along the axis of tokens first: a reading is of a length."""
            places = [
                box.mapViewToScene(QPointF(point.n_ctx, value)) - scene
                for value in (read(point) for read in self._values)
                if value is not None
            ]
            near = min(places, key=lambda place: abs(place.y()))
            return round(abs(near.x())), abs(near.y())

        drawn = [point for point in self._points if any(read(point) is not None for read in self._values)]
        return min(drawn, key=distance, default=None)

    def _draw(self) -> None:
        raise NotImplementedError

    def _line(self, points: Sequence[ProfilePoint], value: Value, color: str, style: Qt.PenStyle) -> None:
        known = [(point.n_ctx, y) for point in points if (y := value(point)) is not None]
        line = pg.PlotCurveItem(*_columns(known), pen=pg.mkPen(color, width=1, style=style), antialias=True)
        self.addItem(line, ignoreBounds=True)

    def _dots(self, points: Sequence[ProfilePoint], value: Value, color: str, *, filled: bool) -> None:
        known = [(point.n_ctx, y) for point in points if (y := value(point)) is not None]
        fill = color if filled else self._theme.surface
        dots = pg.ScatterPlotItem(
            *_columns(known), size=DOT_PX, pen=pg.mkPen(color, width=1), brush=pg.mkBrush(fill), antialias=True
        )
        dots.setZValue(10)
        self.addItem(dots, ignoreBounds=True)

    def _of_types(self) -> list[tuple[str, list[ProfilePoint]]]:
        return [
            (color, sorted((one for one in self._points if one.type_k == kind), key=lambda one: one.n_ctx))
            for kind, color in self._colors.items()
        ]

    def _fit(self) -> None:
        highest = max(
            (y for point in self._points for read in self._values if (y := read(point)) is not None), default=0
        )
        longest = max((point.n_ctx for point in self._points), default=0)
        if highest and longest:
            self.getViewBox().setRange(xRange=(0, longest * 1.04), yRange=(0, highest * 1.08), padding=0)


class ProfileMemoryPlot(_ProfilePlot):
    """All the engine holds, and the KV cache's share of it: lines as predicted, dots as measured."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(theme, BytesAxis(), _MEMORY, parent)
        self.setAccessibleName(self.tr("Memory against context length, predicted and measured"))
        self.set_theme(theme, {})

    def _draw(self) -> None:
        self.plotItem.clear()
        for color, points in self._of_types():
            self._line(points, _predicted_total, color, Qt.PenStyle.SolidLine)
            self._line(points, _predicted_kv, color, Qt.PenStyle.DashLine)
            self._dots(points, _total, color, filled=True)
            self._dots(points, _kv, color, filled=False)
        self._fit()


class ProfileSpeedPlot(_ProfilePlot):
    """One speed at each depth, every cache type a line of its own."""

    def __init__(self, theme: Theme, value: Value, name: str, parent: QWidget | None = None) -> None:
        super().__init__(theme, RateAxis(), (value,), parent)
        self._value = value
        self.setAccessibleName(name)
        self.set_theme(theme, {})

    def _draw(self) -> None:
        self.plotItem.clear()
        for color, points in self._of_types():
            self._line(points, self._value, color, Qt.PenStyle.SolidLine)
            self._dots(points, self._value, color, filled=True)
        self._fit()


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in pairs], [y for _, y in pairs]


def _total(point: ProfilePoint) -> float | None:
    return point.measured_total_bytes


def _kv(point: ProfilePoint) -> float | None:
    return point.kv_bytes


def _predicted_total(point: ProfilePoint) -> float | None:
    return point.predicted_total_bytes


def _predicted_kv(point: ProfilePoint) -> float | None:
    return point.predicted_kv_bytes


_MEMORY = (_total, _kv, _predicted_total, _predicted_kv)
