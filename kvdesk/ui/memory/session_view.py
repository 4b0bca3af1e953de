"""One recorded session on screen: its plots, its events, and how one leads to the other. UI thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QSplitter,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from kvdesk.ui.memory.session_plots import SessionPlots
from kvdesk.ui.widgets.numbers import format_clock
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.scroll_column import ScrollColumn
from kvdesk.ui.widgets.theme import Theme, set_role

if TYPE_CHECKING:
    from kvdesk.backend.session_log.reader import Session
    from kvdesk.ui.memory.legend import Legend
    from kvdesk.ui.memory.plots.domain_plot import DomainPlot

EVENT_SPAN_S = 60.0
"""How much is shown around an event that was chosen in the list."""


class SessionView(QWidget):
    """Wheel zooms, dragging pans, all domains together; choosing an event goes there."""

    range_changed = Signal(float, float)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._plots = SessionPlots(theme)
        self._plots.range_changed.connect(self.range_changed)
        self._all = QToolButton()
        self._all.setText(self.tr("Whole session"))
        self._all.setToolTip(self.tr("Home. In a chart that was clicked the wheel zooms, dragging pans."))
        self._all.clicked.connect(self.show_all)
        self._note = PlainLabel()
        set_role(self._note, "amber")
        self._note.setWordWrap(True)
        self._note.hide()
        controls = QHBoxLayout()
        controls.addWidget(self._all)
        controls.addStretch(1)
        controls.addWidget(self._note, 100)
        self._events = QListWidget()
        self._events.setAccessibleName(self.tr("Events of the session"))
        self._events.setWordWrap(True)
        self._events.setMinimumHeight(72)
        self._events.itemActivated.connect(self._on_event_chosen)
        self._events.itemClicked.connect(self._on_event_chosen)
        parts = QSplitter(Qt.Orientation.Vertical)
        parts.addWidget(ScrollColumn(self._plots, self.tr("Charts")))
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
        self._note.setText(self.tr("The log is damaged: this is what could be read of it.") if session.damaged else "")
        self._note.setVisible(session.damaged)
        self._plots.show_session(session)
        for event in session.events:
            item = QListWidgetItem(f"{format_clock(event.time_s)}  {event.kind}  {event.text}")
            item.setData(Qt.ItemDataRole.UserRole, event.monotonic_s)
            self._events.addItem(item)

    def clear(self) -> None:
        """Show no session."""
        self._plots.clear()
        self._events.clear()
        self._note.hide()

    def show_all(self) -> None:
        """Show the session from beginning to end."""
        self._plots.show_all()

    def show_range(self, start_s: float, end_s: float) -> None:
        """Just this stretch of the session's monotonic clock."""
        self._plots.show_range(start_s, end_s)

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._plots.set_theme(theme)

    @property
    def plots(self) -> dict[str, DomainPlot]:
        """The plots by domain name."""
        return self._plots.plots

    @property
    def legends(self) -> dict[str, Legend]:
        """The legends by domain name."""
        return self._plots.legends

    @property
    def event_texts(self) -> list[str]:
        """The text of all listed events."""
        return [self._events.item(row).text() for row in range(self._events.count())]

    # --- inside ------------------------------------------------------------------------------------------------------

    def _on_event_chosen(self, item: QListWidgetItem) -> None:
        at = float(item.data(Qt.ItemDataRole.UserRole))
        self.show_range(at - EVENT_SPAN_S / 2, at + EVENT_SPAN_S / 2)
        self._plots.point_at(at)
