"""A recorded session as a picture, PNG or SVG: title, a chart of every domain, legend, events.

Drawn with QPainter alone, so any thread may, as long as a QGuiApplication exists (the command line makes one). No
widgets, no pyqtgraph.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PySide6.QtCore import QBuffer, QByteArray, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QImage, QImageWriter, QPainter, QPen, QPolygonF
from PySide6.QtSvg import QSvgGenerator

from kvdesk.backend.atomic_file import write_file
from kvdesk.errors import StoreError
from kvdesk.ui.memory.composition import LAYERS
from kvdesk.ui.memory.legend import LINES, PARTS, part_color, part_words
from kvdesk.ui.memory.plots import ticks
from kvdesk.ui.memory.plots.chart_event import ChartEvent
from kvdesk.ui.memory.plots.chart_history import ChartHistory, Columns
from kvdesk.ui.memory.plots.series import SERIES, known_runs
from kvdesk.ui.memory.plots.session_series import marks_of, rows_of
from kvdesk.ui.widgets.numbers import format_bytes, format_clock, format_ms
from kvdesk.ui.widgets.theme import LIGHT, Theme, mix

if TYPE_CHECKING:
    from kvdesk.backend.session_log.columns import DomainColumns
    from kvdesk.backend.session_log.reader import Session

WIDTH_PX = 1200
PLOT_PX = 300
AXIS_PX = 64
MARGIN_PX = 24
LINE_PX = 22
GAP_PX = 8
MAX_EVENTS = 12
FORMATS = ("png", "svg")


def save_picture(session: Session, path: Path, theme: Theme = LIGHT) -> None:
    """Draw the whole session to ``path``; its suffix says which of FORMATS. Raises StoreError when the disk refuses."""
    picture = as_svg(session, theme) if path.suffix.lower() == ".svg" else as_png(session, theme)
    try:
        write_file(path, picture)
    except OSError as error:
        raise StoreError(f"The picture cannot be written to {path}: {error.strerror or error}.") from error


def as_svg(session: Session, theme: Theme = LIGHT) -> bytes:
    """The picture as vectors."""
    size = QSize(WIDTH_PX, _height(session))
    target = QBuffer()
    device = QSvgGenerator()
    device.setOutputDevice(target)
    device.setSize(size)
    device.setViewBox(QRectF(0, 0, size.width(), size.height()))
    device.setResolution(96)
    device.setTitle(_title(session))
    with QPainter(device) as painter:
        _paint(painter, session, theme)
    return bytes(target.data().data())


def as_png(session: Session, theme: Theme = LIGHT) -> bytes:
    """The picture as pixels, two for every unit of length."""
    image = QImage(QSize(WIDTH_PX, _height(session)) * 2, QImage.Format.Format_RGB32)
    image.setDevicePixelRatio(2.0)
    with QPainter(image) as painter:
        _paint(painter, session, theme)
    target = QBuffer()
    QImageWriter(target, QByteArray(b"png")).write(image)
    return bytes(target.data().data())


def _height(session: Session) -> int:
    panel = LINE_PX + GAP_PX + PLOT_PX + LINE_PX + LINE_PX
    events = min(len(marks_of(session.events)), MAX_EVENTS)
    return 2 * MARGIN_PX + 3 * LINE_PX + len(session.columns.domains) * (panel + GAP_PX) + (events + 1) * LINE_PX


def _title(session: Session) -> str:
    summary = session.summary
    return f"kvdesk {summary.version}: {summary.model or 'no model'}"


def _paint(painter: QPainter, session: Session, theme: Theme) -> None:
    columns, summary = session.columns, session.summary
    painter.fillRect(QRectF(0, 0, WIDTH_PX, _height(session)), QColor(theme.surface))
    font = QFont(painter.font())
    font.setPixelSize(13)
    bold = QFont(font)
    bold.setBold(True)
    y = float(MARGIN_PX)

    def write(text: str, color: str, used: QFont = font) -> None:
        nonlocal y
        painter.setFont(used)
        painter.setPen(QColor(color))
        box = QRectF(MARGIN_PX, y, WIDTH_PX - 2 * MARGIN_PX, LINE_PX)
        painter.drawText(box, Qt.AlignmentFlag.AlignVCenter, text)
        y += LINE_PX

    write(_title(session), theme.text, bold)
    lasted = format_ms(None if summary.duration_s is None else summary.duration_s * 1000)
    write(f"lasted {lasted}, peak {format_bytes(summary.peak_bytes)}, ended: {summary.how_ended}", theme.text_muted)
    y += LINE_PX / 2
    events = marks_of(session.events)
    for domain in columns.domains:
        write(domain.name, theme.text, bold)
        painter.setFont(font)
        y += GAP_PX
        area = QRectF(MARGIN_PX + AXIS_PX, y, WIDTH_PX - 2 * MARGIN_PX - AXIS_PX, PLOT_PX)
        _Panel(session, domain, area, theme).paint(painter, events)
        y += PLOT_PX + LINE_PX
        _paint_legend(painter, y, theme)
        y += LINE_PX + GAP_PX
    for event in events[:MAX_EVENTS]:
        write(f"{format_clock(event.time_s)}  {event.kind}: {event.label}", theme.text_muted)
    if len(events) > MAX_EVENTS:
        write(f"and {len(events) - MAX_EVENTS} more", theme.text_muted)


class _Panel:
    """One domain's chart in ``area``."""

    def __init__(self, session: Session, domain: DomainColumns, area: QRectF, theme: Theme) -> None:
        times = session.columns.monotonic_s
        history = ChartHistory(SERIES, max(2, len(times)))
        history.extend(times, rows_of(session.columns, domain, session.events))
        self._area, self._theme = area, theme
        self._start = float(times[0]) if len(times) else 0.0
        self._end = max(float(times[-1]) if len(times) else 0.0, self._start + 1.0)
        self._epoch_s = float(session.columns.time_s[0] - times[0]) if len(times) else 0.0
        self._columns: Columns = history.columns(self._start, self._end, round(area.width()))
        heights = [
            np.nanmax(self._columns.high[name], initial=0.0)
            for name in (LAYERS[-1], "predicted", "ceiling", "capacity")
        ]
        self._top = max(*(float(height) for height in heights), 1.0)

    def paint(self, painter: QPainter, events: list[ChartEvent]) -> None:
        """Areas, lines, marks, axes."""
        chart, area = self._theme.chart, self._area
        painter.save()
        painter.setClipRect(area)
        painter.setPen(Qt.PenStyle.NoPen)
        high = self._columns.high
        capacity = high["capacity"]
        painter.setBrush(QColor(mix(chart.others, self._theme.surface, 0.6)))
        self._area_between(painter, capacity - high["others"], capacity)
        below = np.zeros(len(capacity), np.float32)
        for name in LAYERS:
            painter.setBrush(QColor(part_color(name, self._theme)))
            self._area_between(painter, below, high[name])
            below = high[name]
        painter.setBrush(Qt.BrushStyle.NoBrush)
        for series, color, style in (
            ("ceiling", chart.others, Qt.PenStyle.SolidLine),
            ("oom_line", chart.oom_line, Qt.PenStyle.SolidLine),
            ("predicted", chart.predicted, Qt.PenStyle.DotLine),
        ):
            painter.setPen(QPen(QColor(color), 1.25, style))
            for run in known_runs(high[series]):
                low_and_high = np.column_stack([self._columns.low[series][run], high[series][run]]).ravel()
                painter.drawPolyline(self._polygon(np.repeat(self._columns.x[run], 2), low_and_high))
        tones = {"": chart.event, "amber": self._theme.amber, "red": self._theme.red}
        for event in events:
            x = self._x(np.array([event.time_s - self._epoch_s]))[0]
            painter.setPen(QPen(QColor(tones[event.tone]), 1, Qt.PenStyle.DashLine))
            painter.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom()))
        painter.restore()
        self._paint_axes(painter)

    def _paint_axes(self, painter: QPainter) -> None:
        area, chart = self._area, self._theme.chart
        painter.setPen(QColor(chart.axis))
        painter.drawLine(area.topLeft(), area.bottomLeft())
        painter.drawLine(area.bottomLeft(), area.bottomRight())
        step = ticks.bytes_step(self._top / 6)
        for value in ticks.ticks_between(0, self._top, step):
            y = self._y(np.array([value]))[0]
            box = QRectF(area.left() - AXIS_PX, y - LINE_PX / 2, AXIS_PX - 8, LINE_PX)
            painter.drawText(box, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, ticks.bytes_text(value))
        step = ticks.clock_step((self._end - self._start) / 10)
        for value in ticks.ticks_between(self._start, self._end, step, ticks.local_origin(self._epoch_s)):
            x = self._x(np.array([value]))[0]
            box = QRectF(x - 40, area.bottom(), 80, LINE_PX)
            painter.drawText(box, Qt.AlignmentFlag.AlignCenter, ticks.clock_text(value + self._epoch_s, step))

    def _area_between(self, painter: QPainter, low: np.ndarray, high: np.ndarray) -> None:
        for run in known_runs(high - low):
            x = self._columns.x[run]
            outline = np.concatenate([high[run], low[run][::-1]])
            painter.drawPolygon(self._polygon(np.concatenate([x, x[::-1]]), outline))

    def _polygon(self, x: np.ndarray, y: np.ndarray) -> QPolygonF:
        return QPolygonF([QPointF(*point) for point in zip(self._x(x).tolist(), self._y(y).tolist(), strict=True)])

    def _x(self, times: np.ndarray) -> np.ndarray:
        return self._area.left() + (times - self._start) / (self._end - self._start) * self._area.width()

    def _y(self, sizes: np.ndarray) -> np.ndarray:
        return self._area.bottom() - sizes / self._top * self._area.height()


def _paint_legend(painter: QPainter, y: float, theme: Theme) -> None:
    """The areas and lines in a row."""
    x = float(MARGIN_PX)
    for name in (*reversed(PARTS), *LINES):
        if name == "total":
            continue
        words = part_words(name)[0]
        height = 3 if name in ("oom_line", "predicted") else 10
        painter.fillRect(QRectF(x, y + (LINE_PX - height) / 2, 10, height), QColor(part_color(name, theme)))
        painter.setPen(QColor(theme.text_muted))
        painter.drawText(QRectF(x + 14, y, 200, LINE_PX), Qt.AlignmentFlag.AlignVCenter, words)
        x += 14 + painter.fontMetrics().horizontalAdvance(words) + 14
