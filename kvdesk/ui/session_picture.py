"""A recorded session as a picture, PNG or SVG: what the session window draws, with title, legend and events.

Needs a QApplication (the command line makes an offscreen one). UI thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QBuffer, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QImage, QPainter
from PySide6.QtSvg import QSvgGenerator

from kvdesk.errors import StoreError
from kvdesk.ui.memory.domain_plot import DomainPlot
from kvdesk.ui.memory.legend import LINES, PARTS, part_color, part_words
from kvdesk.ui.memory.session_series import marks_of, rows_of
from kvdesk.ui.numbers import format_bytes, format_clock, format_ms
from kvdesk.ui.theme import LIGHT, Theme

if TYPE_CHECKING:
    from kvdesk.backend.session_log import Session

WIDTH_PX = 1200
PLOT_PX = 300
MARGIN_PX = 24
LINE_PX = 22
MAX_EVENTS = 12
FORMATS = ("png", "svg")


def save_picture(session: Session, path: Path, theme: Theme = LIGHT) -> None:
    """Draw the whole session to ``path``; its suffix says which of FORMATS. Raises StoreError when the disk refuses."""
    picture = as_svg(session, theme) if path.suffix.lower() == ".svg" else as_png(session, theme)
    try:
        path.write_bytes(picture)
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
    image.save(target, "PNG")
    return bytes(target.data().data())


def _height(session: Session) -> int:
    panel = LINE_PX + PLOT_PX + LINE_PX
    events = min(len(marks_of(session.events)), MAX_EVENTS)
    return 2 * MARGIN_PX + 3 * LINE_PX + len(session.columns.domains) * (panel + 8) + (events + 1) * LINE_PX


def _title(session: Session) -> str:
    summary = session.summary
    model = summary.model or "no model"
    return f"kvdesk {summary.version}: {model}"


def _paint(painter: QPainter, session: Session, theme: Theme) -> None:
    columns, summary = session.columns, session.summary
    width = WIDTH_PX - 2 * MARGIN_PX
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
        painter.drawText(QRectF(MARGIN_PX, y, width, LINE_PX), Qt.AlignmentFlag.AlignVCenter, text)
        y += LINE_PX

    write(_title(session), theme.text, bold)
    lasted = format_ms(None if summary.duration_s is None else summary.duration_s * 1000)
    write(f"lasted {lasted}, peak {format_bytes(summary.peak_bytes)}, ended: {summary.how_ended}", theme.text_muted)
    y += LINE_PX / 2
    epoch_s = float(columns.time_s[0] - columns.monotonic_s[0]) if len(columns.time_s) else 0.0
    events = marks_of(session.events)
    for domain in columns.domains:
        write(domain.name, theme.text, bold)
        plot = DomainPlot(theme, capacity_rows=max(2, len(columns.time_s)))
        plot.setAttribute(Qt.WidgetAttribute.WA_DontShowOnScreen)
        plot.resize(width, PLOT_PX)
        plot.show_rows(epoch_s, columns.monotonic_s, rows_of(columns, domain, session.events))
        plot.show_events(events)
        plot.show()  # nowhere, but laid out
        plot.show_all()
        plot.redraw_now()
        plot.render(painter, QRectF(MARGIN_PX, y, width, PLOT_PX), plot.viewport().rect())
        plot.close()
        plot.deleteLater()
        y += PLOT_PX
        y += _paint_legend(painter, y, theme, font) + 8
    for event in events[:MAX_EVENTS]:
        write(f"{format_clock(event.time_s)}  {event.kind}: {event.label}", theme.text_muted)
    if len(events) > MAX_EVENTS:
        write(f"and {len(events) - MAX_EVENTS} more", theme.text_muted)


def _paint_legend(painter: QPainter, y: float, theme: Theme, font: QFont) -> float:
    """The areas and lines in a row; returns its height."""
    x = float(MARGIN_PX)
    painter.setFont(font)
    for name in (*reversed(PARTS), *LINES):
        if name == "total":
            continue
        words = part_words(name)[0]
        painter.fillRect(
            QRectF(x, y + 8, 10, 3 if name in ("oom_line", "predicted") else 10), QColor(part_color(name, theme))
        )
        painter.setPen(QColor(theme.text_muted))
        painter.drawText(QRectF(x + 14, y, 200, LINE_PX), Qt.AlignmentFlag.AlignVCenter, words)
        x += 14 + painter.fontMetrics().horizontalAdvance(words) + 14
    return float(LINE_PX)
