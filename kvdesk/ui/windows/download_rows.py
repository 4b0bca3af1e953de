"""The downloads as rows: bytes, speed, time left; pause, go on, throw away, open. UI thread."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QVBoxLayout, QWidget

from kvdesk.backend.library.hub.download_state import (
    CHECKING,
    DONE,
    FAILED,
    LOADING,
    PAUSED,
    QUEUED,
    UNDER_WAY,
    WAITING,
    DownloadState,
)
from kvdesk.ui.widgets.numbers import format_file_size, format_ms
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.theme import set_role

BAR_STEPS = 1000


class DownloadRow(QWidget):
    """The row of one download: name, progress, buttons."""

    def __init__(self, state: DownloadState, owner: DownloadRows) -> None:
        super().__init__(owner)
        self.state = state
        self.name = PlainLabel(state.name)
        self.bar = QProgressBar()
        self.bar.setRange(0, BAR_STEPS)
        self.bar.setTextVisible(False)
        self.bar.setMaximumWidth(260)
        self.bar.setAccessibleName(self.tr("Progress of {0}").format(state.name))
        self.words = PlainLabel()
        self.words.setWordWrap(True)
        self.action = QPushButton()
        self.action.setAutoDefault(False)
        self.action.clicked.connect(lambda: owner.act(self.state))
        self.discard = QPushButton(self.tr("Discard"))
        self.discard.setAutoDefault(False)
        self.discard.setToolTip(self.tr("Stop it and throw away what is here of it"))
        self.discard.clicked.connect(lambda: owner.discard(self.state.key))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for widget in (self.name, self.bar, self.words):
            row.addWidget(widget, 1 if widget is self.words else 0)
        row.addWidget(self.discard)
        row.addWidget(self.action)
        self.show_state(state)

    def show_state(self, state: DownloadState) -> None:
        """Show how far the download is."""
        self.state = state
        self.bar.setValue(BAR_STEPS * state.done_bytes // max(1, state.size_bytes))
        self.bar.setVisible(state.stage != DONE)
        self.words.setText(self._words(state))
        set_role(self.words, "red" if state.stage == FAILED else "muted")
        self.action.setText(
            self.tr("Open")
            if state.stage == DONE
            else self.tr("Pause")
            if state.stage in UNDER_WAY
            else self.tr("Try again")
            if state.stage == FAILED
            else self.tr("Resume")
        )
        self.discard.setText(self.tr("Hide") if state.stage == DONE else self.tr("Discard"))

    def _words(self, state: DownloadState) -> str:
        amount = f"{format_file_size(state.done_bytes)} / {format_file_size(state.size_bytes)}"
        if state.stage == LOADING:
            speed = f"{format_file_size(state.bytes_per_second)}/s" if state.bytes_per_second else ""
            left = self.tr("{0} left").format(format_ms(state.seconds_left * 1000)) if state.seconds_left else ""
            return "  ·  ".join(part for part in (amount, speed, left) if part)
        return {
            QUEUED: self.tr("waits for its turn"),
            WAITING: self.tr("another kvdesk downloads it"),
            CHECKING: self.tr("checking that it is whole"),
            PAUSED: self.tr("paused at {0}").format(amount),
            DONE: self.tr("done, {0}").format(format_file_size(state.size_bytes)),
            FAILED: state.error,
        }[state.stage]


class DownloadRows(QWidget):
    """A row for each download; nothing at all while there is none."""

    pause_requested = Signal(str)
    resume_requested = Signal(str)
    discard_requested = Signal(str)
    open_requested = Signal(str)
    """The path of a model that is here."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.rows: dict[str, DownloadRow] = {}
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self.hide()

    def show_state(self, state: DownloadState) -> None:
        """A download's new state; one that is not known yet gets a row."""
        row = self.rows.get(state.key)
        if row is None:
            row = self.rows[state.key] = DownloadRow(state, self)
            self._column.addWidget(row)
            self.show()
        row.show_state(state)

    def act(self, state: DownloadState) -> None:
        """The row's button was clicked."""
        if state.stage == DONE:
            self.open_requested.emit(state.path)
        elif state.stage in UNDER_WAY:
            self.pause_requested.emit(state.key)
        else:
            self.resume_requested.emit(state.key)

    def discard(self, key: str) -> None:
        """Take the row away, and tell the owner."""
        row = self.rows.pop(key)
        self._column.removeWidget(row)
        row.deleteLater()
        self.setVisible(bool(self.rows))
        self.discard_requested.emit(key)
