"""The window's menus: every action with its key, connected to the window's signals. UI thread; decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject
from PySide6.QtGui import QAction, QActionGroup, QKeySequence
from PySide6.QtWidgets import QMenu

from kvdesk.backend.preferences import THEMES
from kvdesk.ui.shell.help import about_words, show_shortcuts

if TYPE_CHECKING:
    from kvdesk.ui.shell.main_window import MainWindow


class Menus(QObject):
    """Builds the menu bar of ``window``; the actions that show a state are attributes."""

    def __init__(self, window: MainWindow, theme_name: str) -> None:
        super().__init__(window)
        self._window = window
        self._build_file()
        self._build_chat()
        self._build_view(theme_name)
        self._build_memory()
        self._build_help()

    @property
    def menus(self) -> tuple[QMenu, ...]:
        """The menus, left to right."""
        return tuple(menu for action in self._window.menuBar().actions() if isinstance(menu := action.menu(), QMenu))

    # --- building ---------------------------------------------------------------------------------------------------

    def _build_file(self) -> None:
        window, menu = self._window, self._menu(self.tr("&File"))
        menu.addAction(window.conversation_list.new_action)
        self._add(menu, self.tr("&Open model..."), "Ctrl+O", window.open_model_requested.emit)
        self._add(menu, self.tr("&Models..."), "Ctrl+Shift+O", window.library_requested.emit)
        self._add(menu, self.tr("E&ject model"), "", window.model_bar.eject_requested.emit)
        menu.addSeparator()
        self._add(menu, self.tr("&Import conversation..."), "", window.import_requested.emit)
        for kind, words in (("markdown", self.tr("Export as &Markdown...")), ("json", self.tr("Export as &JSON..."))):
            self._add(menu, words, "", lambda kind=kind: window.export_requested.emit(kind))
        menu.addSeparator()
        self._add(menu, self.tr("&Quit"), "Ctrl+Q", window.close)

    def _build_chat(self) -> None:
        window, menu = self._window, self._menu(self.tr("&Chat"))
        menu.addAction(window.composer.stop_action)
        menu.addAction(window.conversation_list.search_action)
        self._add(menu, self.tr("Chat &settings"), "Ctrl+Shift+,", window.chat_head.open_settings)
        self._add(menu, self.tr("&Model settings"), "Ctrl+,", window.show_settings)

    def _build_view(self, theme_name: str) -> None:
        window, menu = self._window, self._menu(self.tr("&View"))
        self.list_action = self._add_check(menu, self.tr("&Conversations"), "Ctrl+B", window.show_list, checked=True)
        self.side_action = self._add_check(menu, self.tr("&Memory and settings"), "Ctrl+M", window.show_side, True)
        self._add_check(menu, self.tr("&Compact memory view"), "", window.memory_dock.set_compact)
        menu.addSeparator()
        zoom_in = self._add(menu, self.tr("Zoom &in"), "Ctrl++", lambda: window.zoom_requested.emit(1))
        zoom_in.setShortcuts([QKeySequence("Ctrl++"), QKeySequence("Ctrl+=")])  # = is + without Shift on many keyboards
        self._add(menu, self.tr("Zoom &out"), "Ctrl+-", lambda: window.zoom_requested.emit(-1))
        self._add(menu, self.tr("&Actual size"), "Ctrl+0", lambda: window.zoom_requested.emit(0))
        menu.addSeparator()
        themes = menu.addMenu(self.tr("&Theme"))
        self.theme_actions: dict[str, QAction] = {}
        group = QActionGroup(self)
        for name, words in zip(THEMES, (self.tr("System"), self.tr("Light"), self.tr("Dark")), strict=True):
            action = self._add(themes, words, "", lambda name=name: window.theme_chosen.emit(name))
            action.setCheckable(True)
            action.setChecked(name == theme_name)
            group.addAction(action)
            self.theme_actions[name] = action

    def _build_memory(self) -> None:
        window, menu = self._window, self._menu(self.tr("&Memory"))
        self.memory_action = self._add_check(
            menu, self.tr("&Plan, curve and reasons"), "Ctrl+Shift+M", window.show_memory_page
        )
        self._add(menu, self.tr("Session &logs..."), "Ctrl+L", window.logs_requested.emit)
        self._add(menu, self.tr("Context &profile..."), "", window.profile_requested.emit)
        self._add(menu, self.tr("Copy &report"), "Ctrl+Shift+R", window.copy_report_requested.emit)

    def _build_help(self) -> None:
        menu = self._menu(self.tr("&Help"))
        self._add(menu, self.tr("&Keyboard shortcuts"), "Ctrl+/", self._show_shortcuts)
        self._add(menu, self.tr("&About kvdesk"), "", self._show_about).setMenuRole(QAction.MenuRole.AboutRole)

    def _menu(self, title: str) -> QMenu:
        return self._window.menuBar().addMenu(title)

    def _add(self, menu: QMenu, text: str, shortcut: str, slot: Callable[[], object]) -> QAction:
        """An action that calls ``slot`` without arguments: ``triggered`` hands on a ``checked`` that nobody here wants."""
        action = QAction(text, self._window)
        if shortcut:
            action.setShortcut(QKeySequence(shortcut))
        action.triggered.connect(lambda _checked: slot())
        menu.addAction(action)
        return action

    def _add_check(
        self, menu: QMenu, text: str, shortcut: str, slot: Callable[[bool], object], checked: bool = False
    ) -> QAction:
        action = QAction(text, self._window)
        action.setShortcut(QKeySequence(shortcut))
        action.setCheckable(True)
        action.setChecked(checked)
        action.toggled.connect(slot)
        menu.addAction(action)
        return action

    # --- help -------------------------------------------------------------------------------------------------------

    def _show_shortcuts(self) -> None:
        show_shortcuts(self._window, self.menus)

    def _show_about(self) -> None:
        from PySide6.QtWidgets import QMessageBox

        box = QMessageBox(self._window)
        box.setWindowTitle(self.tr("About kvdesk"))
        box.setIconPixmap(self._window.windowIcon().pixmap(64, 64))
        title, text = about_words()
        box.setText(title)
        box.setInformativeText(text)
        box.open()
