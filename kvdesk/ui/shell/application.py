"""The composition root: makes the backend's services and the window, connects them, runs Qt, and shuts everything down in order."""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PySide6.QtCore import QObject, QTimer, QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QApplication, QMessageBox

from kvdesk import __version__, paths
from kvdesk.backend import preferences
from kvdesk.backend.code_lexer import CodeLexer
from kvdesk.backend.conversations.snapshots import SnapshotStore
from kvdesk.backend.conversations.store import FILE_NAME
from kvdesk.backend.conversations.store_thread import StoreThread
from kvdesk.backend.engine.engine import Engine
from kvdesk.backend.library import models
from kvdesk.backend.planning.planner import Planner
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import TurnStats
from kvdesk.backend.session.session import Session
from kvdesk.backend.session.session_event import Change
from kvdesk.backend.session_log.recorder import Recorder
from kvdesk.backend.session_log.recording import Recording
from kvdesk.backend.system.machine import Machine
from kvdesk.backend.system.monitor import Monitor
from kvdesk.errors import StoreError
from kvdesk.ui.chat.code_questions import code_questions
from kvdesk.ui.controllers.bridge import Bridge
from kvdesk.ui.controllers.chat import ChatController
from kvdesk.ui.controllers.chat_settings import ChatSettingsController
from kvdesk.ui.controllers.context_profile import ContextProfileController
from kvdesk.ui.controllers.conversations import ConversationsController
from kvdesk.ui.controllers.files import FilesController
from kvdesk.ui.controllers.growth import GrowthController
from kvdesk.ui.controllers.library import LibraryController
from kvdesk.ui.controllers.memory import MemoryController
from kvdesk.ui.controllers.model import ModelController
from kvdesk.ui.controllers.model_memory import ModelMemoryController, read_recent
from kvdesk.ui.controllers.notices import NoticesController
from kvdesk.ui.controllers.open_conversation import OpenConversation
from kvdesk.ui.controllers.overflow_warning import OverflowWarningController
from kvdesk.ui.controllers.plan import PlanController
from kvdesk.ui.controllers.session_log import SessionLogController
from kvdesk.ui.panels.model_bar import RecentModel
from kvdesk.ui.shell.gc_on_ui_thread import Collector
from kvdesk.ui.shell.open_window import Opening, current_theme, dress
from kvdesk.ui.widgets.plain_text import message_box

DELETED_KEPT_S = 86400.0
"""How long a deleted conversation can still be brought back."""
STATE_DELAY_MS = 200
"""After a change of the open conversation, before that is written: clicking through the list writes once."""


