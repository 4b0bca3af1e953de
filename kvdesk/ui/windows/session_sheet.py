"""A recorded session on one page, to be exported: the session window's own plots and legends, under a title. UI thread.

Nothing here draws: the page is a widget, rendered to pixels or vectors. Imports pyqtgraph.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QBuffer, QByteArray, QPoint, QRect
from PySide6.QtGui import QColor, QImage, QImageWriter, QPainter
from PySide6.QtSvg import QSvgGenerator
from PySide6.QtWidgets import QVBoxLayout, QWidget

from kvdesk.backend.atomic_file import write_file
from kvdesk.errors import StoreError
from kvdesk.ui.memory.plots.session_series import marks_of
from kvdesk.ui.memory.session_plots import SessionPlots
from kvdesk.ui.widgets.numbers import format_bytes, format_clock, format_ms
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.style_sheet import style_sheet
from kvdesk.ui.widgets.theme import LIGHT, Theme, palette, set_role

if TYPE_CHECKING:
    from kvdesk.backend.session_log.reader import Session

FORMATS = ("png", "svg")
WIDTH_PX = 1200
MARGIN_PX = 24
PLOT_PX = 300
MAX_EVENTS = 12
PIXEL_RATIO = 2
"""Pixels of a PNG for each unit of length."""


def picture(session: Session, kind: str, theme: Theme = LIGHT) -> bytes:
    """The whole session as one of FORMATS."""
    sheet = SessionSheet(session, theme)
    try:
        return sheet.as_svg() if kind == "svg" else sheet.as_png()
    finally:
        sheet.deleteLater()


def write_picture(content: bytes, path: Path) -> None:
    """Put a picture into a file. Any thread. Raises StoreError when the disk refuses."""
    try:
        write_file(path, content)
    except OSError as error:
        raise StoreError(f"The picture cannot be written to {path}: {error.strerror or error}.") from error


class SessionSheet(QWidget):
    """Title, facts, every domain, and the first events; laid out, but never shown."""

    def __init__(self, session: Session, theme: Theme) -> None:
        super().__init__()
        self.setPalette(palette(theme))
        self.setStyleSheet(style_sheet(theme))
        self._background = QColor(theme.surface)
        summary = session.summary
        self._title = f"kvdesk {summary.version}: {summary.model or self.tr('no model')}"
        lasted = format_ms(None if summary.duration_s is None else summary.duration_s * 1000)
        facts = self.tr("lasted {0}, peak {1}, ended: {2}")
        self._plots = SessionPlots(theme)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(MARGIN_PX, MARGIN_PX, MARGIN_PX, MARGIN_PX)
        layout.addWidget(_line(self._title, "heading"))
        layout.addWidget(_line(facts.format(lasted, format_bytes(summary.peak_bytes), summary.how_ended)))
        layout.addWidget(self._plots)
        events = marks_of(session.events)
        for event in events[:MAX_EVENTS]:
            layout.addWidget(_line(f"{format_clock(event.time_s)}  {event.kind}: {event.label}"))
        if len(events) > MAX_EVENTS:
            layout.addWidget(_line(self.tr("and {0} more").format(len(events) - MAX_EVENTS)))
        self._plots.show_session(session)
        for plot in self._plots.plots.values():
            plot.setFixedHeight(PLOT_PX)
        self.ensurePolished()
        self.resize(WIDTH_PX, layout.totalHeightForWidth(WIDTH_PX))
        self.render(QImage(1, 1, QImage.Format.Format_RGB32))  # lays out what was never shown
        for plot in self._plots.plots.values():
            plot.redraw_now()

    def as_png(self) -> bytes:
        """The page as pixels, PIXEL_RATIO for every unit of length."""
        image = QImage(self.size() * PIXEL_RATIO, QImage.Format.Format_RGB32)
        image.setDevicePixelRatio(PIXEL_RATIO)
        image.fill(self._background)
        self.render(image)
        target = QBuffer()
        QImageWriter(target, QByteArray(b"png")).write(image)
        return bytes(target.data().data())

    def as_svg(self) -> bytes:
        """The sheet as the text of an SVG file."""
        target = QBuffer()
        device = QSvgGenerator()
        device.setOutputDevice(target)
        device.setSize(self.size())
        device.setViewBox(QRect(QPoint(), self.size()))
        device.setResolution(self.logicalDpiX())
        device.setTitle(self._title)
        with QPainter(device) as painter:
            painter.fillRect(self.rect(), self._background)
            self.render(painter, QPoint())
        return bytes(target.data().data())


def _line(text: str, role: str = "muted") -> PlainLabel:
    label = PlainLabel(text)
    label.setWordWrap(True)
    set_role(label, role)
    return label
