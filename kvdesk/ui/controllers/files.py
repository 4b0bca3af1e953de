"""Files that people choose or drop: a model, a conversation to import or export, texts for the composer. UI thread."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QObject, QUrl, Signal
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QFileDialog, QMessageBox

from kvdesk.backend import text_file
from kvdesk.ui.controllers.bridge import Bridge
from kvdesk.ui.controllers.conversations import ConversationsController
from kvdesk.ui.controllers.open_conversation import OpenConversation
from kvdesk.ui.shell.main_window import MainWindow
from kvdesk.ui.widgets.plain_text import message_box


class FilesController(QObject):
    """Asks for the file and hands its path, or what stands in it, on."""

    noticed = Signal(str, str)
    model_chosen = Signal(Path)

    def __init__(
        self,
        window: MainWindow,
        bridge: Bridge,
        keeper: ConversationsController,
        opened: OpenConversation,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._window = window
        self._bridge = bridge
        self._keeper = keeper
        window.model_dropped.connect(lambda path: self.model_chosen.emit(Path(path)))
        window.composer.model_dropped.connect(lambda path: self.model_chosen.emit(Path(path)))
        window.composer.text_files_dropped.connect(self._on_text_files_dropped)
        window.model_bar.open_requested.connect(self.choose_model)
        window.open_model_requested.connect(self.choose_model)
        window.import_requested.connect(self._on_import_requested)
        window.unsaved_bar.action_clicked.connect(lambda: self._on_export_requested(opened.id, "json"))
        window.export_requested.connect(lambda kind: self._on_export_requested(opened.id, kind))
        window.conversation_list.export_requested.connect(self._on_export_requested)
        window.transcript.link_activated.connect(self._on_link_activated)

    def choose_model(self) -> None:
        """Ask for a model's file."""
        name, _ = QFileDialog.getOpenFileName(
            self._window, self.tr("Open a model"), "", self.tr("GGUF models (*.gguf);;All files (*)")
        )
        if name:
            self.model_chosen.emit(Path(name))

    def _on_text_files_dropped(self, names: list[str]) -> None:
        def read() -> str:
            return "\n\n".join(text_file.quoted(Path(name).name, text_file.read_text(Path(name))) for name in names)

        def show(text: str | Exception) -> None:
            if isinstance(text, Exception):
                self.noticed.emit(str(text), "error")
            else:
                self._window.composer.insert_text(text)

        self._bridge.in_background(read, show)

    def _on_import_requested(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self._window, self.tr("Import a conversation"), "", "JSON (*.json)")
        if name:
            self._keeper.import_file(Path(name))

    def _on_export_requested(self, conversation_id: str, kind: str) -> None:
        ending = "md" if kind == "markdown" else "json"
        title = self.tr("Export the conversation")
        name, _ = QFileDialog.getSaveFileName(self._window, title, f"conversation.{ending}")
        if name:
            self._keeper.export(conversation_id, kind, Path(name))

    def _on_link_activated(self, url: str) -> None:
        box = message_box(self._window, self.tr("Open this address in the browser?"), url)
        box.setStandardButtons(QMessageBox.StandardButton.Open | QMessageBox.StandardButton.Cancel)
        box.accepted.connect(lambda: QDesktopServices.openUrl(QUrl(url)))
        box.open()
