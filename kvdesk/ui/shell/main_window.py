"""The window: places the panels, takes dropped files, says what Esc closes. Decides nothing. UI thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QByteArray, QEvent, QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QCloseEvent,
    QDragEnterEvent,
    QDropEvent,
    QKeyEvent,
    QPaintEvent,
    QPalette,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QMainWindow, QPushButton, QSplitter, QStackedWidget, QVBoxLayout, QWidget

from kvdesk.backend.preferences import WindowState
from kvdesk.ui.chat.chat_head import ChatHead
from kvdesk.ui.chat.composer import Composer
from kvdesk.ui.chat.conversation_list import ConversationList
from kvdesk.ui.chat.sampling_panel import SamplingPanel
from kvdesk.ui.chat.transcript import Transcript
from kvdesk.ui.chat.unsaved_bar import UnsavedBar
from kvdesk.ui.memory.memory_dock import MemoryDock
from kvdesk.ui.panels.crash_card import CrashCard
from kvdesk.ui.panels.model_bar import ModelBar
from kvdesk.ui.panels.options_card import OptionsCard
from kvdesk.ui.settings.settings_panel import SettingsPanel
from kvdesk.ui.shell.menus import Menus
from kvdesk.ui.widgets.icons import app_icon
from kvdesk.ui.widgets.theme import Theme, set_role
from kvdesk.ui.widgets.wheel import zooms

WHEEL_NOTCH = 120
"""Eighths of a degree in one notch of a usual wheel (QWheelEvent.angleDelta)."""
NO_MODIFIER = Qt.KeyboardModifier.NoModifier
FIRST_SIZE = QSize(1440, 900)
FRAME_PX = 40
"""What a window manager's frame and title take, about."""
SIDE_PX = (380, 460)
"""Least and most width of memory and settings."""
LOW_PX = 600
"""In a lower window the chart is a sparkline."""
NARROW_PX = 1120
"""Below this width the list of conversations makes room for chat and memory."""


def first_size(available: QSize) -> QSize:
    """The size of the first window on a screen with so much room: all of it is to be seen, its frame too."""
    return FIRST_SIZE.boundedTo(available - QSize(2, FRAME_PX))


