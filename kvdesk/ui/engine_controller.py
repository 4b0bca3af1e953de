"""Model and settings on screen: opens, prices first, loads, applies, answers growth, survives a death. UI thread.

Joins engine, planner and the widgets about them. What a setting costs is the planner's; what fits is plan.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from kvdesk.backend import messages as m
from kvdesk.backend import planner as p
from kvdesk.backend.calibration import Comparison
from kvdesk.backend.engine import BUSY, Died, Engine, EngineEvent, EngineState, FellBack, StateChanged
from kvdesk.backend.model_file import ModelFile, read_model_file
from kvdesk.backend.plan import MemoryPlan, domain_name
from kvdesk.backend.settings import ContextSettings, EngineSettings
from kvdesk.ui.bridge import Bridge
from kvdesk.ui.memory.memory_dock import MemoryDock
from kvdesk.ui.model_bar import ModelBar
from kvdesk.ui.numbers import format_ms, format_tokens
from kvdesk.ui.options_card import OptionsCard, PricedChoice, choices_of
from kvdesk.ui.settings_panel import SettingsPanel

LOAD_ANYWAY = "load-anyway"
CURVE_TYPES = (("f16", "f16"), ("q8_0", "q8_0"), ("q4_0", "q4_0"))
CAPACITY_SEQUENCES = (1, 2, 4, 8, 16)
CAPACITY_LENGTHS = (2048, 4096, 8192, 16384, 32768)
SHORTEST_OFFERED = 1024
CURVE_DELAY_MS = 250
"""The curve follows edits a little later than the price."""


class EngineController(QObject):
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
    """engine.Died."""
    smaller_priced = Signal(int, object, object)
    """After a death: a shorter context length, its total in bytes, whether it fits."""
    applied = Signal(str, object)
    """A model path and the EngineSettings in force for it: to be remembered."""

    def __init__(
        self,
        engine: Engine,
        planner: p.Planner,
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
        self._planner = planner
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
        self.context: m.ContextFacts | None = None
        self.devices: tuple[m.Device, ...] = ()
        self._plan: MemoryPlan | None = None
        self._full_plan: MemoryPlan | None = None
        self._waiting: tuple[ModelFile, EngineSettings] | None = None
        self._options: tuple[EngineSettings, ...] = ()
        self._wait_plan_id = 0
        self._edit_plan_id = 0
        self._smaller_id = 0
        self._undo: tuple[ModelFile, EngineSettings] | None = None
        self._before: tuple[ModelFile | None, EngineSettings] | None = None
        self._is_comparison_due = False
        self._curve_timer = QTimer(self, singleShot=True, interval=CURVE_DELAY_MS)
        self._curve_timer.timeout.connect(self._ask_curve)
        self._connect()

    def _connect(self) -> None:
        self._bar.cancel_requested.connect(self._engine.stop)
        self._bar.eject_requested.connect(self.eject)
        self._bar.reload_requested.connect(self.reload)
        self._bar.model_chosen.connect(lambda path: self.open(Path(path)))
        self._panel.settings_edited.connect(self._price)
        self._panel.apply_requested.connect(self.apply)
        self._panel.fit_requested.connect(self._on_fit_requested)
        self._dock.n_ctx_dragged.connect(self._panel.edit_n_ctx)
        self._dock.n_ctx_chosen.connect(self._panel.edit_n_ctx)
        self._card.choice_taken.connect(self._on_choice_taken)
        self._card.dismissed.connect(self._on_card_dismissed)
        self._card.undo_requested.connect(self._on_undo_requested)

    # --- opening -------------------------------------------------------------------------------------------------

    def open(self, path: Path) -> None:
        """Read the header of ``path``, price it, and load it if it fits or is clearly small; else ask."""
        self._bridge.in_background(lambda: read_model_file(path), self._on_header_read)

    def _on_header_read(self, read: ModelFile | Exception) -> None:
        if isinstance(read, Exception):
            self.noticed.emit(str(read), "error")
            return
        self._ask_to_load(read, self._settings_for(read))

    def _ask_to_load(self, file: ModelFile, settings: EngineSettings) -> None:
        """Price ``file`` with ``settings``; the answer decides."""
        self._waiting = (file, settings)
        self._card.hide()
        self._panel.show_model(file)
        self._panel.show_settings(settings)
        self._wait_plan_id = self._planner.plan(file.path, settings)

    def _on_plan_for_load(self, plan: MemoryPlan | None) -> None:
        """The price of what waits to be loaded is known, or cannot be (None: the engine will say why)."""
        assert self._waiting
        file, settings = self._waiting
        if plan and plan.fits is False:
            self._ask_before_load(file, plan)
            return
        self._load(file, settings)

    def _ask_before_load(self, file: ModelFile, plan: MemoryPlan) -> None:
        self._options = tuple(option.settings for option in plan.options)
        anyway = PricedChoice(LOAD_ANYWAY, self.tr("Load anyway"), plan.total_bytes, 0, plan.fits, is_risky=True)
        self._card.show_choices(
            self.tr("{0} does not fit as set").format(file.name),
            plan.verdict.sentence,
            (*choices_of(plan.options), anyway),
        )

    def _load(self, file: ModelFile, settings: EngineSettings) -> None:
        self._waiting = None
        self._before = (self.file, self.settings) if self._engine.state is EngineState.READY else None
        self.file, self.settings = file, settings
        self._bar.show_model(file.name, str(file.path))
        if settings.model.rpc_servers:
            self._planner.let_go()
        self.happened.emit(
            "load",
            self.tr("Loading {0}").format(file.name),
            {"model": file.name, "path": str(file.path), "settings": settings.to_dict()},
        )
        if self.context is None:
            self.model_gone.emit(self.tr("The model is being loaded."))
        self._engine.load(file.path, settings)

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
        self._engine.send(m.Unload())

    # --- settings -------------------------------------------------------------------------------------------------

    def apply(self, settings: EngineSettings) -> None:
        """Put ``settings`` in force: a new context, or the model anew where the weights are concerned."""
        if not self.file:
            self._panel.show_settings(settings)
            self.settings = settings
            return
        if self._engine.state in BUSY:
            self.noticed.emit(self.tr("The engine is busy; stop the reply first, then apply."), "warning")
            return
        self._before = (self.file, self.settings)
        if settings.model != self.settings.model or self._engine.state is not EngineState.READY:
            self._panel.show_settings(settings)
            self._load(self.file, settings)
        else:
            self.settings = settings
            self._engine.send(m.SetContext(settings.context))

    def reprice(self) -> None:
        """What the edited settings are held against has changed (the margin)."""
        self._price(self._panel.edited)

    def _price(self, settings: EngineSettings) -> None:
        target = self._waiting[0] if self._waiting else self.file
        if target:
            self._edit_plan_id = self._planner.plan(target.path, settings)
            self._curve_timer.start()

    def _ask_curve(self) -> None:
        target = self._waiting[0] if self._waiting else self.file
        if target:
            edited = self._panel.edited
            pair = (edited.context.type_k, edited.context.type_v)
            types = CURVE_TYPES if pair in CURVE_TYPES else (*CURVE_TYPES, pair)
            self._planner.curve(target.path, edited, types)

    def _on_fit_requested(self, _settings: EngineSettings) -> None:
        if self._plan and self._plan.max_n_ctx:
            self._panel.edit_n_ctx(self._plan.max_n_ctx)
        elif self.file:
            self.noticed.emit(self.tr("No context length fits under the line with these settings."), "warning")

    # --- the planner's answers -------------------------------------------------------------------------------------

    def on_plan_event(self, event: p.PlanEvent) -> None:
        """Show a price, or decide what waited for it."""
        match event:
            case p.PlanReady():
                self._on_plan_ready(event)
            case p.CurveReady():
                edited = self._panel.edited.context
                self._dock.show_curves(event.curves, edited.type_k, edited.type_v)
            case p.KvTableReady():
                sizes = {(n, kind): size for n, row in event.table.items() for kind, size in row.items()}
                self._dock.explain_view.show_kv_sizes(sizes, self.file.n_ctx_train if self.file else None)
            case p.CapacityReady():
                self._dock.explain_view.show_capacity(event.cells)
            case p.Compared():
                self._on_compared(event.comparison)
            case p.PlanFailed():
                self._on_plan_failed(event)
            case _:
                pass

    def _on_compared(self, comparison: Comparison) -> None:
        if self._full_plan:
            self._dock.show_comparison(self._full_plan, comparison, self._planner.history)
        if self._is_comparison_due:
            self._is_comparison_due = False
            self.compared.emit(comparison)

    compared = Signal(object)
    """Comparison after the first reply of a load."""

    def _price_smaller(self) -> None:
        """What a reload with half the context would take: the way out that the crash card offers."""
        n_ctx = self.settings.context.n_ctx or (self.file.n_ctx_train if self.file else 0)
        if self.file and n_ctx >= 2 * SHORTEST_OFFERED:
            context = replace(self.settings.context, n_ctx=n_ctx // 2)
            self._smaller_id = self._planner.plan(self.file.path, replace(self.settings, context=context))

    def _on_plan_ready(self, event: p.PlanReady) -> None:
        if event.request_id == self._smaller_id:
            if event.is_final:
                self.smaller_priced.emit(event.plan.n_ctx, event.plan.total_bytes, event.plan.fits)
            return
        if event.request_id == self._wait_plan_id and self._waiting and event.is_final:
            self._wait_plan_id = 0
            self._show_plan(event.plan, event.model)
            self._on_plan_for_load(event.plan)
            self._curve_timer.start()
        elif event.request_id in (self._edit_plan_id, self._wait_plan_id):
            self._show_plan(event.plan, event.model)

    def _show_plan(self, plan: MemoryPlan, model: ModelFile) -> None:
        self._plan = plan
        is_applied = plan.settings == self.settings
        if is_applied:
            self._full_plan = plan
        now = self._full_plan.total_bytes if self._full_plan and not is_applied else None
        self._panel.show_price(
            plan.total_bytes,
            plan.total_bytes - now if now is not None else None,
            plan.verdict.sentence,
            plan.fits,
            plan.verdict.alarm,
        )
        self._dock.show_plan(plan, model, is_applied)
        if is_applied:
            self.planned.emit(plan)

    planned = Signal(object)
    """MemoryPlan of the settings in force, at the full context length."""

    def _on_plan_failed(self, event: p.PlanFailed) -> None:
        if event.request_id == self._wait_plan_id and self._waiting:
            self._wait_plan_id = 0
            if event.kind == "ModelFileError":
                self._waiting = None
                self.noticed.emit(event.sentence, "error")
            else:
                self._on_plan_for_load(None)
        elif event.request_id == self._edit_plan_id:
            self._panel.show_price(None, None, event.sentence, None, "")

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
            case FellBack():
                self.settings = event.settings
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
                self._price_smaller()
            case _:
                pass

    def _on_loaded(self, event: m.Loaded) -> None:
        self._is_comparison_due = True
        self._set_context(event.context)
        self._panel.show_settings(self.settings)
        if event.model.template_problem:
            self.noticed.emit(event.model.template_problem, "warning")
        self.model_ready.emit(event.model, event.context)
        if self.file:
            self.applied.emit(str(self.file.path), self.settings)
            self._edit_plan_id = self._planner.plan(self.file.path, self.settings)
            self._planner.kv_table(self.file.path, self.settings)
            self._planner.capacity(self.file.path, self.settings, CAPACITY_SEQUENCES, CAPACITY_LENGTHS)
            self._curve_timer.start()
        self.happened.emit(
            "ready",
            self.tr("Ready after {0}").format(format_ms(event.elapsed_ms)),
            {
                "model": event.model.name,
                "elapsed_ms": event.elapsed_ms,
                "components": _components(event.context.buffers),
            },
        )

    def _on_context_made(self, context: m.ContextFacts) -> None:
        before = (self._before[1] if self._before else self.settings).context
        self._is_comparison_due = True
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
            self._edit_plan_id = self._planner.plan(self.file.path, self.settings)
            self._curve_timer.start()

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

    def _set_context(self, context: m.ContextFacts | None) -> None:
        self.context = context
        if context and context.settings != self.settings.context:
            self.settings = replace(self.settings, context=context.settings)
        self._bar.show_context(context)
        self._dock.show_context(context)
        self.context_changed.emit(context)

    def _on_gone(self, reason: str, *, keep_name: bool = False) -> None:
        self._set_context(None)
        if not keep_name:
            self.file = None
            self._bar.show_model("")
        self.model_gone.emit(reason)

    def _on_failed(self, event: m.Failed) -> None:
        if event.request_id:
            return  # a reply's: the chat says it
        if self._before and event.model_kept:
            self.file, self.settings = self._before
            self._bar.show_model(self.file.name if self.file else "", str(self.file.path) if self.file else "")
            self._panel.show_model(self.file)
            self._panel.show_settings(self.settings)
            self._price(self.settings)
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
            self._panel.show_model(self.file)
            self._panel.show_settings(self.settings)

    def _on_undo_requested(self, _key: str) -> None:
        if self._undo:
            self._engine.stop()
            self._ask_to_load(*self._undo)

    def compare(self, held: dict[str, int | None]) -> None:
        """After the first reply: hold what the engine really has against the plan, and learn from it."""
        if self.file and self.context:
            real = replace(self.settings, context=replace(self.settings.context, n_ctx=self.context.n_ctx))
            self._planner.compare(self.file.path, real, self.context.buffers, held)


def _components(buffers: Sequence[m.Buffer]) -> list[dict[str, Any]]:
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
