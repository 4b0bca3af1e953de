"""The window: places the panels, holds menus and shortcuts, takes dropped files. Decides nothing. UI thread."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QByteArray, Qt, QTimer, Signal
from PySide6.QtGui import (
    QAction,
    QActionGroup,
    QCloseEvent,
    QDragEnterEvent,
    QDropEvent,
    QKeySequence,
    QPaintEvent,
    QPalette,
    QResizeEvent,
)
from PySide6.QtWidgets import QMainWindow, QSplitter, QTabWidget, QVBoxLayout, QWidget

from kvdesk.backend.preferences import THEMES, WindowState
from kvdesk.ui.chat.composer import Composer
from kvdesk.ui.chat.conversation_list import ConversationList
from kvdesk.ui.chat.sampling_panel import SamplingPanel
from kvdesk.ui.chat.transcript import Transcript
from kvdesk.ui.memory.memory_dock import MemoryDock
from kvdesk.ui.panels.crash_card import CrashCard
from kvdesk.ui.panels.model_bar import ModelBar
from kvdesk.ui.panels.options_card import OptionsCard
from kvdesk.ui.settings.settings_panel import SettingsPanel
from kvdesk.ui.widgets.icons import app_icon
from kvdesk.ui.widgets.theme import Theme

NARROW_PX = 1120
"""Below this width the list of conversations makes room for chat and memory."""


class MainWindow(QMainWindow):
    """All panels are its attributes; what they mean to each other is joined in ui/shell/application.py."""

    model_dropped = Signal(str)
    open_model_requested = Signal()
    import_requested = Signal()
    export_requested = Signal(str)
    """Export the open conversation as "markdown" or "json"."""
    logs_requested = Signal()
    copy_report_requested = Signal()
    profile_requested = Signal()
    theme_chosen = Signal(str)
    painted = Signal()
    """All of the window has been painted for the first time."""
    close_requested = Signal()
    """The user closes the window; the owner answers with ``really_close``."""

    def __init__(self, theme: Theme, theme_name: str) -> None:
        super().__init__()
        self._may_close = self._is_painted = False
        self._list_wanted = True
        self.setWindowTitle("kvdesk")
        self.setWindowIcon(app_icon())
        self.setAcceptDrops(True)
        self.setMinimumSize(760, 520)
        self.resize(1440, 900)
        self.model_bar = ModelBar(theme)
        self.conversation_list = ConversationList(theme)
        self.transcript = Transcript(theme)
        self.options_card = OptionsCard(theme)
        self.growth_card = OptionsCard(theme)
        self.crash_card = CrashCard(theme)
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
            self.composer,
            self.memory_dock,
            self.settings_panel,
            self.sampling_panel,
        )
        self._build_layout()
        self._build_menus(theme_name)

    # --- building ---------------------------------------------------------------------------------------------------

    def _build_layout(self) -> None:
        chat = QWidget()
        chat.setBackgroundRole(QPalette.ColorRole.Base)  # one surface from the first message to the composer
        chat.setAutoFillBackground(True)
        column = QVBoxLayout(chat)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.transcript, 1)
        cards = QVBoxLayout()
        cards.setContentsMargins(8, 0, 8, 8)
        cards.setSpacing(8)
        cards.addWidget(self.crash_card)
        cards.addWidget(self.growth_card)
        cards.addWidget(self.options_card)
        self.crash_card.hide()
        self.growth_card.hide()
        self.options_card.hide()
        column.addLayout(cards)
        column.addWidget(self.composer)
        self._settings_tabs = QTabWidget()
        self._settings_tabs.setDocumentMode(True)
        self._settings_tabs.addTab(self.settings_panel, self.tr("Model settings"))
        self._settings_tabs.addTab(self.sampling_panel, self.tr("Chat settings"))
        self._side = QSplitter(Qt.Orientation.Vertical)
        self._side.addWidget(self.memory_dock)
        self._side.addWidget(self._settings_tabs)
        self._side.setStretchFactor(0, 3)
        self._side.setStretchFactor(1, 2)
        self._columns = QSplitter(Qt.Orientation.Horizontal)
        for index, (widget, stretch) in enumerate(((self.conversation_list, 0), (chat, 1), (self._side, 0))):
            self._columns.addWidget(widget)
            self._columns.setStretchFactor(index, stretch)
            self._columns.setCollapsible(index, False)
        self._columns.setSizes([240, 740, 460])
        self._side.setSizes([600, 300])
        page = QWidget()
        rows = QVBoxLayout(page)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(0)
        rows.addWidget(self.model_bar)
        rows.addWidget(self._columns, 1)
        self.setCentralWidget(page)

    def _build_menus(self, theme_name: str) -> None:
        file = self.menuBar().addMenu(self.tr("&File"))
        file.addAction(self.conversation_list.new_action)
        file.addAction(self._action(self.tr("&Open model..."), "Ctrl+O", self.open_model_requested.emit))
        file.addAction(self._action(self.tr("E&ject model"), "", self.model_bar.eject_requested.emit))
        file.addSeparator()
        file.addAction(self._action(self.tr("&Import conversation..."), "", self.import_requested.emit))
        file.addAction(
            self._action(self.tr("Export as &Markdown..."), "", lambda: self.export_requested.emit("markdown"))
        )
        file.addAction(self._action(self.tr("Export as &JSON..."), "", lambda: self.export_requested.emit("json")))
        file.addSeparator()
        file.addAction(self._action(self.tr("&Quit"), "Ctrl+Q", self.close))
        chat = self.menuBar().addMenu(self.tr("&Chat"))
        chat.addAction(self.composer.stop_action)
        chat.addAction(self.conversation_list.search_action)
        chat.addAction(self._action(self.tr("&Settings"), "Ctrl+,", self.show_settings))
        view = self.menuBar().addMenu(self.tr("&View"))
        self.list_action = self._action(self.tr("&Conversations"), "Ctrl+B", self._on_list_toggled)
        self.list_action.setCheckable(True)
        self.list_action.setChecked(True)
        self.side_action = self._action(self.tr("&Memory and settings"), "Ctrl+M", self._on_side_toggled)
        self.side_action.setCheckable(True)
        self.side_action.setChecked(True)
        view.addAction(self.list_action)
        view.addAction(self.side_action)
        compact = self._action(self.tr("&Compact memory view"), "", self.memory_dock.set_compact)
        compact.setCheckable(True)
        view.addAction(compact)
        themes = view.addMenu(self.tr("&Theme"))
        group = QActionGroup(self)
        for name, words in zip(THEMES, (self.tr("System"), self.tr("Light"), self.tr("Dark")), strict=True):
            action = self._action(words, "", lambda name=name: self.theme_chosen.emit(name))
            action.setCheckable(True)
            action.setChecked(name == theme_name)
            group.addAction(action)
            themes.addAction(action)
        memory = self.menuBar().addMenu(self.tr("&Memory"))
        memory.addAction(self._action(self.tr("Session &logs..."), "Ctrl+L", self.logs_requested.emit))
        memory.addAction(self._action(self.tr("Context &profile..."), "", self.profile_requested.emit))
        memory.addAction(self._action(self.tr("Copy &report"), "Ctrl+Shift+R", self.copy_report_requested.emit))

    def _action(self, text: str, shortcut: str, slot: object) -> QAction:
        action = QAction(text, self)
        if shortcut:
            action.setShortcut(QKeySequence(shortcut))
        action.triggered.connect(slot)
        return action

    # --- what it is told ---------------------------------------------------------------------------------------------

    def show_settings(self) -> None:
        """Bring the settings forward."""
        self.side_action.setChecked(True)
        self._on_side_toggled()
        self._settings_tabs.setCurrentWidget(self.settings_panel)
        self.settings_panel.setFocus()

    def set_theme(self, theme: Theme) -> None:
        """Hand the theme on to every panel."""
        for widget in self._themed:
            widget.set_theme(theme)

    def restore(self, state: WindowState) -> None:
        """Stand where the window stood."""
        if state.geometry:
            self.restoreGeometry(QByteArray.fromBase64(state.geometry.encode()))
        sizes, _, side = state.layout.partition(";")
        if side:
            self._columns.setSizes([int(n) for n in sizes.split(",")])
            self._side.setSizes([int(n) for n in side.split(",")])

    def window_state(self, conversation_id: str) -> WindowState:
        """Where it stands now."""
        layout = ";".join(",".join(str(n) for n in split.sizes()) for split in (self._columns, self._side))
        return WindowState(bytes(self.saveGeometry().toBase64().data()).decode(), layout, conversation_id)

    def really_close(self) -> None:
        """Close without asking again."""
        self._may_close = True
        self.close()

    # --- Qt's calls ---------------------------------------------------------------------------------------------------

    def _on_list_toggled(self) -> None:
        self._list_wanted = self.list_action.isChecked()
        self.conversation_list.setVisible(self._list_wanted)

    def _on_side_toggled(self) -> None:
        self._side.setVisible(self.side_action.isChecked())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """A narrow window keeps chat and memory and lets the list go until there is room again."""
        super().resizeEvent(event)
        self.conversation_list.setVisible(self._list_wanted and self.width() >= NARROW_PX)

    def paintEvent(self, event: QPaintEvent) -> None:
        """The children follow in the same pass, so that all is on the screen when the event loop comes round."""
        super().paintEvent(event)
        if not self._is_painted:
            self._is_painted = True
            QTimer.singleShot(0, self.painted.emit)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Models are welcome anywhere."""
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
