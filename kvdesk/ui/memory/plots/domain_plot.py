"""The plot of one memory domain over time: stacked parts, the OOM line, what is predicted, event marks. Raster Qt only.

Imports pyqtgraph: build it after the first paint. What the numbers mean is composition.py's; it draws and zooms.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QEvent, QPointF, Qt, QTimer, Signal
from PySide6.QtGui import QBrush, QColor, QKeyEvent, QPen, QShowEvent
from PySide6.QtWidgets import QWidget

from kvdesk.backend.system.samples import DomainReading
from kvdesk.ui.memory.composition import LAYERS, Parts
from kvdesk.ui.memory.legend import part_color
from kvdesk.ui.memory.plots.chart_axes import BytesAxis, ClockAxis
from kvdesk.ui.memory.plots.chart_event import ChartEvent
from kvdesk.ui.memory.plots.chart_history import SESSION_ROWS, ChartHistory
from kvdesk.ui.memory.plots.chart_items import EventMarks, GhostLine, Stack, cosmetic_pen, greatest, last_known
from kvdesk.ui.memory.plots.moment import Moment, moment_of
from kvdesk.ui.memory.plots.plot_widget import PlotWidget
from kvdesk.ui.memory.plots.series import SERIES, row_of, without
from kvdesk.ui.widgets.numbers import format_bytes
from kvdesk.ui.widgets.theme import Theme, mix

RECENT_S = 600.0
SHORTEST_S = 5.0
SHORTEST_FOLLOWED_S = 60.0
"""A young session fills the chart: it starts with a minute and widens to the ten."""
DRAW_SHARE = 150
"""How many times as long as drawing took new samples wait to be drawn: on a slow machine every other one is drawn with
the next. What the user does is drawn at once."""


def area_colors(theme: Theme) -> dict[str, str]:
    """The colour of every area; other programs are paler than their line, for the engine is the subject."""
    return {name: part_color(name, theme) for name in LAYERS} | {"others": mix(theme.chart.others, theme.surface, 0.6)}


class DomainPlot(PlotWidget):
    """Time runs to the right in seconds, bytes up. The wheel zooms in time, dragging pans, both end following."""

    moment_hovered = Signal(object)
    """Moment under the mouse, or None when it left."""
    following_changed = Signal(bool)
    range_changed = Signal(float, float)
    """The visible stretch of time, when the user changed it."""
    time_pointed = Signal(object)
    """Where in time the mouse is; None when it left."""

    def __init__(self, theme: Theme, capacity_rows: int = SESSION_ROWS, parent: QWidget | None = None) -> None:
        self._bytes_axis, self._clock_axis = BytesAxis(), ClockAxis()
        super().__init__(theme, {"left": self._bytes_axis, "bottom": self._clock_axis}, parent)
        self._history = ChartHistory(SERIES, capacity_rows)
        self._events: list[ChartEvent] = []
        self._following = True
        self._span_s = RECENT_S
        self._whole_domain: bool | None = None
        self._paused_at: float | None = None
        self._hovered_x: float | None = None
        self._top_bytes = 1.0
        self._hidden: frozenset[str] = frozenset()
        self._full_kv_bytes: float | None = None
        self._line_height: float | None = None
        self.setMouseTracking(True)
        self.setAccessibleName(self.tr("Memory over time"))
        self._clock_axis.setHeight(20)
        self.plotItem.setContentsMargins(0, 7, 8, 0)
        self._bytes_axis.setGrid(70)
        self._stack = Stack()
        self._marks = EventMarks()
        self._cursor = pg.InfiniteLine(angle=90, movable=False)
        self._label = pg.TextItem(anchor=(0, 0))
        self._above = pg.TextItem(anchor=(1, 0))
        self._ghost = GhostLine()
        for z, item in enumerate((self._stack, self._marks, self._ghost, self._cursor, self._label, self._above)):
            item.setZValue(z)
            self.addItem(item, ignoreBounds=True)
        for item in (self._cursor, self._label, self._above, self._ghost):
            item.hide()
        box = self.getViewBox()
        box.setLimits(minXRange=SHORTEST_S)
        box.sigRangeChangedManually.connect(self._on_range_dragged)
        box.sigXRangeChanged.connect(self._redraw_soon)
        box.sigResized.connect(self._redraw_soon)
        self._rests_until = 0.0
        self._redraw_timer = QTimer(self)
        self._redraw_timer.setSingleShot(True)
        self._redraw_timer.timeout.connect(self._redraw)
        self.scene().sigMouseMoved.connect(self._on_mouse_moved)
        self.set_theme(theme)

    # --- data ----------------------------------------------------------------------------------------------------

    def add_reading(
        self,
        x_s: float,
        time_s: float,
        reading: DomainReading,
        parts: Parts | None,
        predicted_bytes: int | None,
        margin_bytes: int,
    ) -> None:
        """One sample of this domain: at ``x_s`` on the chart's clock, ``time_s`` of the wall's."""
        self._clock_axis.epoch_s = time_s - x_s
        self._history.append(x_s, row_of(reading, parts, predicted_bytes, margin_bytes))
        if self._paused_at is None:
            self._redraw_rested()

    def show_rows(self, epoch_s: float, times: np.ndarray, values: np.ndarray) -> None:
        """A whole session at once: ``times`` (n, seconds), ``values`` (SERIES x n, NaN is unknown)."""
        self._clock_axis.epoch_s = epoch_s
        self._history.clear()
        self._history.extend(times, values)
        self._redraw_soon()

    def add_event(self, event: ChartEvent) -> None:
        """Mark an event."""
        self._events.append(event)
        self._redraw_soon()

    def show_events(self, events: Iterable[ChartEvent]) -> None:
        """Mark these events and no others."""
        self._events = list(events)
        self._redraw_soon()

    # --- what is seen ----------------------------------------------------------------------------------------------

    @property
    def following(self) -> bool:
        """Whether the newest moment stays in sight."""
        return self._following

    @property
    def history(self) -> ChartHistory:
        """The rows behind the chart."""
        return self._history

    @property
    def visible_range(self) -> tuple[float, float]:
        """The stretch of time in sight, on the chart's clock."""
        (start, end), _ = self.getViewBox().viewRange()
        return start, end

    def follow(self, span_s: float | None = None) -> None:
        """Keep the newest moment in sight, with ``span_s`` before it (as before when None)."""
        if span_s is not None:
            self._span_s = span_s
        self._set_following(True)
        self._redraw_soon()

    def show_all(self) -> None:
        """Show the session from its beginning to now."""
        times = self._history.times
        if len(times):
            self.show_range(float(times[0]), max(float(times[-1]), float(times[0]) + SHORTEST_S))

    def show_range(self, start_s: float, end_s: float) -> None:
        """Just this stretch of time; following ends."""
        self._set_following(False)
        self.setXRange(start_s, end_s, padding=0)

    def set_whole_domain(self, whole: bool | None) -> None:
        """True: up to the domain's capacity; False: up to what the engine needs; None: the line decides, if near."""
        self._whole_domain = whole
        self._redraw_soon()

    def set_hidden(self, hidden: frozenset[str], full_kv_bytes: float | None) -> None:
        """Draw without the layers ``hidden``, all lines lowered by them; ``full_kv_bytes`` is the line where only KV is
        left."""
        if (hidden, full_kv_bytes) != (self._hidden, self._full_kv_bytes):
            self._hidden, self._full_kv_bytes = hidden, full_kv_bytes
            self._top_bytes = 1.0
            self._redraw_soon()

    def show_ghost(self, height_bytes: float | None, words: str = "") -> None:
        """A line where the setting that is being edited would bring what is drawn; None takes it away."""
        self._ghost.show_at(height_bytes, words)
        self._redraw_soon()

    def set_paused(self, paused: bool) -> None:
        """Freeze the picture; rows still come in and are there on resuming."""
        self._paused_at = self._newest() if paused else None
        self._redraw_soon()

    def set_compact(self, compact: bool) -> None:
        """Hide the axes, for a plot that is only a few lines high."""
        for name in ("left", "bottom"):
            self.showAxis(name, not compact)
        self._redraw_soon()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        chart = theme.chart
        self.setBackground(theme.surface)
        for axis in (self._bytes_axis, self._clock_axis):
            axis.set_theme(theme)
            axis.set_small_font(self.font())
        pens = {
            "total": cosmetic_pen(theme.text_muted),
            "ceiling": cosmetic_pen(chart.others),
            "oom_line": cosmetic_pen(chart.oom_line),
            "predicted": cosmetic_pen(chart.predicted, Qt.PenStyle.DotLine),
        }
        self._stack.set_colors(area_colors(theme), pens)
        self._cursor.setPen(cosmetic_pen(theme.text_muted))
        self._marks.set_colors({"": chart.event, "amber": theme.amber, "red": theme.red})
        for item in (self._label, self._above):
            item.fill = QBrush(QColor(theme.surface_raised))
            item.border = QPen(QColor(theme.border))
        self._above.setColor(chart.oom_line)
        self._above.setToolTip(
            self.tr(
                "Above this line the engine takes what other programs or the system need: the margin under it is kept."
            )
        )
        self._ghost.set_colors(theme.accent, theme.surface_raised)
        self._label.setColor(theme.text)
        self._redraw_soon()

    def point_at(self, x_s: float | None) -> None:
        """Read the values at this time as if the mouse were there; None: it is nowhere."""
        self._hovered_x = x_s
        if x_s is not None:
            self._show_hovered()
            return
        self._cursor.hide()
        self._label.hide()
        self.moment_hovered.emit(None)

    def y_of_line(self) -> float | None:
        """The newest known height of the OOM line, in bytes."""
        return last_known(self._history.series("oom_line"))

    def moment_at(self, x_s: float) -> Moment | None:
        """The sample nearest to ``x_s`` as single values (not edges), with an event if its mark is within 6 pixels."""
        found = self._history.at(x_s)
        if found is None:
            return None
        x, row = found
        return moment_of(x + self._clock_axis.epoch_s, row, self._event_near(x_s))

    # --- Qt calls these ----------------------------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent) -> None:
        """Draw what came in while hidden."""
        super().showEvent(event)
        self._redraw_soon()

    def leaveEvent(self, event: QEvent) -> None:
        """The mouse left: back to now."""
        super().leaveEvent(event)
        self.point_at(None)
        self.time_pointed.emit(None)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Arrows pan, plus and minus zoom, Home shows all, End follows."""
        start, end = self.visible_range
        span = end - start
        match event.key():
            case Qt.Key.Key_Left:
                self.show_range(start - span / 8, end - span / 8)
            case Qt.Key.Key_Right:
                self.show_range(start + span / 8, end + span / 8)
            case Qt.Key.Key_Plus | Qt.Key.Key_Equal:
                self.show_range(end - max(SHORTEST_S, span / 2), end)
            case Qt.Key.Key_Minus:
                self.show_range(end - span * 2, end)
            case Qt.Key.Key_Home:
                self.show_all()
            case Qt.Key.Key_End:
                self.follow()
            case _:
                super().keyPressEvent(event)
                return
        self.range_changed.emit(*self.visible_range)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _newest(self) -> float | None:
        return float(self._history.times[-1]) if len(self._history) else None

    def _set_following(self, following: bool) -> None:
        if following != self._following:
            self._following = following
            self.following_changed.emit(following)

    def _on_range_dragged(self) -> None:
        start, end = self.visible_range
        newest = self._newest()
        if self._following and newest is not None and end >= newest and end - start < self._span_s * 0.999:
            self._span_s = end - start  # zooming in on the newest moment keeps following
        else:
            self._set_following(False)
        self.range_changed.emit(start, end)

    def _on_mouse_moved(self, position: QPointF) -> None:
        box = self.getViewBox()
        if not box.sceneBoundingRect().contains(position):
            return
        x = box.mapSceneToView(position).x()
        self.point_at(x)
        self.time_pointed.emit(x)

    def _show_hovered(self) -> None:
        if self._hovered_x is None:
            return
        moment = self.moment_at(self._hovered_x)
        if moment is None:
            return
        x = moment.time_s - self._clock_axis.epoch_s
        self._cursor.setPos(x)
        self._cursor.show()
        self._label.setVisible(moment.event is not None)
        if moment.event is not None:
            start, end = self.visible_range
            self._label.setText(moment.event.label)
            self._label.setAnchor((0, 0) if x < (start + end) / 2 else (1, 0))
            self._label.setPos(moment.event.time_s - self._clock_axis.epoch_s, self._top_bytes)
        self.moment_hovered.emit(moment)

    def _event_near(self, x_s: float) -> ChartEvent | None:
        start, end = self.visible_range
        reach_s = (end - start) / max(1.0, self.getViewBox().width()) * 6
        at_s = self._clock_axis.epoch_s + x_s
        closest = min(self._events, key=lambda event: abs(event.time_s - at_s), default=None)
        return closest if closest and abs(closest.time_s - at_s) <= reach_s else None

    def _redraw_soon(self, *_: object) -> None:
        if self.isVisible():
            self._redraw_timer.start(0)

    def _redraw_rested(self) -> None:
        if self.isVisible() and not self._redraw_timer.isActive():
            self._redraw_timer.start(max(0, round((self._rests_until - time.monotonic()) * 1000)))

    def redraw_now(self) -> None:
        """Draw at once (a picture is about to be taken)."""
        self._redraw_timer.stop()
        self._redraw()

    def _redraw(self) -> None:
        began = time.monotonic()
        self._draw()
        self._rests_until = began + DRAW_SHARE * (time.monotonic() - began)

    def _draw(self) -> None:
        if (newest := self._newest()) is None:
            return
        if self._following:
            end = self._paused_at if self._paused_at is not None else newest
            young = max(SHORTEST_FOLLOWED_S, end - float(self._history.times[0]))
            self.setXRange(end - min(self._span_s, young), end, padding=0)
            self._redraw_timer.stop()  # the range change asked for what is done right now
        start, end = self.visible_range
        if self._paused_at is not None:
            end = min(end, self._paused_at)
        columns = self._history.columns(start, end, max(50, int(self.getViewBox().width())))
        if not len(columns.x):
            return
        columns = without(columns, self._hidden, self._full_kv_bytes)
        self._line_height = last_known(columns.high["oom_line"])
        capacity = last_known(columns.high["capacity"])
        self._fit_height(columns.high, capacity)
        self._stack.set_columns(columns, capacity, self._top_bytes)
        epoch = self._clock_axis.epoch_s
        self._marks.set_marks([(e.time_s - epoch, e.tone) for e in self._events], self._top_bytes)
        self._show_hovered()
        self.getViewBox().prepareForPaint()  # else pyqtgraph finds the new transform while painting, and paints twice

    def _fit_height(self, high: dict[str, np.ndarray], capacity: float | None) -> None:
        drawn = (greatest(high[LAYERS[-1]]), greatest(high["predicted"]), self._ghost.height_bytes)
        engine = max(size or 0.0 for size in drawn)
        line = greatest(high["ceiling"])
        whole = max(capacity or 0.0, line or 0.0, engine)
        near = line is not None and engine >= line / 4
        wanted = whole if (near if self._whole_domain is None else self._whole_domain) else engine * 1.25
        if wanted <= 0:
            wanted = whole or float(1 << 30)
        # Stay put for small changes: a jumping axis makes a steady engine look restless.
        if not 0.7 * self._top_bytes <= wanted <= self._top_bytes:
            self._top_bytes = wanted if wanted == whole else wanted * 1.1
        self.setYRange(0, self._top_bytes, padding=0)
        self._ghost.place(self.visible_range)
        self._show_line_above()

    def _show_line_above(self) -> None:
        line = self.y_of_line()
        is_above = self._line_height is not None and self._line_height > self._top_bytes
        self._above.setVisible(is_above)
        if is_above and line is not None:
            words = "↑ " + self.tr("OOM line {0}").format(format_bytes(line))
            if words != self._above.toPlainText():
                self._above.setText(words)
            self._above.setPos(self.visible_range[1], self._top_bytes)