class MainWindow(QMainWindow):
    """All panels are its attributes; what they mean to each other is joined in ui/shell/application.py."""

    model_dropped = Signal(str)
    open_model_requested = Signal()
    library_requested = Signal()
    import_requested = Signal()
    export_requested = Signal(str)
    """Export the open conversation as "markdown" or "json"."""
    logs_requested = Signal()
    copy_report_requested = Signal()
    profile_requested = Signal()
    theme_chosen = Signal(str)
    zoom_requested = Signal(int)
    """1: larger text, -1: smaller, 0: the desktop's size."""
    painted = Signal()
    """All of the window has been painted for the first time."""
    close_requested = Signal()
    """The user closes the window; the owner answers with ``really_close``."""

    def __init__(self, theme: Theme, theme_name: str) -> None:
        super().__init__()
        self._may_close = self._is_painted = False
        self._list_wanted = True
        self._wheel_turned = 0
        self.setWindowTitle("kvdesk")
        self.setWindowIcon(app_icon())
        self.setAcceptDrops(True)
        self.setMinimumSize(760, 520)
        self.resize(first_size(self.screen().availableSize()))
        self.model_bar = ModelBar(theme)
        self.conversation_list = ConversationList(theme)
        self.transcript = Transcript(theme)
        self.options_card = OptionsCard(theme)
        self.growth_card = OptionsCard(theme)
        self.crash_card = CrashCard(theme)
        self.unsaved_bar = UnsavedBar(theme)
        self.composer = Composer(theme)
        self.memory_dock = MemoryDock(theme)
        self.settings_panel = SettingsPanel(theme)
        self.sampling_panel = SamplingPanel(theme)
        self._themed = (
            self.model_bar,
            self.conversation_list,
            self.transcript,
            self.options_card,
            self.growth_card,
            self.crash_card,
            self.unsaved_bar,
            self.composer,
            self.memory_dock,
            self.settings_panel,
            self.sampling_panel,
        )
        self._build_layout()
        self.menus = Menus(self, theme_name)

    # --- building ---------------------------------------------------------------------------------------------------

    def _build_layout(self) -> None:
        self._center = QStackedWidget()
        self._center.addWidget(self._build_chat())
        self._center.addWidget(self._build_memory_page())
        self._side = self._build_side()
        self._columns = QSplitter(Qt.Orientation.Horizontal)
        for index, (widget, stretch) in enumerate(((self.conversation_list, 0), (self._center, 1), (self._side, 0))):
            self._columns.addWidget(widget)
            self._columns.setStretchFactor(index, stretch)
            self._columns.setCollapsible(index, False)
        self._columns.setSizes([240, 740, 420])
        page = QWidget()
        rows = QVBoxLayout(page)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(0)
        rows.addWidget(self.model_bar)
        rows.addWidget(self._columns, 1)
        self.setCentralWidget(page)

    def _build_chat(self) -> QWidget:
        self._chat = chat = QWidget()
        chat.setBackgroundRole(QPalette.ColorRole.Base)  # one surface from the first message to the composer
        chat.setAutoFillBackground(True)
        column = QVBoxLayout(chat)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        self.chat_head = ChatHead(self.sampling_panel)
        column.addWidget(self.chat_head)
        column.addWidget(self.transcript, 1)
        cards = QVBoxLayout()
        cards.setContentsMargins(8, 0, 8, 8)
        cards.setSpacing(8)
        for card in (self.crash_card, self.growth_card, self.options_card):
            cards.addWidget(card)
            card.hide()
        cards.addWidget(self.unsaved_bar)
        column.addLayout(cards)
        column.addWidget(self.composer)
        return chat

    def _build_memory_page(self) -> QWidget:
        page = QWidget()
        close = QPushButton(self.tr("Back to the chat"))
        close.setToolTip(self.tr("Back to the chat (Esc)"))
        set_role(close, "flat")
        close.clicked.connect(lambda: self.show_memory_page(False))
        self.memory_dock.page.setCornerWidget(close)
        column = QVBoxLayout(page)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.memory_dock.page)
        return page

    def _build_side(self) -> QWidget:
        """One column: chart (or the drawer of settings in its place), settings, price. Never wider than it needs."""
        side = QWidget()
        side.setMinimumWidth(SIDE_PX[0])
        side.setMaximumWidth(SIDE_PX[1])
        self._upper = QStackedWidget()
        self._upper.addWidget(self.memory_dock)
        self._upper.addWidget(self.settings_panel.drawer)
        self.settings_panel.more_toggled.connect(lambda shown: self._upper.setCurrentIndex(int(shown)))
        column = QVBoxLayout(side)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self._upper, 1)
        column.addWidget(self.settings_panel)
        return side

    # --- what it is told ---------------------------------------------------------------------------------------------

    def show_settings(self) -> None:
        """Show the settings and give them the keyboard."""
        self.menus.side_action.setChecked(True)
        self.settings_panel.focus_first()

    def show_memory_page(self, shown: bool) -> None:
        """Plan, curve and reasons in the place of the chat, or the chat."""
        self._center.setCurrentIndex(int(shown))
        self.menus.memory_action.setChecked(shown)
        (self.memory_dock.page if shown else self.composer).setFocus()

    def show_list(self, shown: bool) -> None:
        """Show the list of conversations, as long as there is room for it, or do not."""
        self._list_wanted = shown
        self._place_list()

    def show_side(self, shown: bool) -> None:
        """Show memory and settings or do not."""
        self._side.setVisible(shown)

    def set_theme(self, theme: Theme) -> None:
        """Hand the theme on to every panel."""
        for widget in self._themed:
            widget.set_theme(theme)

    def restore(self, state: WindowState) -> None:
        """Stand where the window stood."""
        if state.geometry:
            self.restoreGeometry(QByteArray.fromBase64(state.geometry.encode()))
        sizes = state.layout.partition(";")[0].split(",")  # an earlier version kept more after a semicolon
        if len(sizes) == self._columns.count() and all(size.isdigit() for size in sizes):
            self._columns.setSizes([int(size) for size in sizes])

    def window_state(self, conversation_id: str) -> WindowState:
        """Size, place and open pages, for the next start."""
        layout = ",".join(str(n) for n in self._columns.sizes())
        return WindowState(bytes(self.saveGeometry().toBase64().data()).decode(), layout, conversation_id)

    def really_close(self) -> None:
        """Close the window without asking the app first."""
        self._may_close = True
        self.close()

    def _place_list(self) -> None:
        self.conversation_list.setVisible(self._list_wanted and self.width() >= NARROW_PX)

    # --- what Esc closes ---------------------------------------------------------------------------------------------

    def _open_parts(self) -> list[Callable[[], None]]:
        """What closes each part that is open, the topmost first."""
        parts = (
            (self.composer.warning.isVisible(), self.composer.warning.dismiss),
            (self.options_card.can_close, self.options_card.dismiss),
            (self.crash_card.isVisible(), self.crash_card.dismiss),
            (self.chat_head.is_open, self.chat_head.close_settings),
            (self._center.currentIndex() == 1, lambda: self.show_memory_page(False)),
            (self._upper.currentIndex() == 1, lambda: self.settings_panel.show_more(False)),
        )
        return [close for is_open, close in parts if is_open]

    def _is_open(self) -> bool:
        return bool(self._open_parts())

    def _close_topmost(self) -> bool:
        for close in self._open_parts():
            close()
            self.composer.setFocus()
            return True
        return False

    # --- Qt's calls ---------------------------------------------------------------------------------------------------

    def resizeEvent(self, event: QResizeEvent) -> None:
        """A narrow window keeps chat and memory and hides the list until it fits again."""
        super().resizeEvent(event)
        self._place_list()
        self.memory_dock.set_sparkline(self.height() < LOW_PX)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """With Ctrl it changes the size of all text."""
        if not zooms(event):
            super().wheelEvent(event)
            return
        self._wheel_turned += event.angleDelta().y()
        if abs(self._wheel_turned) >= WHEEL_NOTCH:
            self.zoom_requested.emit(1 if self._wheel_turned > 0 else -1)
            self._wheel_turned = 0
        event.accept()

    def event(self, event: QEvent) -> bool:
        """Esc belongs to what is open before it belongs to the reply: without this, the action that stops takes it."""
        if isinstance(event, QKeyEvent) and event.key() == Qt.Key.Key_Escape and event.modifiers() == NO_MODIFIER:
            if event.type() == QEvent.Type.ShortcutOverride and self._is_open():
                event.accept()
                return True
            if event.type() == QEvent.Type.KeyPress and self._close_topmost():
                return True
        return super().event(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        """The children follow in the same pass, so that all is on the screen when the event loop comes round."""
        super().paintEvent(event)
        if not self._is_painted:
            self._is_painted = True
            QTimer.singleShot(0, self.painted.emit)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Accept a model's file anywhere in the window."""
        if any(url.toLocalFile().lower().endswith(".gguf") for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Open the first model dropped."""
        for url in event.mimeData().urls():
            if url.toLocalFile().lower().endswith(".gguf"):
                self.model_dropped.emit(str(Path(url.toLocalFile())))
                event.acceptProposedAction()
                return

    def closeEvent(self, event: QCloseEvent) -> None:
        """Ask the owner, who knows what is under way."""
        if self._may_close:
            event.accept()
        else:
            event.ignore()
            self.close_requested.emit()
