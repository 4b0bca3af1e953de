"""Every memory domain of one recorded session on one time axis: heading, plot, legend. UI thread.

Imports pyqtgraph when a session is shown, not before. What stands around it is session_view.py's and session_sheet.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from kvdesk.ui.memory.legend import Legend
from kvdesk.ui.widgets.numbers import format_clock
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.theme import Theme, set_role

if TYPE_CHECKING:
    from kvdesk.backend.session_log.reader import Session
    from kvdesk.ui.memory.plots.domain_plot import DomainPlot, Moment

PLOT_HEIGHT_PX = 210


class SessionPlots(QWidget):
    """Wheel zooms, dragging pans, all domains together."""

    range_changed = Signal(float, float)
    """The stretch of the session's monotonic clock in sight, when the user changed it."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._plots: dict[str, DomainPlot] = {}
        self._legends: dict[str, Legend] = {}
        self._headings: dict[str, PlainLabel] = {}
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 8, 0)
        self._column.addStretch(1)

    def show_session(self, session: Session) -> None:
        """Draw all of it. ``session.columns`` is best made beforehand, off the UI thread."""
        self.clear()
        from kvdesk.ui.memory.plots.domain_plot import DomainPlot
        from kvdesk.ui.memory.plots.session_series import marks_of, rows_of

        columns = session.columns
        count = len(columns.time_s)
        epoch_s = float(columns.time_s[0] - columns.monotonic_s[0]) if count else 0.0
        for domain in columns.domains:
            plot = DomainPlot(self._theme, capacity_rows=max(2, count))
            plot.setMinimumHeight(PLOT_HEIGHT_PX)
            plot.setAccessibleName(self.tr("{0} over the session").format(domain.name))
            plot.show_rows(epoch_s, columns.monotonic_s, rows_of(columns, domain, session.events))
            plot.show_events(marks_of(session.events))
            plot.show_all()
            legend = Legend(self._theme)
            heading = PlainLabel(domain.name)
            set_role(heading, "heading")
            plot.moment_hovered.connect(lambda moment, name=domain.name: self._on_moment_hovered(name, moment))
            plot.time_pointed.connect(lambda x_s, name=domain.name: self._on_time_pointed(name, x_s))
            plot.range_changed.connect(lambda start, end, name=domain.name: self._on_range_changed(name, start, end))
            for widget in (heading, plot, legend):
                self._column.insertWidget(self._column.count() - 1, widget)
            self._plots[domain.name], self._legends[domain.name], self._headings[domain.name] = plot, legend, heading
            self._on_moment_hovered(domain.name, None)

    def clear(self) -> None:
        """Show no session."""
        for widgets in (self._plots, self._legends, self._headings):
            for widget in widgets.values():
                self._column.removeWidget(widget)
                widget.hide()
                widget.deleteLater()
            widgets.clear()

    def show_all(self) -> None:
        """Show the session from beginning to end."""
        for plot in self._plots.values():
            plot.show_all()

    def show_range(self, start_s: float, end_s: float) -> None:
        """Just this stretch of the session's monotonic clock."""
        for plot in self._plots.values():
            plot.show_range(start_s, end_s)

    def point_at(self, x_s: float) -> None:
        """Read the values at this time in every plot."""
        for plot in self._plots.values():
            plot.point_at(x_s)

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
