"""Where a message is written: text, its tokens, the context gauge, Send or Stop, and warnings before sending. UI thread.

Counts nothing and reads no file itself: it tells what is typed or dropped and is told numbers and sentences.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QSize, QTimer, Signal
from PySide6.QtGui import QAction, QDragEnterEvent, QDropEvent, QKeySequence
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from kvdesk.ui.chat.composer_field import ComposerField, local_paths
from kvdesk.ui.chat.warning_strip import WarningStrip
from kvdesk.ui.memory.gauges import ContextGauge
from kvdesk.ui.panels.options_card import PricedChoice
from kvdesk.ui.widgets.icons import icon
from kvdesk.ui.widgets.numbers import format_tokens
from kvdesk.ui.widgets.plain_text import PlainLabel, plain_tip
from kvdesk.ui.widgets.theme import Theme, set_role

DRAFT_DELAY_MS = 150


class Composer(QWidget):
    """The draft stays until the owner takes it: after ``message_sent`` call ``set_draft("")`` once the message is safe.

    ``stop_action`` (Esc, only while a reply is being written) may also be put into a menu.
    """

    message_sent = Signal(str)
    stop_requested = Signal()
    draft_changed = Signal(str)
    """The draft, a moment after the last change."""
    option_chosen = Signal(PricedChoice)
    """A choice in the warning."""
    warning_dismissed = Signal()
    model_dropped = Signal(str)
    """A .gguf file was dropped: the user wants that model."""
    text_files_dropped = Signal(list)
    """Paths of other files: read them elsewhere and hand their text to ``insert_text``."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._is_generating = False
        self._closed_reason = ""
        self._is_blocked = False
        self._used: int | None = None
        self._limit: int | None = None
        self._draft_tokens: int | None = None
        self.warning = WarningStrip(theme)
        self.warning.option_chosen.connect(self.option_chosen)
        self.warning.dismissed.connect(self._on_warning_dismissed)
        self._field = self._build_field()
        self._tokens = PlainLabel()
        self._tokens.setToolTip(self.tr("Tokens of what is written here, counted by the model's own tokenizer"))
        set_role(self._tokens, "muted")
        self._reason = PlainLabel()
        self._reason.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        set_role(self._reason, "muted")
        self._gauge = ContextGauge(theme)
        self._gauge.setAccessibleName(self.tr("Context in use"))
        self._button = QPushButton()
        self._button.setIconSize(QSize(16, 16))
        self._button.clicked.connect(self._on_button_clicked)
        self.stop_action = QAction(self.tr("Stop the reply"), self)
        self.stop_action.setShortcut(QKeySequence("Esc"))
        self.stop_action.triggered.connect(self.stop_requested)
        self.addAction(self.stop_action)
        self._build_layout()
        self.setAcceptDrops(True)
        self.setFocusProxy(self._field)
        self.set_theme(theme)
        self._refresh()

    # --- what it is told -------------------------------------------------------------------------------------------

    def draft(self) -> str:
        """What is written now. (Halves of characters, which UTF-8 cannot hold, PySide leaves out.)"""
        return self._field.toPlainText()

    def set_draft(self, text: str) -> None:
        """Put ``text`` in the place of what is written: another conversation's draft, or "" when it has been sent."""
        self._field.setPlainText(text)
        self._field.moveCursor(self._field.textCursor().MoveOperation.End)

    def insert_text(self, text: str) -> None:
        """Add ``text`` at the cursor, on lines of its own; can be undone."""
        cursor = self._field.textCursor()
        before = "" if cursor.atBlockStart() else "\n"
        cursor.insertText(f"{before}{text}")
        self._field.setTextCursor(cursor)
        self._field.ensureCursorVisible()

    def show_draft_tokens(self, n_tokens: int | None) -> None:
        """How many tokens the draft has; None while nobody can count (no model)."""
        self._draft_tokens = n_tokens
        self._refresh()

    def show_context(self, used: int | None, limit: int | None) -> None:
        """``used`` of ``limit`` tokens of the context hold the conversation."""
        self._used, self._limit = used, limit
        self._refresh()

    def show_generating(self, is_generating: bool) -> None:
        """Send becomes Stop while a reply is being written; writing the next message stays possible."""
        self._is_generating = is_generating
        self._refresh()

    def show_closed(self, reason: str) -> None:
        """Nothing can be sent, and why ("No model is loaded"); "" opens it again. What is written stays."""
        self._closed_reason = reason
        self._refresh()

    def show_warning(
        self, sentence: str, options: Sequence[PricedChoice] = (), is_blocking: bool = False, tone: str = "amber"
    ) -> None:
        """Say ``sentence`` above the field with up to four priced ways out.

        With ``is_blocking`` the draft cannot be sent as it is (it is longer than the context) until ``clear_warning``.
        """
        self._is_blocked = is_blocking
        self.warning.show_warning(sentence, options, tone)
        self._refresh()

    def clear_warning(self) -> None:
        """There is nothing to warn of any more."""
        self._is_blocked = False
        self.warning.hide()
        self._refresh()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        self.warning.set_theme(theme)
        self._gauge.set_theme(theme)
        self._refresh_button()

    # --- building --------------------------------------------------------------------------------------------------

    def _build_field(self) -> ComposerField:
        field = ComposerField()
        field.setAccessibleName(self.tr("Message"))
        field.setPlaceholderText(self.tr("Write a message. Enter sends, Shift+Enter makes a new line."))
        field.setStyleSheet("QPlainTextEdit { border: none; background: transparent; }")  # the card is the frame
        field.submitted.connect(self._on_submitted)
        field.files_dropped.connect(self._on_files_dropped)
        field.textChanged.connect(self._on_text_changed)
        self._draft_timer = QTimer(self)
        self._draft_timer.setSingleShot(True)
        self._draft_timer.setInterval(DRAFT_DELAY_MS)
        self._draft_timer.timeout.connect(lambda: self.draft_changed.emit(self.draft()))
        return field

    def _build_layout(self) -> None:
        card = QFrame()
        set_role(card, "card")
        bottom = QHBoxLayout()
        bottom.setSpacing(12)
        bottom.setContentsMargins(4, 0, 0, 0)
        bottom.addWidget(self._tokens)
        bottom.addWidget(self._reason, 1)
        bottom.addWidget(self._gauge)
        bottom.addWidget(self._button)
        inside = QVBoxLayout(card)
        inside.setContentsMargins(8, 8, 8, 8)
        inside.setSpacing(4)
        inside.addWidget(self._field)
        inside.addLayout(bottom)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 0, 8, 8)
        layout.setSpacing(8)
        layout.addWidget(self.warning)
        layout.addWidget(card)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    # --- what the user does ----------------------------------------------------------------------------------------

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Files may be dropped anywhere on the composer."""
        if local_paths(event.mimeData()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Open a dropped model; quote dropped text files."""
        event.acceptProposedAction()
        self._on_files_dropped(local_paths(event.mimeData()))

    def _on_files_dropped(self, paths: list[str]) -> None:
        models = [path for path in paths if path.lower().endswith(".gguf")]
        texts = [path for path in paths if path not in models]
        if models:
            self.model_dropped.emit(models[0])
        if texts:
            self.text_files_dropped.emit(texts)

    def _on_text_changed(self) -> None:
        self._draft_timer.start()
        self._refresh()

    def _on_submitted(self) -> None:
        if self._can_send():
            self.message_sent.emit(self.draft())

    def _on_button_clicked(self) -> None:
        if self._is_generating:
            self.stop_requested.emit()
        else:
            self._on_submitted()
            self._field.setFocus()

    def _on_warning_dismissed(self) -> None:
        self._refresh()  # a draft that is too long stays too long
        self.warning_dismissed.emit()

    # --- inside ----------------------------------------------------------------------------------------------------

    def _can_send(self) -> bool:
        is_open = not self._is_generating and not self._closed_reason and not self._is_blocked
        return is_open and bool(self.draft().strip())

    def _refresh(self) -> None:
        has_text = not self._field.document().isEmpty()
        counted = has_text and self._draft_tokens is not None
        self._tokens.setText(self.tr("draft {0} tok").format(format_tokens(self._draft_tokens)) if counted else "")
        self._tokens.setVisible(counted)
        self._reason.setText(self._closed_reason)
        self._reason.setToolTip(plain_tip(self._closed_reason))
        self._gauge.show_tokens(self._used, self._limit, (self._draft_tokens or 0) if has_text else 0)
        self._gauge.setVisible(self._limit is not None)
        self.stop_action.setEnabled(self._is_generating)
        self._refresh_button()

    def _refresh_button(self) -> None:
        button, stop = self._button, self._is_generating
        button.setText(self.tr("Stop") if stop else self.tr("Send"))
        button.setToolTip(
            self.tr("Stop the reply (Esc)") if stop else plain_tip(self._closed_reason) or self.tr("Send (Enter)")
        )
        button.setEnabled(stop or self._can_send())
        set_role(button, "danger" if stop else "primary")
        usable = self._theme.accent_text if button.isEnabled() else self._theme.text_muted
        color = self._theme.red if stop else usable
        button.setIcon(icon("stop" if stop else "send", self._theme, color))
        button.setMinimumWidth(84)
