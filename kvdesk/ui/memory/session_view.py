"""One recorded session drawn: a plot for every domain on one time axis, numbers under the mouse, its events. UI thread.

Imports pyqtgraph when a session is shown, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QSplitter,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from kvdesk.ui.memory.legend import Legend
from kvdesk.ui.widgets.numbers import format_clock
from kvdesk.ui.widgets.scroll_column import ScrollColumn
from kvdesk.ui.widgets.theme import Theme, set_role

if TYPE_CHECKING:
    from kvdesk.backend.session_log.reader import Session
    from kvdesk.ui.memory.plots.domain_plot import DomainPlot, Moment

PLOT_HEIGHT_PX = 210
EVENT_SPAN_S = 60.0
"""How much is shown around an event that was chosen in the list."""


class SessionView(QWidget):
    """Wheel zooms, dragging pans, all domains together; choosing an event goes there."""

    range_changed = Signal(float, float)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._session: Session | None = None
        self._plots: dict[str, DomainPlot] = {}
        self._legends: dict[str, Legend] = {}
        self._headings: dict[str, QLabel] = {}
        self._all = QToolButton()
        self._all.setText(self.tr("Whole session"))
        self._all.setToolTip(self.tr("Home. In a chart that was clicked the wheel zooms, dragging pans."))
        self._all.clicked.connect(self.show_all)
        self._note = QLabel()
        set_role(self._note, "amber")
        self._note.setWordWrap(True)
        self._note.hide()
        controls = QHBoxLayout()
        controls.addWidget(self._all)
        controls.addStretch(1)
        controls.addWidget(self._note, 100)
        self._page = QWidget()
        self._column = QVBoxLayout(self._page)
        self._column.setContentsMargins(0, 0, 8, 0)
        self._column.addStretch(1)
        self._events = QListWidget()
        self._events.setAccessibleName(self.tr("Events of the session"))
        self._events.setWordWrap(True)
        self._events.setMinimumHeight(72)
        self._events.itemActivated.connect(self._on_event_chosen)
        self._events.itemClicked.connect(self._on_event_chosen)
        parts = QSplitter(Qt.Orientation.Vertical)
        parts.addWidget(ScrollColumn(self._page, self.tr("Charts")))
        parts.addWidget(self._events)
        parts.setStretchFactor(0, 1)
        parts.setSizes([600, 140])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(controls)
        layout.addWidget(parts, 1)

    def show_session(self, session: Session) -> None:
        """Draw all of it. ``session.columns`` is best made beforehand, off the UI thread."""
        self.clear()
        self._session = session
        from kvdesk.ui.memory.plots.domain_plot import DomainPlot
        from kvdesk.ui.memory.plots.session_series import marks_of, rows_of

        columns = session.columns
        count = len(columns.time_s)
        self._note.setText(self.tr("The log is damaged: this is what could be read of it.") if session.damaged else "")
        self._note.setVisible(session.damaged)
        epoch_s = float(columns.time_s[0] - columns.monotonic_s[0]) if count else 0.0
        for domain in columns.domains:
            plot = DomainPlot(self._theme, capacity_rows=max(2, count))
            plot.setMinimumHeight(PLOT_HEIGHT_PX)
            plot.setAccessibleName(self.tr("{0} over the session").format(domain.name))
            plot.show_rows(epoch_s, columns.monotonic_s, rows_of(columns, domain, session.events))
            plot.show_events(marks_of(session.events))
            plot.show_all()
            legend = Legend(self._theme)
            heading = QLabel(domain.name)
            set_role(heading, "heading")
            plot.moment_hovered.connect(lambda moment, name=domain.name: self._on_moment_hovered(name, moment))
            plot.time_pointed.connect(lambda x_s, name=domain.name: self._on_time_pointed(name, x_s))
            plot.range_changed.connect(lambda start, end, name=domain.name: self._on_range_changed(name, start, end))
            for widget in (heading, plot, legend):
                self._column.insertWidget(self._column.count() - 1, widget)
            self._plots[domain.name], self._legends[domain.name], self._headings[domain.name] = plot, legend, heading
            self._on_moment_hovered(domain.name, None)
        for event in session.events:
            item = QListWidgetItem(f"{format_clock(event.time_s)}  {event.kind}  {event.text}")
            item.setData(Qt.ItemDataRole.UserRole, event.monotonic_s)
            self._events.addItem(item)

    def clear(self) -> None:
        """Show nothing."""
        self._session = None
        for widgets in (self._plots, self._legends, self._headings):
            for widget in widgets.values():
                self._column.removeWidget(widget)
                widget.hide()
                widget.deleteLater()
            widgets.clear()
        self._events.clear()
        self._note.hide()

    def show_all(self) -> None:
        """From beginning to end."""
        for plot in self._plots.values():
            plot.show_all()

    def show_range(self, start_s: float, end_s: float) -> None:
        """Just this stretch of the session's monotonic clock."""
        for plot in self._plots.values():
            plot.show_range(start_s, end_s)

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        for widget in (*self._plots.values(), *self._legends.values()):
            widget.set_theme(theme)

    @property
    def plots(self) -> dict[str, DomainPlot]:
        """The plots by domain name."""
        return self._plots

    @property
    def legends(self) -> dict[str, Legend]:
        """The legends by domain name."""
        return self._legends

    @property
    def event_texts(self) -> list[str]:
        """The events as listed."""
        return [self._events.item(row).text() for row in range(self._events.count())]

    # --- inside ------------------------------------------------------------------------------------------------------

    def _on_moment_hovered(self, name: str, moment: Moment | None) -> None:
        legend = self._legends[name]
        if moment is None and len(self._plots[name].history):
            moment = self._plots[name].moment_at(float(self._plots[name].history.times[-1]))
        if moment is not None:
            legend.show_when(format_clock(moment.time_s))
            legend.show_values(moment.values)

    def _on_time_pointed(self, name: str, x_s: float | None) -> None:
        for other, plot in self._plots.items():
            if other != name:
                plot.point_at(x_s)

    def _on_range_changed(self, name: str, start: float, end: float) -> None:
        for other, plot in self._plots.items():
            if other != name:
                plot.show_range(start, end)
        self.range_changed.emit(start, end)

    def _on_event_chosen(self, item: QListWidgetItem) -> None:
        at = float(item.data(Qt.ItemDataRole.UserRole))
        self.show_range(at - EVENT_SPAN_S / 2, at + EVENT_SPAN_S / 2)
        for plot in self._plots.values():
            plot.point_at(at)
