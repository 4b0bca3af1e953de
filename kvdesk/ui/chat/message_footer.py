"""The line under a message: its figures on the left, what can be done with it on the right. UI thread."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QSize, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QWidget

from kvdesk.ui.chat.action_button import ActionButton
from kvdesk.ui.chat.message_row import MessageState
from kvdesk.ui.chat.reply_stats import CAN_CONTINUE, SEPARATOR, details, summary, token_words
from kvdesk.ui.widgets.numbers import format_rate
from kvdesk.ui.widgets.plain_text import PlainLabel, plain_tip
from kvdesk.ui.widgets.theme import Theme

FOOTER_HEIGHT = 28


class ElidedLabel(PlainLabel):
    """A label that shortens its text instead of asking for room."""

    def __init__(self) -> None:
        super().__init__()
        self._full = ""
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)

    @property
    def full_text(self) -> str:
        """The text before shortening."""
        return self._full

    def show_full_text(self, text: str) -> None:
        """Show ``text``, as much of it as fits."""
        if text != self._full:
            self._full = text
            self.setAccessibleName(text)
            self._elide()

    def minimumSizeHint(self) -> QSize:
        return QSize(0, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._elide()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange:
            self._elide()

    def _elide(self) -> None:
        self.setText(self.fontMetrics().elidedText(self._full, Qt.TextElideMode.ElideRight, self.width()))


class VersionSwitcher(QWidget):
    """ "‹ 2/3 ›": steps through the versions of a message."""

    stepped = Signal(int)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.previous_button = ActionButton("chevron-left", self.tr("Previous version"), theme)
        self.next_button = ActionButton("chevron-right", self.tr("Next version"), theme)
        self.label = PlainLabel()
        self.label.setProperty("role", "muted")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        row.addWidget(self.previous_button)
        row.addWidget(self.label)
        row.addWidget(self.next_button)
        self.previous_button.set_revealed(True)
        self.next_button.set_revealed(True)
        self.previous_button.clicked.connect(lambda: self.stepped.emit(-1))
        self.next_button.clicked.connect(lambda: self.stepped.emit(1))

    def show_version(self, version: int, n_versions: int, can_step: bool) -> None:
        """Show which of how many it is; nothing for the only one."""
        self.setVisible(n_versions > 1)
        self.label.setText(f"{version}/{n_versions}")
        self.label.setAccessibleName(self.tr("Version {n} of {total}").format(n=version, total=n_versions))
        self.previous_button.setEnabled(can_step and version > 1)
        self.next_button.setEnabled(can_step and version < n_versions)

    def set_theme(self, theme: Theme) -> None:
        """Take the colours of ``theme``."""
        self.previous_button.set_theme(theme)
        self.next_button.set_theme(theme)


class MessageFooter(QWidget):
    """Figures and actions of one message."""

    copy_clicked = Signal()
    edit_clicked = Signal()
    regenerate_clicked = Signal()
    continue_clicked = Signal()
    version_clicked = Signal(int)

    def __init__(self, state: MessageState, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._theme = theme
        self._is_busy = False
        self._is_last = False
        self._is_hovered = False
        self.stats_label = ElidedLabel()
        self.stats_label.setProperty("role", "muted")
        self.versions: VersionSwitcher | None = None
        self.copy_button = ActionButton("copy", self.tr("Copy message"), theme)
        self.edit_button = ActionButton("edit", self.tr("Edit as a new branch"), theme)
        self.regenerate_button = ActionButton("regenerate", self.tr("Regenerate, keeping this version"), theme)
        self.continue_button = ActionButton("continue", self.tr("Continue this reply"), theme)
        self.copy_button.clicked.connect(self.copy_clicked)
        self.edit_button.clicked.connect(self.edit_clicked)
        self.regenerate_button.clicked.connect(self.regenerate_clicked)
        self.continue_button.clicked.connect(self.continue_clicked)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        if state.is_reply:
            row.addWidget(self.stats_label, 1)
        else:
            row.addStretch(1)
        for button in self._actions:
            row.addWidget(button)
            button.focus_changed.connect(self._reveal)
        for unused in {self.stats_label, self.edit_button, self.regenerate_button, self.continue_button}:
            if row.indexOf(unused) < 0:  # hidden, and gone with the footer
                unused.setParent(self)
                unused.hide()
        self._row = row
        self.refresh()

    @property
    def _actions(self) -> tuple[ActionButton, ...]:
        if self._state.is_reply:
            return (self.continue_button, self.regenerate_button, self.copy_button)
        return (self.edit_button, self.copy_button)

    def refresh(self) -> None:
        """Show what the state says now."""
        state, row = self._state, self._state.row
        can_ask = not self._is_busy and not state.is_streaming
        if row.n_versions > 1 and self.versions is None:
            self.versions = VersionSwitcher(self._theme)
            self.versions.stepped.connect(self.version_clicked)
            self._row.addWidget(self.versions)
        if self.versions is not None:
            self.versions.show_version(row.version, row.n_versions, can_ask)
        self.copy_button.setVisible(state.has_text and not state.is_streaming)
        if state.is_reply:
            self.regenerate_button.setVisible(not state.is_streaming)
            self.regenerate_button.setEnabled(can_ask)
            self.continue_button.setVisible(self._is_last and not state.is_streaming and _may_continue(state))
            self.continue_button.setEnabled(can_ask)
            self.stats_label.show_full_text(self._figures())
            if not state.is_streaming:
                self.stats_label.setToolTip(plain_tip(details(row.stats)) if row.stats else "")
        else:
            self.edit_button.setEnabled(can_ask)

    def set_busy(self, busy: bool) -> None:
        """While some reply is written, nothing else can be asked for."""
        if busy != self._is_busy:
            self._is_busy = busy
            self.refresh()

    def set_last(self, is_last: bool) -> None:
        """Whether this is the conversation's last message: the only one that can be continued."""
        if is_last != self._is_last:
            self._is_last = is_last
            self.refresh()

    def set_hovered(self, hovered: bool) -> None:
        """Whether the pointer is over the message: then, or with the focus among them, the actions are seen."""
        self._is_hovered = hovered
        self._reveal()

    def set_theme(self, theme: Theme) -> None:
        """Take the colours of ``theme``."""
        self._theme = theme
        for button in self._actions:
            button.set_theme(theme)
        if self.versions is not None:
            self.versions.set_theme(theme)

    def _reveal(self) -> None:
        revealed = self._is_hovered or any(button.hasFocus() for button in self._actions)
        for button in self._actions:
            button.set_revealed(revealed)

    def _figures(self) -> str:
        state = self._state
        if state.is_streaming:
            live = [] if state.n_tokens is None else [token_words(state.n_tokens)]
            if state.tokens_per_second is not None:
                live.append(format_rate(state.tokens_per_second))
            return SEPARATOR.join(live)
        if state.row.stats:
            return summary(state.row.stats)
        if state.row.stop_note:
            return state.row.stop_note
        return "" if state.row.is_complete or state.failure else self.tr("not finished")


def _may_continue(state: MessageState) -> bool:
    if not state.has_text:
        return False
    stats = state.row.stats
    return stats.stop_reason in CAN_CONTINUE if stats else not state.row.is_complete
