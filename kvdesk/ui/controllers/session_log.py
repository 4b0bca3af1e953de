"""The session logs on screen: reads and exports them in the background for their window. UI thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFileDialog, QWidget

from kvdesk.backend.session_log import export, reader, report
from kvdesk.backend.session_log.recorder import Recorder
from kvdesk.ui.controllers.bridge import Bridge
from kvdesk.ui.widgets.theme import Theme
from kvdesk.ui.windows.session_log_window import SessionLogWindow


class SessionLogController(QObject):
    """Opens the window when it is asked for the first time."""

    noticed = Signal(str, str)

    def __init__(self, folder: Path, recorder: Recorder, bridge: Bridge, owner: QWidget, theme: Theme) -> None:
        super().__init__(owner)
        self._folder = folder
        self._recorder = recorder
        self._bridge = bridge
        self._owner = owner
        self._theme = theme
        self._window: SessionLogWindow | None = None
        self._wanted: Path | None = None

    def show(self, path: Path | None = None) -> None:
        """Bring the window up, with what is on record now; ``path`` is the session to choose."""
        self._wanted = path
        if self._window is None:
            self._window = window = SessionLogWindow(self._theme, self._owner)
            window.session_chosen.connect(self._on_session_chosen)
            window.export_requested.connect(self._on_export_requested)
            window.copy_report_requested.connect(self._copy)
            window.delete_requested.connect(self._on_delete_requested)
            window.refresh_requested.connect(self._refresh)
        self._window.show()
        self._window.raise_()
        self._refresh()

    @property
    def window(self) -> SessionLogWindow | None:
        """The window, once it was opened."""
        return self._window

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        if self._window:
            self._window.set_theme(theme)

    def copy_report(self) -> None:
        """Put a report of this session on the clipboard."""
        self._recorder.flush(0)
        self._copy(self._recorder.path)

    def look_for_unclean(self) -> None:
        """Say if the last session was killed, and offer its log."""
        self._bridge.in_background(lambda: reader.last_unclean_session(self._folder), self._on_unclean)

    unclean_found = Signal(reader.SessionSummary)
    """SessionSummary of a session that was killed."""

    def _on_unclean(self, found: Any) -> None:
        if found is not None and not isinstance(found, Exception):
            self.unclean_found.emit(found)

    def _refresh(self) -> None:
        def show(sessions: Any) -> None:
            if self._window and not isinstance(sessions, Exception):
                self._window.show_sessions(sessions)
                if self._wanted:
                    self._window.choose(self._wanted)
                    self._wanted = None

        self._bridge.in_background(lambda: reader.list_sessions(self._folder), show)

    def _on_session_chosen(self, path: Path) -> None:
        def show(session: Any) -> None:
            if not self._window:
                return
            if isinstance(session, Exception):
                self._window.show_problem(path, str(session))
            else:
                self._window.show_session(session)

        self._bridge.in_background(lambda: _read(path), show)

    def _on_export_requested(self, path: Path, kind: str) -> None:
        name, _ = QFileDialog.getSaveFileName(self._window, self.tr("Export session"), f"{Path(path).stem}.{kind}")
        if name:
            self.export(Path(path), kind, Path(name))

    def export(self, path: Path, kind: str, target: Path) -> None:
        """Write the session at ``path`` to ``target``. Reading and writing are done in the background, pictures here."""

        def done(result: Any) -> None:
            if isinstance(result, Exception):
                self.noticed.emit(str(result), "error")
            else:
                self.noticed.emit(self.tr("Exported to {0}").format(target), "note")

        def draw(session: Any) -> None:
            if isinstance(session, Exception):
                done(session)
                return
            from kvdesk.ui.windows.session_sheet import picture, write_picture

            content = picture(session, kind)
            self._bridge.in_background(lambda: write_picture(content, target), done)

        if kind in export.FORMATS:
            self._bridge.in_background(lambda: export.export(reader.open_session(path), kind, target), done)
        else:
            self._bridge.in_background(lambda: _read(path), draw)

    def _copy(self, path: Path) -> None:
        def done(text: Any) -> None:
            if isinstance(text, Exception):
                self.noticed.emit(str(text), "error")
            else:
                QGuiApplication.clipboard().setText(text)
                self.noticed.emit(self.tr("The report is on the clipboard."), "note")

        self._bridge.in_background(lambda: report.report(reader.open_session(path)), done)

    def _on_delete_requested(self, path: Path) -> None:
        def delete() -> None:
            for file in (path, *reader.companions(path)):
                file.unlink(missing_ok=True)

        def done(result: Any) -> None:
            if isinstance(result, OSError):
                words = self.tr("The session {0} cannot be deleted: {1}. Check the rights of its folder.")
                self.noticed.emit(words.format(path.stem, result.strerror or result), "error")
            self._refresh()

        self._bridge.in_background(delete, done)


def _read(path: Path) -> reader.Session:
    """The session with its columns, which are slow to make: not for the UI thread."""
    session = reader.open_session(path)
    _ = session.columns
    return session
