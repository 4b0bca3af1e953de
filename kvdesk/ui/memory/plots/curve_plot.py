"""The plot behind context_curve.py: memory against context length with a dot that can be dragged. Raster Qt only.

Imports pyqtgraph: build it after the first paint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyqtgraph as pg
from pyqtgraph.GraphicsScene.mouseEvents import MouseDragEvent
from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QBrush, QColor, QKeyEvent, QPainter, QPen
from PySide6.QtWidgets import QWidget

from kvdesk.backend.planning.plan import Curve
from kvdesk.ui.memory.plots.chart_axes import BytesAxis, TokensAxis
from kvdesk.ui.memory.plots.plot_widget import PlotWidget
from kvdesk.ui.widgets.numbers import format_bytes, format_tokens
from kvdesk.ui.widgets.theme import Theme, mix

STEP = 256
"""llama.cpp pads n_ctx to this."""


class CurvePlot(PlotWidget):
    """x: context length in tokens, y: bytes in the domain that runs out first."""

    n_ctx_dragged = Signal(int)
    n_ctx_chosen = Signal(int)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        self._bytes_axis, self._tokens_axis = BytesAxis(), TokensAxis()
        super().__init__(theme, {"left": self._bytes_axis, "bottom": self._tokens_axis}, parent)
        self._curves: tuple[Curve, ...] = ()
        self._chosen = 0
        self._colors: tuple[str, ...] = ()
        self._n_ctx = 0
        self._used: int | None = None
        self._key_moved = False
        self._shown = 0
        self.setAccessibleName(self.tr("Memory against context length"))
        self.setAccessibleDescription(self.tr("Left and Right change the context length by 256, Page keys by 4,096"))
        self._tokens_axis.setHeight(20)
        self._bytes_axis.setGrid(70)
        self.plotItem.setContentsMargins(0, 7, 12, 0)
        self._lines: list[pg.PlotCurveItem] = []
        self._over = pg.LinearRegionItem(movable=False, pen=pg.mkPen(None))
        self._oom = pg.InfiniteLine(
            angle=0, movable=False, label="", labelOpts={"position": 0.02, "anchors": [(0, 1), (0, 1)]}
        )
        self._crossing = pg.InfiniteLine(
            angle=90, movable=False, label="", labelOpts={"position": 0.97, "anchors": [(1, 0.5), (0, 0.5)]}
        )
        self._in_use = pg.InfiniteLine(angle=90, movable=False)
        self._dot = _Dot(self._on_dot_moved, self._on_dot_released)
        for z, item in enumerate((self._over, self._oom, self._crossing, self._in_use)):
            item.setZValue(z)
            self.addItem(item, ignoreBounds=True)
        self._dot.setZValue(20)
        self.addItem(self._dot, ignoreBounds=True)
        self.set_theme(theme)

    def show_curves(self, curves: Sequence[Curve], chosen: int, colors: Sequence[str]) -> None:
        """Draw ``curves``; number ``chosen`` carries the dot, and what lies over its crossing is shaded."""
        self._curves, self._chosen, self._colors = tuple(curves), chosen, tuple(colors)
        for line in self._lines:
            self.removeItem(line)
        self._lines = []
        for index, curve in enumerate(curves):
            line = pg.PlotCurveItem([p.n_ctx for p in curve.points], [p.device_bytes for p in curve.points])
            line.setZValue(10 + (index == chosen))
            self.addItem(line, ignoreBounds=True)
            self._lines.append(line)
        self._fit()
        self._paint_lines()
        self._place()

    def show_setting(self, n_ctx: int) -> None:
        """Put the dot at ``n_ctx``, unless it is being moved."""
        if not self.is_moving:
            self._n_ctx = n_ctx
            self._place()

    @property
    def is_moving(self) -> bool:
        """Whether the user has the dot in hand: answers to earlier places must not pull it back."""
        return self._dot.is_dragged or self._key_moved

    def show_tokens_in_use(self, n_tokens: int | None) -> None:
        """Mark how far the conversation reaches."""
        self._used = n_tokens
        self._place_in_use()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        self.setBackground(theme.surface)
        for axis in (self._bytes_axis, self._tokens_axis):
            axis.set_theme(theme)
            axis.set_small_font(self.font())
        chart = theme.chart
        shade = QColor(chart.oom_line)
        shade.setAlphaF(0.28)
        self._over.setBrush(QBrush(shade, Qt.BrushStyle.BDiagPattern))
        self._oom.setPen(pg.mkPen(chart.oom_line, width=1))
        self._crossing.setPen(pg.mkPen(chart.oom_line, width=1, style=Qt.PenStyle.DashLine))
        self._in_use.setPen(pg.mkPen(theme.text_muted, width=1, style=Qt.PenStyle.DotLine))
        for line in (self._oom, self._crossing):
            line.label.setColor(QColor(chart.oom_line))
        self._dot.set_colors(theme.accent, theme.surface)
        self._paint_lines()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Arrows move the dot by 256, page keys by 4,096, Home and End to the ends."""
        last = self._longest()
        steps = {
            Qt.Key.Key_Left: -STEP,
            Qt.Key.Key_Right: STEP,
            Qt.Key.Key_PageDown: -16 * STEP,
            Qt.Key.Key_PageUp: 16 * STEP,
            Qt.Key.Key_Home: -last,
            Qt.Key.Key_End: last,
        }
        step = steps.get(Qt.Key(event.key()))
        if step is None or not last:
            super().keyPressEvent(event)
            return
        self._key_moved = True
        self._move_to(self._n_ctx + step)

    def keyReleaseEvent(self, event: QKeyEvent) -> None:
        """Choose the length under the cursor when the arrow key is released."""
        super().keyReleaseEvent(event)
        if self._key_moved and not event.isAutoRepeat():
            self.n_ctx_chosen.emit(self._n_ctx)
            self._key_moved = False

    # --- inside ------------------------------------------------------------------------------------------------------

    def _longest(self) -> int:
        return max((curve.points[-1].n_ctx for curve in self._curves if curve.points), default=0)

    def _on_dot_moved(self, x: float) -> None:
        self._move_to(round(x / STEP) * STEP)

    def _on_dot_released(self) -> None:
        self.n_ctx_chosen.emit(self._n_ctx)

    def _move_to(self, n_ctx: int) -> None:
        n_ctx = max(STEP, min(n_ctx, self._longest()))
        if n_ctx != self._n_ctx:
            self._n_ctx = n_ctx
            self._place()
            self.n_ctx_dragged.emit(n_ctx)

    def _fit(self) -> None:
        """x: the whole length, or what is in reach when little of it fits (the wheel shows the rest).
        y: the curves, and the line where it is near enough to matter."""
        last = self._longest()
        if not last:
            return
        top = max(point.device_bytes for curve in self._curves for point in curve.points)
        line = self._line_bytes()
        if line is not None:
            top = min(top, line * 2.5) if line < top else max(top, line) if line < top * 1.8 else top
        fits = max((curve.crossing_n_ctx or 0) for curve in self._curves)
        shown = last if fits > last / 6 or line is None else min(last, max(3 * fits, 2 * self._n_ctx, 16 * STEP))
        box = self.getViewBox()
        box.setLimits(xMin=0, xMax=last * 1.02, minXRange=STEP * 8)
        box.setYRange(0, top * 1.1, padding=0)
        if shown != self._shown:  # else the user's own zoom stays
            self._shown = shown
            box.setXRange(0, shown * 1.02, padding=0)

    def _line_bytes(self) -> int | None:
        return self._curves[self._chosen].oom_line_bytes if self._curves else None

    def _paint_lines(self) -> None:
        for index, (line, color) in enumerate(zip(self._lines, self._colors, strict=True)):
            is_chosen = index == self._chosen
            line.setPen(
                pg.mkPen(color if is_chosen else mix(color, self._theme.surface, 0.25), width=2 if is_chosen else 1)
            )
            line.opts["antialias"] = True
            line.update()

    def _place_in_use(self) -> None:
        self._in_use.setVisible(self._used is not None and self._longest() > 0)
        if self._used is not None:
            self._in_use.setValue(self._used)
            self._in_use.setToolTip(self.tr("{0} tokens in use").format(format_tokens(self._used)))

    def _place(self) -> None:
        """Everything that depends on the setting, the crossing or the tokens in use."""
        line, last = self._line_bytes(), self._longest()
        self._oom.setVisible(line is not None)
        crossing = self._curves[self._chosen].crossing_n_ctx if self._curves else None
        is_crossed = line is not None and last > 0 and (crossing or 0) < last
        self._crossing.setVisible(is_crossed)
        self._over.setVisible(is_crossed)
        if line is not None:
            self._oom.setValue(line)
            self._oom.label.setFormat(self.tr("OOM line {0}").format(format_bytes(line)))
        if is_crossed:
            self._crossing.setValue(crossing or 0)
            self._crossing.label.setFormat(format_tokens(crossing or 0))
            # Near the left edge the words would fall off the chart.
            self._crossing.label.anchors = [(1, 0.5), (0, 0.5)] if (crossing or 0) > last / 5 else [(0, 0.5), (0, 0.5)]
            self._over.setRegion((crossing or 0, last * 1.02))
        self._place_in_use()
        point = self._curves[self._chosen].at(self._n_ctx) if self._curves else None
        height = point.device_bytes if point else None
        self._dot.setVisible(height is not None and self._n_ctx > 0)
        if height is not None:
            self._dot.setPos(QPointF(self._n_ctx, height))
            self._dot.setToolTip(f"{format_tokens(self._n_ctx)}: {format_bytes(height)}")


