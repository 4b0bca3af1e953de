"""The left panel: search, new chat, all conversations by day, rename in place, delete with undo, export. UI thread.

Shows the rows it is given and says what is wanted; searching and keeping is the store's job.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from PySide6.QtCore import QEvent, QModelIndex, QObject, QPoint, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QKeyEvent, QKeySequence
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QHBoxLayout,
    QLineEdit,
    QListView,
    QMenu,
    QPushButton,
    QStackedLayout,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from kvdesk.backend.conversations.conversation import ConversationRow
from kvdesk.ui.chat.conversation_delegate import ConversationDelegate
from kvdesk.ui.chat.conversation_rows import ROW_ROLE, ConversationRows, title_text
from kvdesk.ui.widgets.icons import icon
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.theme import Theme, set_role

SEARCH_DELAY_MS = 150
UNDO_MS = 10_000


class ConversationList(QWidget):
    """``new_action`` (Ctrl+N) and ``search_action`` (Ctrl+K) belong to the panel and may also be put into a menu."""

    conversation_chosen = Signal(str)
    new_requested = Signal()
    search_changed = Signal(str)
    """What is looked for, a moment after the last key; "" for all."""
    rename_requested = Signal(str, str)
    """Conversation id, new title."""
    delete_requested = Signal(str)
    """Delete so that it can be undone; the list does not show the conversation any more."""
    undo_requested = Signal(str)
    """Bring the deleted conversation back."""
    export_requested = Signal(str, str)
    """Conversation id, "markdown" or "json"."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: tuple[ConversationRow, ...] = ()
        self._shown_at_s = 0.0
        self._current_id: str | None = None
        self._deleted_id: str | None = None
        self._waiting: tuple[Sequence[ConversationRow], float] | None = None
        self._model = ConversationRows()
        self._model.title_edited.connect(self.rename_requested)
        self._search = self._build_search()
        self._view = self._build_view(theme)
        self._undo_bar, self._undo_words = self._build_undo_bar()
        self._empty = PlainLabel()
        self._empty.setWordWrap(True)
        self._empty.setAlignment(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop)
        self._empty.setContentsMargins(16, 32, 16, 0)
        set_role(self._empty, "muted")
        self._new = QToolButton()
        self._new.setAccessibleName(self.tr("New chat"))
        self._build_actions()
        self._new.setDefaultAction(self.new_action)
        top = QHBoxLayout()
        top.setSpacing(4)
        top.addWidget(self._search)
        top.addWidget(self._new)
        self._stack = QStackedLayout()
        self._stack.addWidget(self._view)
        self._stack.addWidget(self._empty)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(8)
        layout.addLayout(top)
        layout.addLayout(self._stack, 1)
        layout.addWidget(self._undo_bar)
        self.setMinimumWidth(180)
        self.set_theme(theme)
        self.show_conversations(())

    # --- what it is told -------------------------------------------------------------------------------------------

    def show_conversations(self, rows: Sequence[ConversationRow], now_s: float | None = None) -> None:
        """Show ``rows``, newest first; they wait while a title is being edited. ``now_s`` decides what is today."""
        at = time.time() if now_s is None else now_s
        if self._view.state() == QAbstractItemView.State.EditingState:
            self._waiting = (rows, at)
            return
        self._rows, self._shown_at_s = tuple(row for row in rows if row.id != self._deleted_id), at
        scrolled = self._view.verticalScrollBar().value()
        self._model.show_rows(self._rows, at)
        self._mark_current()
        self._view.verticalScrollBar().setValue(scrolled)
        self._empty.setText(self._words_for_none())
        self._stack.setCurrentWidget(self._view if self._rows else self._empty)

    def show_current(self, conversation_id: str | None) -> None:
        """Mark the conversation that the window shows; emits nothing."""
        self._current_id = conversation_id
        index = self._mark_current()
        if index.isValid():
            self._view.scrollTo(index)

    def show_busy(self, conversation_id: str | None) -> None:
        """Put a dot beside the conversation in which a reply is being written."""
        self._delegate.busy_id = conversation_id
        self._view.viewport().update()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._delegate.theme = theme
        self.new_action.setIcon(icon("plus", theme))
        self._search_icon.setIcon(icon("search", theme, theme.text_muted))
        self._view.viewport().update()

    @property
    def query(self) -> str:
        """What is being looked for."""
        return self._search.text()

    def focus_search(self) -> None:
        """Put the cursor into the search box, all of its text selected."""
        self._search.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self._search.selectAll()

    # --- building --------------------------------------------------------------------------------------------------

    def _build_search(self) -> QLineEdit:
        box = QLineEdit()
        box.setPlaceholderText(self.tr("Search"))
        box.setAccessibleName(self.tr("Search conversations"))
        box.setToolTip(self.tr("Finds words in titles and messages (Ctrl+K)"))
        box.setClearButtonEnabled(True)
        self._search_icon = QAction(box)
        box.addAction(self._search_icon, QLineEdit.ActionPosition.LeadingPosition)
        self._search_timer = QTimer(self)
        self._search_timer.setSingleShot(True)
        self._search_timer.setInterval(SEARCH_DELAY_MS)
        self._search_timer.timeout.connect(lambda: self.search_changed.emit(box.text()))
        box.textChanged.connect(lambda _text: self._search_timer.start())
        box.installEventFilter(self)
        return box

    def _build_view(self, theme: Theme) -> QListView:
        view = QListView()
        view.setModel(self._model)
        self._delegate = ConversationDelegate(theme, view)
        view.setItemDelegate(self._delegate)
        view.setAccessibleName(self.tr("Conversations"))
        view.setMouseTracking(True)
        view.setEditTriggers(QAbstractItemView.EditTrigger.EditKeyPressed)
        view.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        view.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        view.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        view.setStyleSheet("QListView { background: transparent; }")  # one surface with the panel
        view.clicked.connect(self._on_row_clicked)
        view.customContextMenuRequested.connect(self._on_menu_requested)
        view.installEventFilter(self)
        self._delegate.closeEditor.connect(self._on_editor_closed, Qt.ConnectionType.QueuedConnection)
        return view

    def _build_undo_bar(self) -> tuple[QFrame, PlainLabel]:
        bar = QFrame()
        set_role(bar, "card")
        words = PlainLabel()
        words.setWordWrap(True)
        undo = QPushButton(self.tr("Undo"))
        undo.setAccessibleName(self.tr("Undo deleting"))
        undo.clicked.connect(self._on_undo_clicked)
        row = QHBoxLayout(bar)
        row.setContentsMargins(8, 4, 4, 4)
        row.addWidget(words, 1)
        row.addWidget(undo)
        bar.hide()
        self._undo_timer = QTimer(self)
        self._undo_timer.setSingleShot(True)
        self._undo_timer.setInterval(UNDO_MS)
        self._undo_timer.timeout.connect(self._on_undo_expired)
        return bar, words

    def _build_actions(self) -> None:
        self.new_action = QAction(self.tr("New chat"), self)
        self.new_action.setShortcut(QKeySequence.StandardKey.New)
        self.new_action.setToolTip(self.tr("New chat (Ctrl+N)"))
        self.new_action.triggered.connect(self.new_requested)
        self.search_action = QAction(self.tr("Search conversations"), self)
        self.search_action.setShortcut(QKeySequence("Ctrl+K"))
        self.search_action.triggered.connect(self.focus_search)
        self.addActions([self.new_action, self.search_action])

    # --- what the user does ----------------------------------------------------------------------------------------

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Keys: Down leaves the search for the list and Esc clears it; Enter opens a row and Delete deletes it."""
        is_for_search = watched is self._search and bool(self._search.text())
        if event.type() == QEvent.Type.ShortcutOverride and isinstance(event, QKeyEvent) and is_for_search:
            if event.key() == Qt.Key.Key_Escape:  # else it would stop a reply that is being written
                event.accept()
            return False
        if event.type() == QEvent.Type.KeyPress and isinstance(event, QKeyEvent):
            if watched is self._search:
                return self._on_search_key(Qt.Key(event.key()))
            return self._on_list_key(Qt.Key(event.key()))
        return super().eventFilter(watched, event)

    def _on_search_key(self, key: Qt.Key) -> bool:
        if key == Qt.Key.Key_Escape and self._search.text():
            self._search.clear()
            return True
        if key == Qt.Key.Key_Down and self._rows:
            self._view.setFocus(Qt.FocusReason.TabFocusReason)
            if self._selected() is None:
                self._view.setCurrentIndex(self._model.index_of(self._rows[0].id))
            return True
        return False

    def _on_list_key(self, key: Qt.Key) -> bool:
        row = self._selected()
        if row is None or self._view.state() == QAbstractItemView.State.EditingState:
            return False
        if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.conversation_chosen.emit(row.id)
        elif key == Qt.Key.Key_Delete:
            self._delete(row)
        else:
            return False
        return True

    def _on_row_clicked(self, index: QModelIndex) -> None:
        row = index.data(ROW_ROLE)
        if row is not None:
            self.conversation_chosen.emit(row.id)

    def _on_menu_requested(self, at: QPoint) -> None:
        index = self._view.indexAt(at)
        row = index.data(ROW_ROLE)
        if row is not None:
            menu = self._build_menu(row, index)
            menu.popup(self._view.viewport().mapToGlobal(at))

    def _build_menu(self, row: ConversationRow, index: QModelIndex) -> QMenu:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction(self.tr("Rename"), QKeySequence("F2"), lambda: self._view.edit(index))
        menu.addSeparator()
        menu.addAction(self.tr("Export as Markdown…"), lambda: self.export_requested.emit(row.id, "markdown"))
        menu.addAction(self.tr("Export as JSON…"), lambda: self.export_requested.emit(row.id, "json"))
        menu.addSeparator()
        menu.addAction(self.tr("Delete"), QKeySequence("Del"), lambda: self._delete(row))
        return menu

    def _on_editor_closed(self) -> None:
        if self._waiting is not None:
            (rows, at), self._waiting = self._waiting, None
            self.show_conversations(rows, at)

    def _on_undo_clicked(self) -> None:
        conversation_id = self._deleted_id
        self._on_undo_expired()
        if conversation_id is not None:
            self.undo_requested.emit(conversation_id)

    def _on_undo_expired(self) -> None:
        self._undo_timer.stop()
        self._deleted_id = None
        self._undo_bar.hide()

    def _delete(self, row: ConversationRow) -> None:
        self._deleted_id = row.id
        self._undo_words.setText(self.tr("Deleted “{0}”").format(title_text(row)))
        self._undo_bar.show()
        self._undo_timer.start()
        self.show_conversations(self._rows, self._shown_at_s)
        self.delete_requested.emit(row.id)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _selected(self) -> ConversationRow | None:
        return self._view.currentIndex().data(ROW_ROLE)

    def _mark_current(self) -> QModelIndex:
        index = self._model.index_of(self._current_id or "")
        if index.isValid():
            self._view.setCurrentIndex(index)
        else:
            self._view.clearSelection()
        return index

    def _words_for_none(self) -> str:
        if self._search.text().strip():
            return self.tr("Nothing found for “{0}”.").format(self._search.text().strip())
        return self.tr("No conversations yet.\nWhat you and a model say is kept here, on this computer.")
