"""Model and settings on screen: opens, has them priced first, loads, applies, survives a death. UI thread.

Joins the engine and the widgets about it. What a setting costs is ui/controllers/plan.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal

from kvdesk.backend.engine.engine import Engine
from kvdesk.backend.engine.engine_event import BUSY, Died, EngineEvent, EngineState, FellBack, StateChanged
from kvdesk.backend.gguf.model_file import ModelFile, read_model_file
from kvdesk.backend.planning.plan import MemoryPlan, domain_name
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import Buffer, ContextFacts, Device, ModelFacts
from kvdesk.backend.settings import ContextSettings, EngineSettings
from kvdesk.ui.controllers.bridge import Bridge
from kvdesk.ui.controllers.plan import PlanController
from kvdesk.ui.memory.memory_dock import MemoryDock
from kvdesk.ui.panels.model_bar import ModelBar
from kvdesk.ui.panels.options_card import OptionsCard, PricedChoice, choices_of
from kvdesk.ui.settings.settings_panel import SettingsPanel
from kvdesk.ui.widgets.numbers import format_ms, format_tokens

LOAD_ANYWAY = "load-anyway"


class ModelController(QObject):
    """The chosen model, what is loaded, what is edited."""

    noticed = Signal(str, str)
    """A sentence for the transcript and its kind ("note", "warning", "error")."""
    happened = Signal(str, str, object)
    """For the session log and the chart: kind, sentence, values (a dict)."""
    model_ready = Signal(object, object)
    """Loaded: ModelFacts and ContextFacts."""
    model_gone = Signal(str)
    """Nothing can answer now; why."""
    context_changed = Signal(object)
    """ContextFacts of the context that exists now, or None."""
    died = Signal(object)
    """engine_event.Died."""
    applied = Signal(str, object)
    """A model path and the EngineSettings in force for it: to be remembered."""

    def __init__(
        self,
        engine: Engine,
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
        self._engine = engine
        self._plans = plans
        self._bridge = bridge
        self._bar = model_bar
        self._panel = settings_panel
        self._dock = memory_dock
        self._card = options_card
        self._settings_for = settings_for
        self.file: ModelFile | None = None
        """The model that is loaded or being loaded."""
        self.settings = EngineSettings()
        """What is loaded, or being loaded, with."""
        self.context: ContextFacts | None = None
        self._facts: ModelFacts | None = None
        self.devices: tuple[Device, ...] = ()
        self._wanted: Path | None = None
        self._waiting: tuple[ModelFile, EngineSettings] | None = None
        self._options: tuple[EngineSettings, ...] = ()
        self._undo: tuple[ModelFile, EngineSettings] | None = None
        self._before: tuple[ModelFile | None, EngineSettings] | None = None
        self._connect()

    def _connect(self) -> None:
        self._bar.cancel_requested.connect(self._engine.stop)
        self._bar.eject_requested.connect(self.eject)
        self._bar.reload_requested.connect(self.reload)
        self._bar.model_chosen.connect(lambda path: self.open(Path(path)))
        self._panel.apply_requested.connect(self.apply)
        self._panel.fit_requested.connect(self._on_fit_requested)
        self._dock.n_ctx_dragged.connect(self._panel.edit_n_ctx)
        self._dock.n_ctx_chosen.connect(self._panel.edit_n_ctx)
        self._card.choice_taken.connect(self._on_choice_taken)
        self._card.dismissed.connect(self._on_card_dismissed)
        self._card.undo_requested.connect(self._on_undo_requested)
        self._plans.load_priced.connect(self._on_load_priced)
        self._plans.unreadable.connect(self._on_unreadable)

    # --- opening -------------------------------------------------------------------------------------------------

    def open(self, path: Path) -> None:
        """Read the header of ``path``, price it, and load it if it fits or is clearly small; else ask."""
        self._wanted = path
        self._bridge.in_background(lambda: read_model_file(path), lambda read: self._on_header_read(path, read))

    def _on_header_read(self, path: Path, read: ModelFile | Exception) -> None:
        if isinstance(read, Exception):
            self.noticed.emit(str(read), "error")
        elif path == self._wanted:  # else another was chosen while this one's disk was slow
            self._ask_to_load(read, self._settings_for(read))

    def _ask_to_load(self, file: ModelFile, settings: EngineSettings) -> None:
        """Price ``file`` with ``settings``; the answer decides."""
        self._waiting = (file, settings)
        self._card.hide()
        self._panel.show_model(file)
        self._panel.show_settings(settings)
        self._plans.price_load(file, settings)

    def _on_load_priced(self, plan: MemoryPlan | None) -> None:
        """The price of what waits to be loaded is known, or cannot be (None: the engine will say why)."""
        if not self._waiting:
            return
        file, settings = self._waiting
        if plan and plan.fits is False:
            self._ask_before_load(file, plan)
            return
        self._load(file, settings)

    def _on_unreadable(self, why: str) -> None:
        self._waiting = None
        self._plans.end_waiting()
        self.noticed.emit(why, "error")

    def _ask_before_load(self, file: ModelFile, plan: MemoryPlan) -> None:
        self._options = tuple(option.settings for option in plan.options)
        anyway = PricedChoice(LOAD_ANYWAY, self.tr("Load anyway"), plan.total_bytes, None, plan.fits, is_risky=True)
        self._card.show_choices(
            self.tr("{0} does not fit as set").format(file.name),
            plan.verdict.sentence,
            (*choices_of(plan.options), anyway),
        )

    def _load(self, file: ModelFile, settings: EngineSettings) -> None:
        self._waiting = None
        self._plans.end_waiting()
        self._before = (self.file, self.settings) if self.context else None
        self._follow(file, settings)
        self._bar.show_model(file.name, str(file.path))
        if settings.model.rpc_servers:
            self._plans.let_go()
        self.happened.emit(
            "load",
            self.tr("Loading {0}").format(file.name),
            {"model": file.name, "path": str(file.path), "settings": settings.to_dict()},
        )
        self.model_gone.emit(self.tr("The model is being loaded."))
        self._end_reply()
        self._engine.load(file.path, settings)

    def _end_reply(self) -> None:
        """What is wanted now shall not wait for the end of a reply; the chat keeps what is written of it."""
        if self._engine.state is EngineState.GENERATING:
            self._engine.stop()

    def reload(self, n_ctx: int | None = None) -> None:
        """Load again what was loaded, perhaps with another context length."""
        if self.file:
            settings = self.settings
            if n_ctx:
                settings = replace(settings, context=replace(settings.context, n_ctx=n_ctx))
            self._panel.show_settings(settings)
            self._load(self.file, settings)

    def eject(self) -> None:
        """Unload the model; the process stays."""
        self._end_reply()
        self._engine.send(m.Unload())

    # --- settings -------------------------------------------------------------------------------------------------

    def apply(self, settings: EngineSettings) -> None:
        """Put ``settings`` in force: a new context, or the model anew where the weights are concerned."""
        if not self.file:
            self._panel.show_settings(settings)
            self._follow(None, settings)
            return
        if self._engine.state in BUSY:
            self.noticed.emit(self.tr("The engine is busy; stop the reply first, then apply."), "warning")
            return
        self._before = (self.file, self.settings)
        if settings.model != self.settings.model or self._engine.state is not EngineState.READY:
            self._panel.show_settings(settings)
            self._load(self.file, settings)
        else:
            self._follow(self.file, settings)
            self._engine.send(m.SetContext(settings.context))

    def _on_fit_requested(self, _settings: EngineSettings) -> None:
        if self._plans.longest:
            self._panel.edit_n_ctx(self._plans.longest)
        elif self.file:
            self.noticed.emit(self.tr("No context length fits under the line with these settings."), "warning")

    # --- the engine's events ---------------------------------------------------------------------------------------

    def on_engine_event(self, event: EngineEvent) -> None:
        """Follow the engine."""
        match event:
            case StateChanged():
                self._bar.show_state(event.now.value)
                self._panel.show_loaded(event.now in (EngineState.READY, EngineState.GENERATING, EngineState.CHANGING))
            case m.Started():
                self.devices = event.devices
                self._panel.show_devices(event.devices, event.has_rpc)
            case m.LoadProgress():
                self._bar.show_progress(event.fraction)
                self._dock.show_loading()
            case FellBack():
                self._follow(self.file, event.settings)
                self._panel.show_settings(event.settings)
                self.noticed.emit(
                    self.tr(
                        "The engine crashed in its first computation with repacked weights, which this computer cannot do. "
                        "It was started again without them; kvdesk remembers that."
                    ),
                    "warning",
                )
                self.happened.emit("warning", str(event.error), {"fell_back": True})
            case m.Loaded():
                self._on_loaded(event)
            case m.ContextMade():
                self._on_context_made(event.context)
            case m.Grown():
                self._on_grown(event)
            case m.KvChanged() | m.TurnFinished() if self.context:
                self.context = replace(self.context, kv=event.kv)
            case m.Unloaded():
                self._on_gone(self.tr("No model is loaded."))
                self.happened.emit("unload", self.tr("Unloaded"), {})
            case m.Failed():
                self._on_failed(event)
            case Died():
                self._card.hide()
                self._on_gone(self.tr("The engine died; reload to go on."), keep_name=True)
                self.happened.emit("crash", str(event.error), {"exit_code": event.error.exit_code})
                self.died.emit(event)
                self._plans.price_smaller()
            case _:
                pass

    def _on_loaded(self, event: m.Loaded) -> None:
        self._facts = event.model
        self._plans.expect_comparison()
        self._set_context(event.context)
        self._panel.show_settings(self.settings)
        if event.model.template_problem:
            self.noticed.emit(event.model.template_problem, "warning")
        self.model_ready.emit(event.model, event.context)
        if self.file:
            self.applied.emit(str(self.file.path), self.settings)
            self._plans.price_in_force()
            self._plans.price_tables()
        self.happened.emit(
            "ready",
            self.tr("Ready after {0}").format(format_ms(event.elapsed_ms)),
            {
                "model": event.model.name,
                "elapsed_ms": event.elapsed_ms,
                "components": _components(event.context.buffers),
            },
        )

    def _on_context_made(self, context: ContextFacts) -> None:
        before = (self._before[1] if self._before else self.settings).context
        self._plans.expect_comparison()
        self._set_context(context)
        self._panel.show_settings(self.settings)
        done = {
            "moved": self.tr("its {0} tokens were moved, nothing was read again"),
            "converted": self.tr("its {0} tokens were converted, nothing was read again"),
            "reread": self.tr("its {0} tokens were read again"),
            "dropped": self.tr("its tokens did not fit and will be read again with the next message"),
            "new": self.tr("it was empty"),
        }[context.how].format(format_tokens(context.kept_tokens))
        sentence = self.tr("Context recreated in {0} without reloading the weights; {1}.").format(
            format_ms(context.elapsed_ms), done
        )
        self.noticed.emit(sentence, "note")
        self.happened.emit(
            "settings",
            sentence,
            {
                "how": context.how,
                "from": _only_changed(before, context.settings),
                "to": _only_changed(context.settings, before),
                "components": _components(context.buffers),
            },
        )
        if self.file:
            self.applied.emit(str(self.file.path), self.settings)
            self._plans.price_in_force()

    def _on_grown(self, event: m.Grown) -> None:
        self._set_context(event.context)
        step = event.step
        words = (
            self.tr("Context grown from {0} to {1} tokens in {2:.0f} ms")
            if step.to_cells > step.from_cells
            else self.tr("Memory is short: context shrunk from {0} to {1} tokens in {2:.0f} ms")
        )
        sentence = words.format(format_tokens(step.from_cells), format_tokens(step.to_cells), step.ms)
        self.happened.emit(
            "grow",
            sentence,
            {
                "at_tokens": step.at_tokens,
                "from_cells": step.from_cells,
                "to_cells": step.to_cells,
                "ms": step.ms,
                "components": _components(event.context.buffers),
            },
        )

    def _follow(self, file: ModelFile | None, settings: EngineSettings) -> None:
        """``file`` is loaded, or being loaded, with ``settings`` from now on."""
        self.file, self.settings = file, settings
        self._plans.follow(file, settings)

    def _set_context(self, context: ContextFacts | None) -> None:
        self.context = context
        if context and context.settings != self.settings.context:
            self._follow(self.file, replace(self.settings, context=context.settings))
        self._bar.show_context(context)
        self._dock.show_context(context)
        self.context_changed.emit(context)

    def _on_gone(self, reason: str, *, keep_name: bool = False) -> None:
        self._set_context(None)
        if not keep_name:
            self._follow(None, self.settings)
            self._bar.show_model("")
        self.model_gone.emit(reason)

    def _on_failed(self, event: m.Failed) -> None:
        if event.request_id:
            return  # a reply's: the chat says it
        if self._before and event.model_kept:
            self._follow(*self._before)
            self._bar.show_model(self.file.name if self.file else "", str(self.file.path) if self.file else "")
            self._panel.show_model(self.file)
            self._panel.show_settings(self.settings)
            self._plans.price_in_force()
            if self._facts and self.context:
                self.model_ready.emit(self._facts, self.context)
        self._before = None
        self.noticed.emit(event.sentence, "note" if event.kind == "LoadCancelled" else "error")
        self.happened.emit("cancel" if event.kind == "LoadCancelled" else "warning", event.sentence, {})
        if not event.model_kept:
            self._on_gone(self.tr("No model is loaded."))

    # --- the card -----------------------------------------------------------------------------------------------------

    def _on_choice_taken(self, key: str) -> None:
        if self._waiting:
            file, settings = self._waiting
            chosen = settings if key == LOAD_ANYWAY else self._options[int(key)]
            self._undo = (file, settings)
            self._card.show_taken(key)
            self._panel.show_settings(chosen)
            self._load(file, chosen)

    def _on_card_dismissed(self) -> None:
        if self._waiting:
            self._waiting = None
            self._plans.end_waiting()
            self._panel.show_model(self.file)
            self._panel.show_settings(self.settings)
            self._plans.price_in_force()

    def _on_undo_requested(self, _key: str) -> None:
        if self._undo:
            self._engine.stop()
            self._ask_to_load(*self._undo)


def _components(buffers: Sequence[Buffer]) -> list[dict[str, Any]]:
    """What llama.cpp holds, as the session log names it: what is drawn of the samples after it."""
    return [
        {
            "domain": domain_name(one.device),
            "name": one.kind.value,
            "predicted_bytes": None,
            "actual_bytes": one.size_bytes,
        }
        for one in buffers
    ]


def _only_changed(settings: ContextSettings, other: ContextSettings) -> dict[str, Any]:
    """The fields of ``settings`` that ``other`` has otherwise, nested as in EngineSettings."""
    theirs = other.to_dict()
    return {"context": {name: value for name, value in settings.to_dict().items() if value != theirs[name]}}