class _Dot(pg.GraphicsObject):
    """A round handle that keeps its size on screen and reports where it is dragged to."""

    RADIUS = 7.0

    def __init__(self, on_moved: Callable[[float], None], on_released: Callable[[], None]) -> None:
        super().__init__()
        self._on_moved, self._on_released = on_moved, on_released
        self.is_dragged = False
        self._color, self._rim = QColor(), QColor()
        self.setFlag(self.GraphicsItemFlag.ItemIgnoresTransformations)
        self.setCursor(Qt.CursorShape.SizeHorCursor)
        self.setVisible(False)

    def set_colors(self, color: str, rim: str) -> None:
        self._color, self._rim = QColor(color), QColor(rim)
        self.update()

    def boundingRect(self) -> QRectF:
        r = self.RADIUS + 3
        return QRectF(-r, -r, 2 * r, 2 * r)

    def paint(self, painter: QPainter, *_: object) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(self._rim, 2))
        painter.setBrush(self._color)
        painter.drawEllipse(QPointF(0, 0), self.RADIUS, self.RADIUS)

    def mouseDragEvent(self, event: MouseDragEvent) -> None:
        """pyqtgraph's drag: follow the pointer along the axis."""
        if event.button() != Qt.MouseButton.LeftButton:
            event.ignore()
            return
        event.accept()
        self.is_dragged = True
        self._on_moved(self.getViewBox().mapSceneToView(event.scenePos()).x())
        if event.isFinish():
            self.is_dragged = False
            self._on_released()
