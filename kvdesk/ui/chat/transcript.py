"""The conversation on screen: messages and notices, and replies that stream in. UI thread.

Where rows stand and which of them have widgets is message_column's business, how a message looks message_view's.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import replace

from PySide6.QtCore import QSize, QTimer, Signal
from PySide6.QtGui import QGuiApplication, QResizeEvent
from PySide6.QtWidgets import QPushButton, QVBoxLayout, QWidget

from kvdesk.backend.protocol.facts import StopReason, TurnStats
from kvdesk.ui.chat.empty_view import EmptyView
from kvdesk.ui.chat.message_column import MessageColumn, Notice, Row
from kvdesk.ui.chat.message_row import MessageRow, MessageState
from kvdesk.ui.chat.message_view import MessageView
from kvdesk.ui.chat.notice_view import NoticeView
from kvdesk.ui.widgets.icons import icon
from kvdesk.ui.widgets.theme import Theme

FLUSH_MS = 33
"""How often streamed text is drawn, at most."""
FLUSH_SHARE = 48
"""How many times as long as drawing took nothing is drawn: the model needs the processor more than the window does."""
LONGEST_REST_MS = 400
"""However slow drawing is, text does not stand still for longer."""
SPEED_S = 0.25
"""Tokens and speed of a reply that streams change at most this often: they are read, not watched."""
NOTICES_HEIGHT = 240
"""Room for notices while there are no messages."""
NO_LIMIT = 16_777_215
"""Qt's own largest height."""


