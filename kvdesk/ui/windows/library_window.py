"""The model library's window: models on this machine, models on the hub, downloads. UI thread; decides nothing."""

from __future__ import annotations

from PySide6.QtWidgets import QDialog, QTabWidget, QVBoxLayout, QWidget

from kvdesk.ui.widgets.theme import Theme
from kvdesk.ui.windows.download_rows import DownloadRows
from kvdesk.ui.windows.first_page import FirstPage
from kvdesk.ui.windows.hub_page import HubPage
from kvdesk.ui.windows.local_models_page import LocalModelsPage


class LibraryWindow(QDialog):
    """Not modal: the chat goes on beside it. Its pages are its attributes."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Models"))
        self.resize(1180, 720)
        self.first = FirstPage()
        self.local = LocalModelsPage(theme)
        self.hub = HubPage(theme)
        self.downloads = DownloadRows()
        self.pages = QTabWidget()
        self.pages.setDocumentMode(True)
        self.pages.setAccessibleName(self.tr("Models"))
        self.pages.addTab(self.local, self.tr("On this computer"))
        self.pages.addTab(self.hub, self.tr("Find models"))
        self.pages.addTab(self.first, self.tr("First steps"))
        self.first.search_requested.connect(self.show_hub)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 12, 12, 12)
        layout.addWidget(self.pages, 1)
        layout.addWidget(self.downloads)

    def show_hub(self) -> None:
        """Bring the search forward."""
        self.pages.setCurrentWidget(self.hub)
        self.hub.field.setFocus()

    def show_first(self) -> None:
        """Bring the offers for newcomers forward."""
        self.pages.setCurrentWidget(self.first)

    def set_theme(self, theme: Theme) -> None:
        """Give every page the theme's colours."""
        self.local.table.set_theme(theme)
        self.hub.set_theme(theme)
