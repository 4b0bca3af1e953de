"""Model and settings on screen: opens, has them priced first, asks where they do not fit, loads, applies. UI thread.

Renders the session's state into the widgets about it. What a setting costs is ui/controllers/plan.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from kvdesk.backend.engine.engine_event import Died, EngineState
from kvdesk.backend.gguf.model_file import ModelFile, read_model_file
from kvdesk.backend.planning.plan import MemoryPlan
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.session.session import Session
from kvdesk.backend.session.session_event import Change
from kvdesk.backend.session.state import AskedLoad, Choice, SessionState
from kvdesk.backend.session_log.recording import context_sentence
from kvdesk.backend.settings import EngineSettings
from kvdesk.ui.controllers.bridge import Bridge
from kvdesk.ui.controllers.plan import PlanController
from kvdesk.ui.memory.memory_dock import MemoryDock
from kvdesk.ui.panels.model_bar import ModelBar
from kvdesk.ui.panels.options_card import OptionsCard, PricedChoice, choices_of
from kvdesk.ui.settings.settings_panel import SettingsPanel

LOAD_ANYWAY = "load-anyway"
LOADED = (EngineState.READY, EngineState.GENERATING, EngineState.CHANGING)


class ModelController(QObject):
    """The chosen model, what is loaded, what is edited."""

    noticed = Signal(str, str)
    """A sentence for the transcript and its kind ("note", "warning", "error")."""

    def __init__(
        self,
        session: Session,
        plans: PlanController,
        bridge: Bridge,
        model_bar: ModelBar,
        settings_panel: SettingsPanel,
        memory_dock: MemoryDock,
        options_card: OptionsCard,
        settings_for: Callable[[ModelFile], EngineSettings],
        parent: QObject | None = None,
    ) -> None:
        """``settings_for`` gives what a model is opened with: remembered, or the defaults."""
        super().__init__(parent)
        self._session = session
        self._plans = plans
        self._bridge = bridge
        self._bar = model_bar
        self._panel = settings_panel
        self._dock = memory_dock
        self._card = options_card
        self._settings_for = settings_for
        self._wanted: Path | None = None
        self._undo: Choice | None = None
        self._connect()

    def _connect(self) -> None:
        self._bar.cancel_requested.connect(self._session.stop)
        self._bar.eject_requested.connect(self._session.eject)
        self._bar.reload_requested.connect(self.reload)
        self._bar.model_chosen.connect(lambda path: self.open(Path(path)))
        self._panel.apply_requested.connect(self.apply)
        self._panel.fit_requested.connect(self._on_fit_requested)
        self._dock.n_ctx_dragged.connect(self._panel.edit_n_ctx)
        self._dock.n_ctx_chosen.connect(self._panel.edit_n_ctx)
        self._card.choice_taken.connect(self._on_choice_taken)
        self._card.dismissed.connect(self._session.end_asking)
        self._card.undo_requested.connect(self._on_undo_requested)

    # --- opening -------------------------------------------------------------------------------------------------

    def open(self, path: Path) -> None:
        """Read the header of ``path``, price it, and load it if it fits or is clearly small; else ask."""
        self._wanted = path
        self._bridge.in_background(lambda: _read_whole(path), lambda read: self._on_header_read(path, read))

    def _on_header_read(self, path: Path, read: ModelFile | Exception) -> None:
        if isinstance(read, Exception):
            self.noticed.emit(str(read), "error")
        elif path == self._wanted:  # else another was chosen while this one's disk was slow
            self._session.ask_load(Choice(read, self._settings_for(read)))

    def reload(self, n_ctx: int | None = None) -> None:
        """Load again what was loaded, as the file is now, perhaps with another context length."""
        file = self._session.state.target.file
        if file:
            self._after_reading_again(file, lambda read: self._session.reload(n_ctx, read))

    def reload_without_gpu(self) -> None:
        """Load again what crashed, with no layer on a graphics card; the settings say so, and undo it."""
        file = self._session.state.target.file
        if file:
            self._after_reading_again(file, lambda read: self._session.reload(file=read, without_gpu=True))

    def _after_reading_again(self, file: ModelFile, then: Callable[[ModelFile], None]) -> None:
        def on_read(read: ModelFile | Exception) -> None:
            if isinstance(read, Exception):
                self.noticed.emit(str(read), "error")
            elif file is self._session.state.target.file:
                then(read)

        self._bridge.in_background(lambda: _read_again(file), on_read)

    def _on_load_priced(self, asked: AskedLoad) -> None:
        """The price of what waits to be loaded is known, or cannot be: then the engine will say why."""
        if self._session.state.asked is not asked:
            return  # something else was decided meanwhile
        if asked.problem and asked.problem.kind == "ModelFileError":
            self._session.end_asking()
            self.noticed.emit(asked.problem.sentence, "error")
        elif asked.plan and asked.plan.fits is False:
            self._ask_before_load(asked.choice, asked.plan)
        else:
            self._session.load(asked.choice)

    def _ask_before_load(self, choice: Choice, plan: MemoryPlan) -> None:
        anyway = PricedChoice(
            LOAD_ANYWAY,
            self.tr("Load anyway"),
            plan.total_bytes,
            None,
            plan.fits,
            is_risky=True,
            answer=choice.settings,
        )
        title = (
            self.tr("{0} runs slowly as set")
            if plan.verdict.kind == "runs-slowly"
            else self.tr("{0} does not fit as set")
        )
        self._card.show_choices(
            title.format(choice.file.name if choice.file else ""),
            plan.verdict.sentence,
            (*choices_of(plan.options), anyway),
        )

    # --- settings -------------------------------------------------------------------------------------------------

    def apply(self, settings: EngineSettings) -> None:
        """Put ``settings`` in force: a new context, or the model anew where the weights are concerned."""
        if not self._session.apply(settings):
            self.noticed.emit(self.tr("The engine is busy; stop the reply first, then apply."), "warning")

    def _on_fit_requested(self, _settings: EngineSettings) -> None:
        if self._plans.longest:
            self._panel.edit_n_ctx(self._plans.longest)
        elif self._session.state.file:
            self.noticed.emit(self.tr("No context length fits under the line with these settings."), "warning")

    # --- the session ------------------------------------------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        """Show what has changed, and say what a person should know of it."""
        self._render(change.before, change.now)
        asked = change.now.asked
        if asked is not change.before.asked:
            if asked is None or not asked.is_priced:
                self._hide_question()
            else:
                self._on_load_priced(asked)
        self._say(change)

    def _render(self, before: SessionState, now: SessionState) -> None:
        if now.engine is not before.engine:
            self._bar.show_state(now.engine.value)
            self._panel.show_loaded(now.engine in LOADED)
        if now.devices != before.devices or now.has_rpc != before.has_rpc:
            self._panel.show_devices(now.devices, now.has_rpc)
        if now.load_fraction != before.load_fraction:
            self._bar.show_progress(now.load_fraction)
        if now.file is not before.file:
            self._bar.show_model(now.file.name if now.file else "", str(now.file.path) if now.file else "")
        edited, edited_before = _edited(now), _edited(before)
        if edited.file is not edited_before.file:
            self._panel.show_model(edited.file)
        if edited != edited_before:
            self._panel.show_settings(edited.settings)

    def _hide_question(self) -> None:
        """Neither the question nor, once another model is asked about, the offer to undo the last answer."""
        if self._undo is None or self._session.state.asked:
            self._card.hide()
            self._undo = None

    def _say(self, change: Change) -> None:
        match change.event:
            case m.Loaded() as event if event.model.template_problem:
                self.noticed.emit(event.model.template_problem, "warning")
            case m.ContextMade() as event:
                self.noticed.emit(context_sentence(event.context), "note")
            case m.Failed() as event if event.request_id == 0:  # else a reply's: the chat says it
                self.noticed.emit(event.sentence, "note" if event.kind == "LoadCancelled" else "error")
            case Died() if not change.now.asked:
                self._undo = None
                self._card.hide()
            case _:
                pass

    # --- the card -----------------------------------------------------------------------------------------------------

    def _on_choice_taken(self, choice: PricedChoice) -> None:
        asked = self._session.state.asked
        if asked and isinstance(choice.answer, EngineSettings):
            self._undo = asked.choice
            self._card.show_taken(choice)
            self._session.load(Choice(asked.choice.file, choice.answer))

    def _on_undo_requested(self) -> None:
        if self._undo:
            undone, self._undo = self._undo, None
            self._session.stop()
            self._session.ask_load(undone)


def _read_whole(path: Path) -> ModelFile:
    """The header of ``path``. Raises ModelFileError also for a model whose weights are not all there: no price is needed
    to know that it cannot be loaded."""
    file = read_model_file(path)
    file.check_loadable()
    return file


def _read_again(file: ModelFile) -> ModelFile:
    return file if file.is_current() else _read_whole(file.path)


def _edited(state: SessionState) -> Choice:
    """What the panel's settings are for: the load that is asked about, else what is in force."""
    return state.asked.choice if state.asked else state.target
