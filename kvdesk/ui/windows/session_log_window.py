"""The session log's window: the list of sessions, one of them drawn, export. UI thread; reading files is not its job.

The owner reads sessions (off the UI thread) and hands them in; the window says what is wanted.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QSplitter,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from kvdesk.ui.memory.session_view import SessionView
from kvdesk.ui.widgets.numbers import format_bytes, format_file_size, format_ms, format_tokens, unknown
from kvdesk.ui.widgets.plain_text import PlainLabel, plain_tip
from kvdesk.ui.widgets.theme import Theme, set_role
from kvdesk.ui.widgets.tree_items import top_level_items

if TYPE_CHECKING:
    from kvdesk.backend.session_log.reader import Session, SessionSummary

EXPORTS = ("csv", "jsonl", "png", "svg")


class SessionLogWindow(QDialog):
    """Not modal: the chat goes on beside it."""

    session_chosen = Signal(Path)
    """The Path of the session to open; answer with ``show_session`` or ``show_problem``."""
    export_requested = Signal(Path, str)
    """Path of the session, one of EXPORTS."""
    copy_report_requested = Signal(Path)
    """Path of the session whose Markdown report is wanted on the clipboard."""
    delete_requested = Signal(Path)
    refresh_requested = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._path: Path | None = None
        self._shown_path: Path | None = None
        self.setWindowTitle(self.tr("Session memory log"))
        self.resize(1200, 760)
        self._list = QTreeWidget()
        self._list.setAccessibleName(self.tr("Sessions"))
        self._list.setRootIsDecorated(False)
        self._list.setUniformRowHeights(True)
        titles = (self.tr("Started"), self.tr("Lasted"), self.tr("Peak"), self.tr("Ended"), self.tr("Model"))
        self._list.setHeaderLabels(titles)
        self._list.currentItemChanged.connect(self._on_current_changed)
        self._view = SessionView(theme)
        self._title = PlainLabel()
        set_role(self._title, "heading")
        self._facts = PlainLabel()
        self._facts.setWordWrap(True)
        set_role(self._facts, "muted")
        names = {
            "csv": self.tr("CSV…"),
            "jsonl": self.tr("JSON Lines…"),
            "png": self.tr("PNG…"),
            "svg": self.tr("SVG…"),
        }
        tips = {
            "csv": self.tr("Every sample and event as a table for spreadsheets and pandas"),
            "jsonl": self.tr("Everything, one JSON object per line"),
            "png": self.tr("The picture as pixels"),
            "svg": self.tr("The picture as vectors"),
        }
        self._exports = {kind: self._button(names[kind], tips[kind]) for kind in EXPORTS}
        for kind, button in self._exports.items():
            button.clicked.connect(lambda _=False, kind=kind: self.export_requested.emit(self._path, kind))
        self._report = self._button(self.tr("Copy report"), self.tr("A Markdown report for a bug tracker"))
        self._report.clicked.connect(lambda: self.copy_report_requested.emit(self._path))
        self._delete = self._button(self.tr("Delete"), self.tr("Remove this session's log from the disk"))
        set_role(self._delete, "danger")
        self._delete.clicked.connect(lambda: self.delete_requested.emit(self._path))
        self._refresh = self._button(self.tr("Refresh"), self.tr("Look for new sessions (F5)"))
        self._refresh.setShortcut("F5")
        self._refresh.clicked.connect(self.refresh_requested)
        self._build()
        self._enable()

    # --- what it is told -------------------------------------------------------------------------------------------

    def show_sessions(self, sessions: Sequence[SessionSummary]) -> None:
        """The list, newest first; what was chosen stays chosen."""
        chosen = self._path
        self._list.blockSignals(True)
        self._list.clear()
        for session in sessions:
            item = QTreeWidgetItem(
                [
                    _moment(session.started_s),
                    format_ms(None if session.duration_s is None else session.duration_s * 1000),
                    format_bytes(session.peak_bytes),
                    _how_ended(session),
                    session.model or "–",
                ]
            )
            for column in (1, 2):
                item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            tip = self._summary_words(session)
            for column in range(self._list.columnCount()):
                item.setToolTip(column, plain_tip(tip))
            item.setData(0, Qt.ItemDataRole.UserRole, session)
            self._list.addTopLevelItem(item)
            if session.path == chosen:
                self._list.setCurrentItem(item)
        self._list.blockSignals(False)
        items = top_level_items(self._list)
        if self._list.currentItem() is None and items:
            self._list.setCurrentItem(items[0])
        if not sessions:
            self._path = None
            self._view.clear()
            self._title.setText(self.tr("No session has been recorded yet."))
            self._facts.setText("")
        self._enable()

    def choose(self, path: Path) -> None:
        """Choose the session in this file, as if it had been clicked."""
        for item in top_level_items(self._list):
            if item.data(0, Qt.ItemDataRole.UserRole).path == path:
                self._list.setCurrentItem(item)

    def show_session(self, session: Session) -> None:
        """Draw it, if it is still the one that is wanted."""
        if session.path != self._path:
            return
        self._shown_path = session.path
        summary = session.summary
        self._title.setText(f"{_moment(summary.started_s)}  ·  {summary.model or self.tr('no model')}")
        self._facts.setText(self._summary_words(summary))
        self._view.show_session(session)
        self._enable()

    def show_problem(self, path: Path, sentence: str) -> None:
        """Why that session cannot be shown."""
        if path == self._path:
            self._view.clear()
            self._title.setText(path.name)
            self._facts.setText(sentence)
            self._shown_path = None
            self._enable()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        self._view.set_theme(theme)

    @property
    def view(self) -> SessionView:
        """The view of the chosen session."""
        return self._view

    @property
    def facts(self) -> str:
        """The line under the title."""
        return self._facts.text()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        left = QWidget()
        column = QVBoxLayout(left)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._list, 1)
        under = QHBoxLayout()
        under.addWidget(self._refresh)
        under.addStretch(1)
        under.addWidget(self._delete)
        column.addLayout(under)
        right = QWidget()
        column = QVBoxLayout(right)
        column.setContentsMargins(8, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(self._title)
        column.addWidget(self._facts)
        column.addWidget(self._view, 1)
        buttons = QHBoxLayout()
        buttons.setSpacing(8)
        label = PlainLabel(self.tr("Export"))
        set_role(label, "muted")
        buttons.addWidget(label)
        for button in self._exports.values():
            buttons.addWidget(button)
        buttons.addStretch(1)
        buttons.addWidget(self._report)
        column.addLayout(buttons)
        parts = QSplitter(Qt.Orientation.Horizontal)
        parts.addWidget(left)
        parts.addWidget(right)
        parts.setStretchFactor(1, 1)
        parts.setSizes([470, 720])
        parts.setChildrenCollapsible(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 12, 12, 12)
        layout.addWidget(parts)
        header = self._list.header()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)

    def _button(self, text: str, tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        button.setAutoDefault(False)
        return button

    def _on_current_changed(self, item: QTreeWidgetItem | None) -> None:
        session = item.data(0, Qt.ItemDataRole.UserRole) if item else None
        self._path = session.path if session else None
        self._delete.setEnabled(session is not None and session.how_ended != "running")
        self._enable()
        if session is not None:
            self._title.setText(self.tr("Opening…"))
            self._facts.setText("")
            self._view.clear()
            self.session_chosen.emit(session.path)

    def _enable(self) -> None:
        for button in (*self._exports.values(), self._report):
            button.setEnabled(self._path is not None and self._path == self._shown_path)
        if self._path is None:
            self._delete.setEnabled(False)

    def _summary_words(self, session: SessionSummary) -> str:
        facts = [
            session.app,
            self.tr("lasted {0}").format(format_ms(None if session.duration_s is None else session.duration_s * 1000)),
            self.tr("peak {0}").format(format_bytes(session.peak_bytes)),
            self.tr("{0} samples").format(format_tokens(session.n_samples)),
            self.tr("ended: {0}").format(session.how_ended),
            self.tr("{0} on disk").format(format_file_size(session.size_bytes)),
        ]
        if session.damaged:
            facts.append(self.tr("damaged"))
        return "  ·  ".join(fact for fact in facts if fact)


def _moment(time_s: float | None) -> str:
    if time_s is None:
        return unknown()
    return dt.datetime.fromtimestamp(time_s, dt.UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def _how_ended(session: SessionSummary) -> str:
    """One word for the list; a reason that is a sentence goes to the tool tip."""
    return session.how_ended if session.how_ended in ("running", "killed") else "✓" if session.ended_s else "?"