class App(QObject):
    """Everything of one running kvdesk behind its window; ``close`` ends engine, threads and files in order."""

    def __init__(self, application: QApplication, opening: Opening, rpc_servers: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._application = application
        self._preferences_path = paths.config_dir() / preferences.FILE_NAME
        self._state_path = paths.config_dir() / preferences.WINDOW_FILE_NAME
        self.window = opening.window
        self.theme = opening.theme
        self.preferences = opening.preferences
        self._opening = opening
        self._collector = Collector(self)
        self._rpc_servers = rpc_servers
        self.bridge = Bridge(self)
        self._build_backend()
        self._build_controllers()
        self._connect()
        self._is_closed = False

    def _build_backend(self) -> None:
        chosen = self.preferences
        self.store = StoreThread(paths.data_dir() / FILE_NAME, paths.rescue_dirs())
        budget = chosen.snapshot_budget_bytes
        self.snapshots = SnapshotStore(paths.snapshots_dir(), budget)
        place = m.SnapshotPlace(str(paths.snapshots_dir()), budget) if budget else None
        self.monitor = Monitor(Machine().read)
        self.monitor.set_margin(chosen.margin_bytes)
        self.recorder = Recorder(
            paths.sessions_dir(), "window", __version__, {"python": sys.version.split()[0]}, chosen.log_budget_bytes
        )
        self.recording = Recording(
            self.recorder,
            self.monitor,
            self.bridge.here(self.bridge.row_written.emit),
            self.bridge.here(self.bridge.room_changed.emit),
        )
        self.monitor.add_callback(self.recording.on_sample)
        self.monitor.add_callback(self.bridge.here(self.bridge.sample_taken.emit))
        self.session = Session(self.monitor.held, chosen.margin_bytes)
        self.engine = Engine(self.session.take, paths.log_dir(), place)
        self.engine.margin_bytes = chosen.margin_bytes
        self.planner = Planner(
            self.session.take,
            lambda: self.monitor.latest.domains if self.monitor.latest else (),
            paths.calibration_file(),
            chosen.margin_bytes,
        )
        questions = code_questions()
        self.code_lexer = CodeLexer(self.bridge.here(questions.answered.emit))
        questions.asked.connect(self.code_lexer.ask)
        self.session.attach(self.engine, self.planner)
        self.session.add_listener(self.recording.on_change)
        self.session.add_listener(self.bridge.here(self.bridge.changed.emit))

    def _build_controllers(self) -> None:
        window = self.window
        self.keeper = ConversationsController(
            self.store, self.bridge, window.conversation_list, self.snapshots.size_of, self
        )
        self.model_memory = ModelMemoryController(
            self.session, self.keeper, window.model_bar, lambda: self.preferences, self._rpc_servers, self
        )
        self.opened = OpenConversation(self.keeper, self.model_memory.new_conversation, self)
        self.chat_settings = ChatSettingsController(self.opened, window.sampling_panel, self)
        self.chat = ChatController(
            self.session, self.keeper, self.opened, window.transcript, window.composer, window.conversation_list, self
        )
        self.plans = PlanController(self.session, window.settings_panel, window.memory_dock, self)
        self.models = ModelController(
            self.session,
            self.plans,
            self.bridge,
            window.model_bar,
            window.settings_panel,
            window.memory_dock,
            window.options_card,
            self.model_memory.settings_for,
            self,
        )
        self.memory = MemoryController(
            window.memory_dock,
            window.model_bar,
            window.composer,
            window.crash_card,
            self,
        )
        self.growth = GrowthController(self.session, window.growth_card, self)
        self.limits = OverflowWarningController(
            self.session, window.composer, self.opened, self.chat.token_counts, self.chat_settings, self.models, self
        )
        self.logs = SessionLogController(paths.sessions_dir(), self.recorder, self.bridge, window, self.theme)
        self.library = LibraryController(lambda: self.preferences, self.bridge, window, self.theme)
        self.profiles = ContextProfileController(
            self.session, self.models, self.recording, self.monitor, self.bridge, window, self.theme
        )
        self.notices = NoticesController(window.transcript, self.bridge, self.logs, self)
        self.files = FilesController(window, self.bridge, self.keeper, self.opened, self)
        self.listeners: Sequence[Callable[[Change], None]] = (
            self.memory.on_change,
            self.models.on_change,
            self.plans.on_change,
            self.growth.on_change,
            self.chat.on_change,
            self.limits.on_change,
            self.profiles.on_change,
            self.library.on_change,
            self.model_memory.on_change,
            self.chat_settings.on_change,
            self.notices.on_change,
        )
        """Who follows the session; their order does not matter (a test shuffles it)."""

    def _connect(self) -> None:
        window, bridge = self.window, self.bridge
        bridge.changed.connect(self._on_changed)
        bridge.row_written.connect(self.memory.on_row_written)
        bridge.room_changed.connect(self.memory.on_room_changed)
        bridge.sample_taken.connect(self.memory.on_sample_taken)
        bridge.sample_taken.connect(self.plans.on_sample_taken)
        for source in (
            self.keeper,
            self.chat,
            self.models,
            self.memory,
            self.logs,
            self.library,
            self.profiles,
            self.files,
        ):
            source.noticed.connect(self.notices.say)
        self.plans.smaller_priced.connect(
            lambda plan: window.crash_card.show_smaller(plan.n_ctx, plan.total_bytes, plan.fits)
        )
        self.chat.reply_finished.connect(self._on_reply_finished)
        self.opened.shown.connect(
            lambda: window.memory_dock.show_replies(0)
        )  # its cells are read with its next message
        self._state_timer = QTimer(self, singleShot=True, interval=STATE_DELAY_MS)
        self._state_timer.timeout.connect(self._keep_window_state)
        self.opened.shown.connect(self._state_timer.start)
        self.opened.kept.connect(lambda _: self._state_timer.start())
        self.chat_settings.sampling_chosen.connect(self.model_memory.remember_sampling)
        self.model_memory.default_sampling_changed.connect(window.sampling_panel.set_defaults)
        window.sampling_panel.set_defaults(self.preferences.sampling)
        window.settings_panel.margin_chosen.connect(self._on_margin_chosen)
        window.settings_panel.show_margin(self.preferences.margin_bytes)
        window.crash_card.reload_requested.connect(self.models.reload)
        window.crash_card.reload_smaller_requested.connect(self.models.reload)
        window.crash_card.reload_without_gpu_requested.connect(self.models.reload_without_gpu)
        window.crash_card.copy_report_requested.connect(self.logs.copy_report)
        window.crash_card.show_log_requested.connect(self._on_show_log_requested)
        window.crash_card.dismissed.connect(window.crash_card.hide)
        self.files.model_chosen.connect(self.models.open)
        window.library_requested.connect(self.library.show)
        self.library.open_requested.connect(lambda path: self.models.open(Path(path)))
        self.library.file_requested.connect(self.files.choose_model)
        self.library.starter_requested.connect(self._open_starter)
        window.transcript.models_requested.connect(self.library.show_first)
        self.library.folders_chosen.connect(lambda folders: self._save_preferences(model_folders=folders))
        self.keeper.unsaved_changed.connect(window.unsaved_bar.show_problem)
        window.logs_requested.connect(self.logs.show)
        window.profile_requested.connect(self.profiles.show)
        window.copy_report_requested.connect(self.logs.copy_report)
        window.theme_chosen.connect(self._on_theme_chosen)
        window.zoom_requested.connect(self._on_zoom_requested)
        window.close_requested.connect(self._on_close_requested)
        self._application.styleHints().colorSchemeChanged.connect(
            lambda _: self._on_theme_chosen(self.preferences.theme)
        )

    # --- starting ---------------------------------------------------------------------------------------------------

    def start(self, model: Path | None) -> None:
        """Begin: sample memory, read the store, open ``model`` or else the starter."""
        self.monitor.start()
        self.window.memory_dock.build_soon()
        self.keeper.refresh()
        if self._opening.state.conversation_id:
            self.chat.open(self._opening.state.conversation_id)
        self.keeper.keep(lambda store: store.purge_deleted(time.time() - DELETED_KEPT_S), self._drop_snapshots)
        self.model_memory.read()
        # the store answers in order: what is said from here on stands below the conversation and is not swept away by it
        self.store.submit(read_recent, self.bridge.here(lambda recent: self._after_store(recent, model)))

    def _after_store(self, recent: list[RecentModel] | Exception, model: Path | None) -> None:
        if isinstance(recent, Exception):
            self.notices.say(str(recent), "error")
        else:
            self.window.model_bar.show_recent(recent)
        self.keeper.say_rescued()
        if problem := paths.problem():
            self.notices.say(problem, "warning")
        if self._opening.problem:
            self.notices.say(self._opening.problem, "warning")
        self.logs.look_for_unclean()
        if model:
            self.models.open(model)
        else:
            self._open_starter()

    def _open_starter(self) -> None:
        self.bridge.in_background(models.starter_model, self._on_starter_found)

    def _drop_snapshots(self, conversation_ids: tuple[str, ...]) -> None:
        """Conversations that are gone for good need no kept cells."""

        def work() -> None:
            for conversation_id in conversation_ids:
                self.snapshots.delete(conversation_id)

        if conversation_ids:
            self.bridge.in_background(work, lambda _: None)

    def _on_starter_found(self, found: Path | Exception | None) -> None:
        if isinstance(found, Path):
            self.models.open(found)
        elif isinstance(found, Exception):
            self.notices.say(str(found), "error")
        else:
            self.notices.say(self.tr("Open a GGUF model to start: File, Open model, or drop it here."), "note")
            self.library.show_first()

    # --- what happens ------------------------------------------------------------------------------------------------

    def _on_changed(self, change: Change) -> None:
        """To each who follows the session; what goes wrong in one must not keep it from the others."""
        for listener in self.listeners:
            try:
                listener(change)
            except Exception as error:  # noqa: BLE001 - as Qt does with a slot's
                sys.excepthook(type(error), error, error.__traceback__)

    def _on_reply_finished(self, stats: TurnStats) -> None:
        context = self.session.state.context
        self.window.settings_panel.show_tokens_in_use(
            context.kv.cells_used if context else 0, stats.prompt_tokens_per_second
        )
        self.window.memory_dock.show_replies(sum(message.role == "assistant" for message in self.opened.path))

    def _on_margin_chosen(self, margin_bytes: int) -> None:
        self.session.set_margin(margin_bytes)
        self.plans.price_edited()
        self._save_preferences(margin_bytes=margin_bytes)

    def _on_show_log_requested(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.engine.log_path)))

    # --- theme and preferences ----------------------------------------------------------------------------------------

    def _on_theme_chosen(self, name: str) -> None:
        if name != self.preferences.theme:
            self._save_preferences(theme=name)
        self.theme = current_theme(self._application, self.preferences.theme)
        dress(self._application, self.theme, self.preferences.zoom_percent)
        self.window.set_theme(self.theme)
        self.logs.set_theme(self.theme)
        self.library.set_theme(self.theme)
        self.profiles.set_theme(self.theme)

    def _on_zoom_requested(self, direction: int) -> None:
        zoom = preferences.zoomed(self.preferences.zoom_percent, direction)
        if zoom != self.preferences.zoom_percent:
            self._save_preferences(zoom_percent=zoom)
            dress(self._application, self.theme, zoom)
            self.window.set_theme(self.theme)

    def _save_preferences(self, **changes: object) -> None:
        self.preferences = chosen = dataclasses.replace(self.preferences, **changes)  # type: ignore[arg-type]
        self.bridge.in_background(lambda: preferences.save_values(chosen, self._preferences_path), self._on_saved)

    def _keep_window_state(self) -> None:
        """Which conversation is open is kept as it changes: a window that is killed comes back with it, draft and all."""
        state = self.window.window_state(self.opened.kept_id)
        self.bridge.in_background(lambda: preferences.save_values(state, self._state_path), self._on_saved)

    def _on_saved(self, result: object) -> None:
        if isinstance(result, Exception):
            self.notices.say(str(result), "error")

    # --- ending ---------------------------------------------------------------------------------------------------------

    def _on_close_requested(self) -> None:
        if self.chat.is_replying and self.preferences.confirm_quit:
            question = self.tr("A reply is being written. Quit all the same?")
            box = message_box(self.window, question, self.tr("What is written so far is kept."))
            box.setStandardButtons(QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No)
            box.accepted.connect(self.close)
            box.open()
        else:
            self.close()

    def close(self, ended_by: str = "the user") -> None:
        """Keep everything, end the engine and all threads, close the window."""
        if self._is_closed:
            return
        self._is_closed = True
        self.chat.keep_all()
        self._state_timer.stop()
        state = self.window.window_state(self.opened.kept_id)
        self.window.hide()
        self.profiles.close()
        self.library.close()
        code_questions().asked.disconnect(self.code_lexer.ask)
        self.code_lexer.close()
        self.engine.shutdown()
        self.planner.stop()
        self.monitor.stop()
        self.bridge.close()
        try:  # after what was under way has been written
            preferences.save_values(state, self._state_path)
        except StoreError as error:  # the disk is full: no reason to stay open
            logging.getLogger(__name__).warning("%s", error)
        self.store.close()
        self.recorder.close(f"closed by {ended_by}")
        self._collector.close()
        self.window.really_close()
        self._application.quit()
