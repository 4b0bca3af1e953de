"""The context profile from the window: unloads the chat's model, measures on a thread with an engine of its own, and
loads the chat's model again. UI thread; measuring is backend/planning/context_profile.py's."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QFileDialog, QWidget

from kvdesk import paths
from kvdesk.backend.atomic_file import replacing
from kvdesk.backend.engine.engine import Engine
from kvdesk.backend.engine.engine_event import Died, EngineEvent, EngineState, StateChanged
from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.planning.calibration import Calibration
from kvdesk.backend.planning.context_profile import (
    ProfileEvent,
    ProfilePoint,
    ProfileProgress,
    Profiler,
    ProfileRequest,
    ProfileStopped,
    write_csv,
)
from kvdesk.backend.planning.pricer import Pricer
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.session.session import Session
from kvdesk.backend.session.session_event import Change
from kvdesk.backend.session_log.recording import Recording, Row
from kvdesk.backend.system.machine import Machine
from kvdesk.backend.system.monitor import Monitor
from kvdesk.errors import KvdeskError
from kvdesk.ui.controllers.bridge import Bridge
from kvdesk.ui.controllers.model import ModelController
from kvdesk.ui.widgets.numbers import format_ms, format_tokens
from kvdesk.ui.widgets.theme import Theme
from kvdesk.ui.windows.context_profile_window import ProfileWindow

log = logging.getLogger(__name__)

END_WAIT_S = 10.0
"""How long the window waits, when it closes, for the run and its engine to end."""


class ContextProfileController(QObject):
    """Opens the window when it is asked for; one run at a time."""

    noticed = Signal(str, str)

    def __init__(
        self,
        session: Session,
        models: ModelController,
        recording: Recording,
        monitor: Monitor,
        bridge: Bridge,
        owner: QWidget,
        theme: Theme,
    ) -> None:
        """``session`` is the chat's: its model makes way for the profile and is opened again by ``models``."""
        super().__init__(owner)
        self._session = session
        self._recording = recording
        self._models = models
        self._monitor = monitor
        self._bridge = bridge
        self._owner = owner
        self._theme = theme
        self._window: ProfileWindow | None = None
        self._run: _Run | None = None
        self._is_unloading = False
        self._may_reload = False
        self._points: list[ProfilePoint] = []
        self._stops: list[ProfileStopped] = []

    @property
    def window(self) -> ProfileWindow | None:
        """The window, once it was opened."""
        return self._window

    @property
    def is_running(self) -> bool:
        """Whether a profile is being measured, or is about to be."""
        return self._run is not None

    def show(self) -> None:
        """Bring the window up for the model that is loaded now."""
        if self._window is None:
            self._window = window = ProfileWindow(self._theme, self._owner)
            window.start_requested.connect(self.start)
            window.cancel_requested.connect(self.cancel)
            window.export_requested.connect(self._on_export_requested)
        self._window.show()
        self._window.activateWindow()
        self._show_model()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        if self._window:
            self._window.set_theme(theme)

    def start(self, cache_types: tuple[str, ...], max_n_ctx: int) -> None:
        """Measure the loaded model; refuses, in words, while the chat needs it."""
        if self._why_not() or self._run or not self._window:
            self._show_model()
            return
        state = self._session.state
        assert state.file
        request = ProfileRequest(
            state.file.path, state.settings, tuple((kind, kind) for kind in cache_types), max_n_ctx
        )
        self._run = _Run(
            state.file,
            request,
            state.margin_bytes,
            self._monitor,
            self._bridge.here(self._on_event),
            self._bridge.here(self._on_finished),
        )
        self._points, self._stops = [], []
        self._is_unloading = self._may_reload = True
        self._window.show_points(())
        self._window.show_running(True)
        self._window.show_words(self.tr("Unloading the chat's model, so that only the profile's is in memory…"))
        self.noticed.emit(
            self.tr("The context profile has unloaded the model; it is loaded again when the profile is over."), "note"
        )
        values = {"cache_types": list(cache_types), "max_n_ctx": max_n_ctx}
        self._recording.note(Row("note", "Context profile begins", values))
        self._session.eject()

    def cancel(self) -> None:
        """End the run soon; what was measured stays."""
        if self._run:
            self._run.cancel()

    def close(self) -> None:
        """End the run and its engine. Waits until they are gone."""
        self._may_reload = False
        if self._run:
            self._run.cancel()
            self._run.join()

    def on_change(self, change: Change) -> None:
        """Follow the chat's engine: measure once it is empty, make way when a model is opened meanwhile."""
        match change.event:
            case m.Unloaded() | Died() if self._is_unloading:
                self._is_unloading = False
                assert self._run
                self._run.begin()
            case StateChanged(now=EngineState.LOADING) if self._run and not self._is_unloading:
                self._may_reload = False
                self._run.cancel()
            case StateChanged() | m.Loaded() | m.Unloaded() if not self._run:
                self._show_model()
            case _:
                pass

    # --- inside ------------------------------------------------------------------------------------------------------

    def _show_model(self) -> None:
        if self._window and not self._run:
            file = self._session.state.file
            self._window.show_model(file.name if file else "", file.n_ctx_train if file else None, self._why_not())

    def _why_not(self) -> str:
        """Why nothing can be measured now; "" when it can."""
        state = self._session.state
        if state.is_busy or state.engine is EngineState.STARTING:
            return self.tr("The chat's engine is busy. Wait until it is done, or stop it; then start.")
        if state.engine is not EngineState.READY or not state.file:
            return self.tr("No model is loaded. Open one, then start.")
        if state.settings.model.rpc_servers:
            return self.tr("This model is spread over the network; measure it with “kvdesk profile” in a terminal.")
        return ""

    def _on_event(self, event: ProfileEvent) -> None:
        assert self._window
        match event:
            case ProfilePoint():
                self._points.append(event)
                self._window.show_points(self._points)
            case ProfileStopped():
                self._stops.append(event)
            case ProfileProgress():
                doing = (
                    self.tr("filling it, {0:.0f} %").format(event.fraction * 100)
                    if event.fraction
                    else self.tr("loading")
                )
                self._window.show_progress(
                    (event.done + event.fraction) / max(1, event.total),
                    self.tr("{0} of {1}: {2} with {3} tokens, {4}").format(
                        event.done + 1, event.total, event.type_k, format_tokens(event.n_ctx), doing
                    ),
                )

    def _on_finished(self, error: Exception | None) -> None:
        run, self._run = self._run, None
        assert run
        assert self._window
        self._monitor.set_engine(self._session.state.pid)
        self._window.show_running(False)
        words = self._summary(run) if error is None else str(error)
        self._window.show_words(words, "red" if error else "amber" if self._stops else "muted")
        self._recording.note(Row("note", "Context profile ends", {"points": len(self._points)}))
        if self._may_reload:
            self._models.open(run.path)
        self._show_model()

    def _summary(self, run: _Run) -> str:
        elapsed = format_ms(run.elapsed_s * 1000)
        n = len(self._points)
        words = (
            self.tr("Cancelled after {1}; {0} contexts are measured.")
            if run.is_cancelled
            else self.tr("{0} contexts measured in {1}.")
        )
        stops = [
            self.tr("{0} from {1} tokens on left out: {2}").format(stop.type_k, format_tokens(stop.n_ctx), stop.reason)
            for stop in self._stops
        ]
        return "\n".join((words.format(n, elapsed), *stops))

    def _on_export_requested(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self._window, self.tr("Export the profile"), "context-profile.csv")
        if name:
            self.export(Path(name))

    def export(self, target: Path) -> None:
        """Write what was measured to ``target`` as CSV."""
        points = tuple(self._points)

        def work() -> None:
            with replacing(target) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
                write_csv(points, file)

        def done(result: Any) -> None:
            if self._window:
                if isinstance(result, Exception):
                    self._window.show_words(self.tr("It cannot be written to {0}: {1}").format(target, result), "red")
                else:
                    self._window.show_words(self.tr("Exported to {0}").format(target))

        self._bridge.in_background(work, done)


