"""The model library on screen: its window shows what backend/library tells, and its wishes are done there. UI thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import QFileSystemWatcher, QObject, QTimer, QUrl, Signal
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QFileDialog, QWidget

from kvdesk.backend.engine.engine_event import EngineState
from kvdesk.backend.library.badges import Badges
from kvdesk.backend.library.first_models import FirstModel
from kvdesk.backend.library.hub.download_state import DONE, DownloadState
from kvdesk.backend.library.hub.repository import RemoteModel
from kvdesk.backend.library.library import Library
from kvdesk.backend.library.library_event import (
    BestFound,
    EntriesRead,
    FirstModelsRead,
    Found,
    HubFailed,
    LibraryEvent,
    Opened,
    Priced,
    RemotePriced,
    ScanEnded,
    TooLarge,
)
from kvdesk.backend.library.places import all_places
from kvdesk.backend.preferences import Preferences
from kvdesk.backend.session.session_event import Change
from kvdesk.errors import HubError
from kvdesk.ui.controllers.bridge import Bridge
from kvdesk.ui.widgets.theme import Theme
from kvdesk.ui.windows.library_window import LibraryWindow

BUSY = frozenset(
    {EngineState.LOADING, EngineState.WARMING, EngineState.GENERATING, EngineState.CHANGING, EngineState.MEASURING}
)
RESCAN_AFTER_MS = 1000
"""A folder that changes, changes many times within a second."""


class LibraryController(QObject):
    """Opens the window, and starts the library's threads, when it is asked for the first time."""

    open_requested = Signal(str)
    """The path of a model to load."""
    folders_chosen = Signal(tuple)
    """The person's model folders, to be kept."""
    file_requested = Signal()
    """The person has a model's file."""
    starter_requested = Signal()
    noticed = Signal(str, str)

    def __init__(self, preferences: Callable[[], Preferences], bridge: Bridge, owner: QWidget, theme: Theme) -> None:
        super().__init__(owner)
        self._preferences = preferences
        self._bridge = bridge
        self._owner = owner
        self._theme = theme
        self._window: LibraryWindow | None = None
        self._library: Library | None = None
        self._opened_when_done: set[str] = set()
        self._is_engine_busy = False
        self._watcher = QFileSystemWatcher(self)
        self._watcher.directoryChanged.connect(lambda _: self._rescan.start())
        self._rescan = QTimer(self)
        self._rescan.setSingleShot(True)
        self._rescan.setInterval(RESCAN_AFTER_MS)
        self._rescan.timeout.connect(self._scan)

    @property
    def window(self) -> LibraryWindow | None:
        """The window, once it was opened."""
        return self._window

    @property
    def library(self) -> Library:
        """The library itself; its threads start with the first question."""
        if self._library is None:
            self._library = Library(self._places, self._badges, self._bridge.here(self._on_event))
            self._library.hold_pricing(self._is_engine_busy)
        return self._library

    def show(self) -> None:
        """Bring the window up, with what is on this machine now."""
        if self._window is None:
            self._window = self._make_window()
            self.library.offer_first()
            for state in self.library.downloads.states:
                self._window.downloads.show_state(state)
        self._window.show()
        self._window.raise_()
        self._scan()

    def show_first(self) -> None:
        """Bring the window up with what a newcomer may choose from."""
        self.show()
        assert self._window is not None
        self._window.show_first()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        if self._window:
            self._window.set_theme(theme)

    def on_change(self, change: Change) -> None:
        """Leave the processor to the engine while it works: badges wait."""
        self._is_engine_busy = change.now.engine in BUSY
        if self._library:
            self._library.hold_pricing(self._is_engine_busy)

    def close(self) -> None:
        """End the library's threads; downloads go on at the next start, when they are asked to."""
        if self._library:
            self._library.close()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _make_window(self) -> LibraryWindow:
        window = LibraryWindow(self._theme, self._owner)
        first, local, hub, downloads = window.first, window.local, window.hub, window.downloads
        first.chosen.connect(self._on_first_chosen)
        first.file_requested.connect(self.file_requested)
        first.starter_requested.connect(self._on_starter_requested)
        local.open_requested.connect(self._open)
        local.reveal_requested.connect(self._on_reveal_requested)
        local.delete_requested.connect(self._on_delete_requested)
        local.folder_requested.connect(self._on_folder_requested)
        local.refresh_requested.connect(lambda: self._scan(anew=True))
        hub.search_requested.connect(self.library.search)
        hub.repository_chosen.connect(self.library.look_up)
        hub.download_requested.connect(self._on_download_requested)
        downloads.pause_requested.connect(self.library.downloads.pause)
        downloads.resume_requested.connect(self.library.downloads.resume)
        downloads.discard_requested.connect(self.library.downloads.discard)
        downloads.open_requested.connect(self._open)
        return window

    def _places(self) -> tuple[Any, ...]:
        return all_places(self._preferences().model_folders)

    def _badges(self) -> Badges:
        chosen = self._preferences()
        return Badges(chosen.engine, chosen.margin_bytes)

    def _scan(self, *, anew: bool = False) -> None:
        self.library.scan(anew=anew)

    def _watch(self, paths: list[str]) -> None:
        """Look at the folders that models lie in, so that new ones are listed as they come."""
        missing = sorted({*paths} - {*self._watcher.directories()})
        if missing:
            self._watcher.addPaths(missing)

    def _open(self, path: str) -> None:
        self.open_requested.emit(path)
        if self._window:
            self._window.hide()

    def _on_event(self, event: LibraryEvent) -> None:  # noqa: C901 - one case an event
        if self._window is None:
            return
        local, hub = self._window.local, self._window.hub
        match event:
            case FirstModelsRead(models, line_bytes, has_starter):
                self._window.first.show_models(models, line_bytes, has_starter)
            case TooLarge(model, sentence):
                self._on_too_large(model, sentence)
            case EntriesRead(entries, is_first):
                local.add(entries, is_first=is_first)
                self._watch([str(Path(entry.path).parent) for entry in entries])
            case ScanEnded(count):
                local.show_count(count)
            case Priced(path, fit):
                local.show_fit(path, fit)
            case Found(_, repositories):
                hub.show_found(repositories)
            case Opened(repository, chosen):
                hub.show_repository(repository, chosen)
            case RemotePriced(repo_id, name, fit):
                hub.show_fit(repo_id, name, fit)
            case BestFound(repo_id, name, why):
                hub.show_best(repo_id, name, why)
            case HubFailed(sentence):
                hub.show_problem(sentence)
            case DownloadState():
                self._on_download(event)

    def _on_download(self, state: DownloadState) -> None:
        assert self._window is not None
        known = {one.key for one in self.library.downloads.states}
        if state.key in known:  # else it was thrown away meanwhile
            self._window.downloads.show_state(state)
            self._window.first.show_words("")
        if state.stage == DONE:
            self._scan()
            if state.repo_id in self._opened_when_done:
                self._opened_when_done.discard(state.repo_id)
                self._open(state.path)

    def _on_first_chosen(self, model: FirstModel) -> None:
        assert self._window is not None
        self._window.first.show_words(self.tr("Reading the header of {0}, to see whether it fits…").format(model.name))
        self._opened_when_done.add(model.repo_id)
        self.library.fetch(model.remote)

    def _on_too_large(self, model: RemoteModel, sentence: str) -> None:
        assert self._window is not None
        self._opened_when_done.discard(model.repo_id)
        words = self.tr("{0} was not downloaded: {1}. Close other programs, or take a smaller one.")
        self._window.first.show_words(words.format(model.name, sentence))

    def _on_starter_requested(self) -> None:
        self.starter_requested.emit()
        if self._window:
            self._window.hide()

    def _on_download_requested(self, model: RemoteModel) -> None:
        try:
            self.library.downloads.start(model)
        except HubError as error:
            if self._window:
                self._window.hub.show_problem(str(error))

    def _on_reveal_requested(self, path: str) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(Path(path).parent)))

    def _on_delete_requested(self, path: str) -> None:
        def done(result: int | Exception) -> None:
            if isinstance(result, Exception):
                self.noticed.emit(str(result), "error")
            self._scan()

        library = self.library
        self._bridge.in_background(lambda: library.delete(Path(path)), done)

    def _on_folder_requested(self) -> None:
        folder = QFileDialog.getExistingDirectory(self._window, self.tr("Add a folder with models"))
        if folder:
            self.add_folder(folder)

    def add_folder(self, folder: str) -> None:
        """Look for models there too, from now on."""
        folders = self._preferences().model_folders
        if folder not in folders:
            self.folders_chosen.emit((*folders, folder))
        self._scan()