class Transcript(QWidget):
    """Shows a conversation and streams replies into it.

    Calls about a message that is not shown are ignored: it may belong to another conversation.
    """

    models_requested = Signal()
    starter_chosen = Signal(str)
    link_activated = Signal(str)
    """The address of a link that was clicked: http, https or mailto. Nothing was opened."""
    regenerate_requested = Signal(str)
    """Message id of the reply to make another version of."""
    continue_requested = Signal(str)
    """Message id of the stopped reply to go on with."""
    message_edited = Signal(str, str)
    """Message id and new text of a user's message: to become a new branch."""
    version_requested = Signal(str, int)
    """Message id, and -1 or 1: show the version before or after it."""
    notice_action_triggered = Signal(int)
    """Id that ``add_notice`` returned."""
    flushed = Signal(float)
    """Streamed text was drawn; how many milliseconds of this thread it took."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._messages: dict[str, Row] = {}
        self._next_notice = 1
        self._flush_took_ms = 0.0
        self._speed_shown = 0.0
        self._empty = EmptyView()
        self._empty.starter_chosen.connect(self.starter_chosen)
        self._empty.models_requested.connect(self.models_requested)
        self._column = MessageColumn(self._build)
        self._column.setAccessibleName(self.tr("Conversation"))
        self._column.scrolled.connect(self._place_jump)
        self._jump = QPushButton(self.tr("Jump to latest"), self)
        self._jump.setObjectName("jump")
        self._jump.setToolTip(self.tr("Jump to the latest message (End)"))
        self._jump.setIcon(icon("arrow-down", theme))
        self._jump.hide()
        self._jump.clicked.connect(self.jump_to_latest)
        self._lines = lines = QVBoxLayout(self)
        lines.setContentsMargins(0, 0, 0, 0)
        lines.setSpacing(0)
        lines.addWidget(self._empty, 1)
        lines.addWidget(self._column, 1)
        self._flush_timer = QTimer(self)
        self._flush_timer.setSingleShot(True)
        self._flush_timer.timeout.connect(self._flush)
        self._rows_changed()

    # --- whole conversations ----------------------------------------------------------------------------------

    def show_messages(self, rows: Sequence[MessageRow]) -> None:
        """Show these messages instead of what there was, notices included, from their end."""
        for row in self._column.rows:
            row.drop_view()
        self._column.rows = []
        self._messages = {}
        for row in rows:
            self._add_row(row)
        self._rows_changed(follow=True)

    def add_message(self, row: MessageRow) -> None:
        """Put a message at the end and bring it into view."""
        self._add_row(row)
        self._rows_changed(follow=True)

    def update_message(self, row: MessageRow) -> None:
        """Show ``row`` instead of the message with its id, unless that is streaming."""
        found = self._state_of(row.message_id)
        if found and not found.is_streaming:
            found.replace(row)
            self._refresh(row.message_id)

    @property
    def message_ids(self) -> tuple[str, ...]:
        """The messages shown, first to last."""
        return tuple(self._messages)

    def text_of(self, message_id: str) -> str:
        """All text of a message, as far as it has come; "" for one that is not shown."""
        state = self._state_of(message_id)
        return state.text if state else ""

    # --- streaming --------------------------------------------------------------------------------------------

    def begin_reply(self, message_id: str) -> None:
        """A reply begins; a message that is shown already is continued. The view goes to the end."""
        if message_id not in self._messages:
            self._add_row(MessageRow(message_id, "assistant", "", is_complete=False))
        state = self._state_of(message_id)
        if state:
            state.begin()
        self._refresh(message_id)
        self._rows_changed(follow=True)

    def append_text(self, message_id: str, text: str, thought: str = "") -> None:
        """More of a reply, and of what the model thinks before it. Costs next to nothing: it is drawn with the next flush."""
        state = self._streaming(message_id)
        if state and (text or thought):
            state.append(thought, is_thought=True)
            state.append(text)
            if not self._flush_timer.isActive():
                rest_ms = min(LONGEST_REST_MS, round(FLUSH_SHARE * self._flush_took_ms))
                self._flush_timer.start(max(FLUSH_MS, rest_ms))

    def show_prompt_progress(self, message_id: str, done: int, total: int) -> None:
        """``done`` of ``total`` prompt tokens are read."""
        state = self._streaming(message_id)
        if state:
            state.prompt_done, state.prompt_total = done, total
            view = self._messages[message_id].view
            if isinstance(view, MessageView):
                view.refresh_progress()

    def show_speed(self, message_id: str, n_tokens: int, tokens_per_second: float | None) -> None:
        """How far a reply is and how fast; drawn with a flush soon."""
        state, now = self._streaming(message_id), time.monotonic()
        if state and (state.n_tokens is None or now - self._speed_shown >= SPEED_S):
            self._speed_shown = now
            state.n_tokens, state.tokens_per_second = n_tokens, tokens_per_second

    def finish_reply(self, message_id: str, stats: TurnStats, stop_reason: StopReason | None = None) -> None:
        """The reply is whole, or was stopped. ``stop_reason`` overrules the one in ``stats``."""
        if stop_reason is not None and stop_reason is not stats.stop_reason:
            stats = dataclasses.replace(stats, stop_reason=stop_reason)
        self._end_reply(message_id, stats, "")

    def fail_reply(self, message_id: str, sentence: str) -> None:
        """The reply broke off; its text stays and ``sentence`` stands under it."""
        self._end_reply(message_id, None, sentence)

    # --- notices ----------------------------------------------------------------------------------------------

    def add_notice(self, text: str, kind: str = "note", action_text: str | None = None) -> int:
        """Put a line at the end, or count it where the last line says the same. ``kind``: "note", "warning" or "error". Returns
        an id for its action and removal."""
        last = self._column.rows[-1] if self._column.rows else None
        if last and isinstance(last.content, Notice):
            said = last.content
            if (said.text, said.kind, said.action_text) == (text, kind, action_text):
                last.drop_view()
                last.content, last.width = replace(said, n_times=said.n_times + 1), 0
                self._rows_changed()
                return said.notice_id
        notice_id = self._next_notice
        self._next_notice += 1
        self._column.rows.append(Row(Notice(notice_id, text, kind, action_text)))
        self._rows_changed()
        return notice_id

    def remove_notice(self, notice_id: int) -> None:
        """Take a notice away; nothing happens when it is gone."""
        for row in self._column.rows:
            if isinstance(row.content, Notice) and row.content.notice_id == notice_id:
                row.drop_view()
                self._column.rows.remove(row)
                self._rows_changed()
                return

    # --- the view ---------------------------------------------------------------------------------------------

    @property
    def follows(self) -> bool:
        """Whether the view stays at the end while text arrives."""
        return self._column.follows

    def jump_to_latest(self) -> None:
        """Go to the end and stay there."""
        self._column.follow()

    def begin_edit(self, message_id: str) -> None:
        """Let the user change a message of theirs, scrolled into view."""
        row = self._messages.get(message_id)
        if row is not None:
            self._column.show_row(row)
            if isinstance(row.view, MessageView):
                row.view.begin_edit()

    def set_theme(self, theme: Theme) -> None:
        """Take the colours of ``theme``."""
        self._theme = theme
        self._jump.setIcon(icon("arrow-down", theme))
        for row in self._column.rows:
            if row.view is not None:
                row.view.set_theme(theme)
                row.width = 0
        self._column.arrange()

    # --- inside -----------------------------------------------------------------------------------------------

    def _add_row(self, row: MessageRow) -> None:
        self._messages[row.message_id] = Row(MessageState(row))
        self._column.rows.append(self._messages[row.message_id])

    def _state_of(self, message_id: str) -> MessageState | None:
        row = self._messages.get(message_id)
        return row.content if row and isinstance(row.content, MessageState) else None

    def _streaming(self, message_id: str) -> MessageState | None:
        state = self._state_of(message_id)
        return state if state and state.is_streaming else None

    def _end_reply(self, message_id: str, stats: TurnStats | None, failure: str) -> None:
        state = self._streaming(message_id)
        if state:
            state.end(stats, failure)
            self._refresh(message_id)
            self._tell_views()

    def _flush(self) -> None:
        began = time.perf_counter()
        for row in self._messages.values():
            if isinstance(row.content, MessageState) and row.content.has_waiting_text:
                row.content.take_waiting()
                if isinstance(row.view, MessageView):
                    row.view.refresh()
                row.width = 0
        self._column.arrange()
        self._flush_took_ms = (time.perf_counter() - began) * 1000
        self.flushed.emit(self._flush_took_ms)

    def _refresh(self, message_id: str) -> None:
        row = self._messages[message_id]
        if isinstance(row.view, MessageView):
            row.view.refresh()
        row.width = 0
        self._column.arrange()

    def _rows_changed(self, follow: bool = False) -> None:
        self._empty.setVisible(not self._messages)
        self._column.setVisible(bool(self._column.rows))
        self._column.setMaximumHeight(NO_LIMIT if self._messages else NOTICES_HEIGHT)
        self._lines.activate()  # or the column is laid out twice: for the size it had, and when Qt comes to it
        self._tell_views()
        if follow:
            self._column.follow()
        else:
            self._column.arrange()
        if not self._messages:  # notices stand under the empty view
            self._column.setMaximumHeight(min(NOTICES_HEIGHT, self._column.content_height))

    def _tell_views(self) -> None:
        """Tell the messages on screen what of the others concerns them."""
        for row in self._messages.values():
            if isinstance(row.view, MessageView):
                self._tell_view(row, row.view)

    def _tell_view(self, row: Row, view: MessageView) -> None:
        view.set_busy(any(self._streaming(message_id) for message_id in self._messages))
        view.set_last(row is next(reversed(self._messages.values())))

    def _build(self, row: Row, parent: QWidget) -> MessageView | NoticeView:
        content = row.content
        if isinstance(content, Notice):
            text = (
                content.text
                if content.n_times == 1
                else self.tr("{0} ({1} times)").format(content.text, content.n_times)
            )
            notice = NoticeView(text, content.kind, content.action_text, self._theme, parent)
            notice.action_clicked.connect(lambda: self.notice_action_triggered.emit(content.notice_id))
            return notice
        view = MessageView(content, self._theme, parent)
        view.height_changed.connect(lambda: self._column.remeasure(row))
        view.copy_requested.connect(_copy)
        view.link_activated.connect(self.link_activated)
        view.regenerate_requested.connect(self.regenerate_requested)
        view.continue_requested.connect(self.continue_requested)
        view.edit_submitted.connect(self.message_edited)
        view.version_requested.connect(self.version_requested)
        self._tell_view(row, view)
        return view

    def _place_jump(self) -> None:
        wanted = not self._column.follows and self._column.can_scroll and self._column.isVisible()
        self._jump.setVisible(wanted)
        if not wanted:
            return
        size = self._jump.sizeHint()
        self._jump.setGeometry(
            (self.width() - size.width()) // 2, self.height() - size.height() - 12, size.width(), size.height()
        )
        self._jump.raise_()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._place_jump()

    def sizeHint(self) -> QSize:
        return QSize(640, 480)

    def minimumSizeHint(self) -> QSize:
        return QSize(240, 160)


def _copy(text: str) -> None:
    QGuiApplication.clipboard().setText(text)