class _Run:
    """One profile on a thread of its own, with an engine of its own. ``on_event`` and ``on_finished`` may be called
    from there."""

    def __init__(
        self,
        file: ModelFile,
        request: ProfileRequest,
        margin_bytes: int,
        monitor: Monitor,
        on_event: Callable[[ProfileEvent], None],
        on_finished: Callable[[Exception | None], None],
    ) -> None:
        self._file = file
        self._request = request
        self._margin_bytes = margin_bytes
        self._monitor = monitor
        self._on_event = on_event
        self._on_finished = on_finished
        self._cancelled = threading.Event()
        self._profiler: Profiler | None = None
        self._started_s = time.monotonic()
        self.elapsed_s = 0.0
        self._thread = threading.Thread(target=self._work, name="context profile", daemon=True)

    @property
    def path(self) -> Path:
        """The path of the model that is measured."""
        return self._request.path

    @property
    def is_cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancelled.is_set()

    def begin(self) -> None:
        """Start the thread that measures."""
        self._thread.start()

    def cancel(self) -> None:
        """Stop after the context that is being measured."""
        self._cancelled.set()
        if self._profiler:
            self._profiler.cancel()

    def join(self) -> None:
        """Wait until the engine is gone."""
        if self._thread.ident is not None:
            self._thread.join(END_WAIT_S)

    def _work(self) -> None:
        events: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()

        def listen(event: EngineEvent) -> None:
            if isinstance(event, StateChanged):
                self._monitor.set_engine(event.pid)  # the chart goes on: what it shows is the profile's engine
            events.put(event)

        error: Exception | None = None
        engine = Engine(listen, paths.log_dir())
        engine.margin_bytes = self._margin_bytes
        try:
            with Pricer(self._file, Calibration(paths.calibration_file()), self._margin_bytes) as pricer:
                self._profiler = Profiler(engine, events, pricer, Machine(), paths.fallback_file())
                if not self.is_cancelled:
                    for event in self._profiler.run(self._request):
                        self._on_event(event)
        except KvdeskError as problem:
            error = problem
        except Exception as problem:
            log.exception("the context profile failed")
            error = problem
        finally:
            engine.shutdown()
            self.elapsed_s = time.monotonic() - self._started_s
            self._on_finished(error)
