"""Prices on screen: asks the planner about what waits, is in force or is edited, shows its answers. UI thread.

What a setting costs is the planner's; what fits is plan.py's; what is loaded, and when, ui/controllers/model.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from PySide6.QtCore import QObject, QTimer, Signal

from kvdesk.backend.engine.engine_event import Died
from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.planning import plan_event as e
from kvdesk.backend.planning.plan import MemoryPlan, held_against
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.session.session import Session
from kvdesk.backend.session.session_event import AskEnded, Change
from kvdesk.backend.session.state import SessionState
from kvdesk.backend.settings import CACHE_TYPES, FLASH_ATTN, EngineSettings
from kvdesk.backend.system.samples import Sample
from kvdesk.ui.memory.memory_dock import MemoryDock
from kvdesk.ui.settings.settings_panel import SettingsPanel

CURVE_TYPES = (("f16", "f16"), ("q8_0", "q8_0"), ("q4_0", "q4_0"))
LINKED_CHOICES = {"type_k type_v": CACHE_TYPES, "flash_attn": FLASH_ATTN}
SINGLE_CHOICES = {"type_k": CACHE_TYPES, "type_v": CACHE_TYPES, "flash_attn": FLASH_ATTN}
CAPACITY_SEQUENCES = (1, 2, 4, 8, 16)
CAPACITY_LENGTHS = (2048, 4096, 8192, 16384, 32768)
SHORTEST_OFFERED = 1024
CURVE_DELAY_MS = 250
"""The curve and the choices' prices follow edits a little later than the price."""


class PlanController(QObject):
    """One model's prices: of the settings in force, and of those in the panel."""

    smaller_priced = Signal(MemoryPlan)
    """After a death: what a reload with half the context would take."""

    def __init__(
        self,
        session: Session,
        settings_panel: SettingsPanel,
        memory_dock: MemoryDock,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._panel = settings_panel
        self._dock = memory_dock
        self._shown: _Shown | None = None
        """The price on screen, of what is edited."""
        self._edit_id = self._smaller_id = self._choices_id = 0
        self._curve_timer = QTimer(self, singleShot=True, interval=CURVE_DELAY_MS)
        self._curve_timer.timeout.connect(self._ask_curve)
        self._panel.settings_edited.connect(self._price)
        self._panel.link_toggled.connect(self._curve_timer.start)

    @property
    def longest(self) -> int | None:
        """The longest context under the line with the settings priced last; None when none is, or none is known yet."""
        return self._shown.plan.max_n_ctx if self._shown else None

    # --- asking ----------------------------------------------------------------------------------------------------

    @property
    def _target(self) -> ModelFile | None:
        """The model that edits are for."""
        state = self._session.state
        return state.asked.choice.file if state.asked else state.file

    def price_edited(self) -> None:
        """Ask again about what the panel shows (what it is held against has changed)."""
        self._price(self._panel.edited)

    def _price(self, settings: EngineSettings) -> None:
        target = self._target
        if target:
            self._edit_id = self._session.planner.plan(target.path, settings)
            self._curve_timer.start()

    def _price_in_force(self, state: SessionState) -> None:
        if state.file:
            self._edit_id = self._session.planner.plan(state.file.path, state.settings)
            self._curve_timer.start()

    def _price_tables(self, state: SessionState) -> None:
        """What the "Why" tab has beside the plan: KV sizes by length and type, how many conversations fit."""
        if state.file:
            planner = self._session.planner
            planner.kv_table(state.file.path, state.settings)
            planner.capacity(state.file.path, state.settings, CAPACITY_SEQUENCES, CAPACITY_LENGTHS)

    def _price_smaller(self, state: SessionState) -> None:
        """A reload with half the context: the way out that the crash card offers."""
        file, context = state.file, state.settings.context
        n_ctx = context.n_ctx or (file.n_ctx_train if file else 0)
        if file and n_ctx >= 2 * SHORTEST_OFFERED:
            smaller = replace(state.settings, context=replace(context, n_ctx=n_ctx // 2))
            self._smaller_id = self._session.planner.plan(file.path, smaller, "smaller")

    def _ask_curve(self) -> None:
        target = self._target
        if target:
            edited = self._panel.edited
            pair = (edited.context.type_k, edited.context.type_v)
            types = CURVE_TYPES if pair in CURVE_TYPES else (*CURVE_TYPES, pair)
            self._session.planner.curve(target.path, edited, types)
            self._choices_id = self._session.planner.choices(target.path, edited, self._priced_choices)

    # --- the session ------------------------------------------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        """Have priced what came into force, and show the planner's answers."""
        before, now = change.before, change.now
        if now.predicted and now.predicted is not before.predicted and now.file:
            self._show(now, now.predicted, now.file)
        match change.event:
            case m.Loaded():
                self._price_in_force(now)
                self._price_tables(now)
            case m.ContextMade():
                self._price_in_force(now)
            case m.Failed() | AskEnded() if now.target != before.target or now.asked is not before.asked:
                self._price_in_force(now)
            case Died():
                self._price_smaller(now)
            case e.PlanReady():
                self._on_plan_ready(change, change.event)
            case _:
                self._on_other_price(change)

    def _on_plan_ready(self, change: Change, event: e.PlanReady) -> None:
        asked = change.before.asked
        if event.request_id == self._smaller_id:
            if event.is_final:
                self.smaller_priced.emit(event.plan)
        elif asked and event.request_id == asked.request_id:
            self._show(change.now, event.plan, event.model)
            if event.is_final:
                self._curve_timer.start()
        elif event.request_id == self._edit_id and event.plan is not change.now.predicted:
            self._show(change.now, event.plan, event.model)

    def _on_other_price(self, change: Change) -> None:
        now = change.now
        match change.event:
            case e.ChoicesReady() as event if event.request_id == self._choices_id:
                self._show_choice_prices(event.delta_bytes)
            case e.CurveReady() as event:
                edited = self._panel.edited.context
                self._dock.show_curves(event.curves, edited.type_k, edited.type_v)
            case e.KvTableReady() as event:
                sizes = {(n, kind): size for n, row in event.table.items() for kind, size in row.items()}
                self._dock.explain_view.show_kv_sizes(sizes, now.file.n_ctx_train if now.file else None)
            case e.CapacityReady() as event:
                self._dock.explain_view.show_capacity(event.cells)
            case e.Compared() if now.predicted and now.file and now.comparison:
                history = self._session.planner.history
                self._dock.show_comparison(now.predicted, now.file, now.comparison, history)
            case e.PlanFailed() as event:
                self._on_plan_failed(event)
            case _:
                pass

    def _on_plan_failed(self, event: e.PlanFailed) -> None:
        if event.request_id == self._edit_id:
            self._panel.show_price(None, None, event.sentence, None, "")
        elif event.request_id == self._choices_id:
            self._show_choice_prices({field: dict.fromkeys(choices) for field, choices in self._priced_choices.items()})

    def _show_choice_prices(self, delta_bytes: Mapping[str, Mapping[str, int | None]]) -> None:
        for fields, prices in delta_bytes.items():
            for field in fields.split():
                self._panel.show_choice_prices(field, prices)

    @property
    def _priced_choices(self) -> Mapping[str, Sequence[str]]:
        """What a click in the panel's lists may choose, as the planner is asked for it."""
        return LINKED_CHOICES if self._panel.is_linked else SINGLE_CHOICES

    def on_sample_taken(self, sample: Sample) -> None:
        """Hold the price on screen against the machine as it is now, so that it says of the room what the chart says."""
        shown, state = self._shown, self._session.state
        if shown and shown.request_id == self._edit_id:  # else another price is on its way
            plan = held_against(shown.plan, sample.domains, state.margin_bytes)
            if (plan.verdict.sentence, plan.verdict.alarm) != (shown.plan.verdict.sentence, shown.plan.verdict.alarm):
                self._draw(state, replace(shown, plan=plan))

    def _show(self, state: SessionState, plan: MemoryPlan, model: ModelFile) -> None:
        self._draw(state, _Shown(plan, model, self._edit_id, is_applied=plan is state.predicted))

    def _draw(self, state: SessionState, shown: _Shown) -> None:
        self._shown, plan = shown, shown.plan
        now = state.predicted.total_bytes if state.predicted and not shown.is_applied else None
        self._panel.show_price(
            plan.total_bytes,
            plan.total_bytes - now if now is not None else None,
            plan.verdict.sentence,
            plan.fits,
            plan.verdict.alarm,
        )
        self._dock.show_plan(plan, shown.model, shown.is_applied)


@dataclass(frozen=True)
class _Shown:
    """A plan on screen, and the question that it answers."""

    plan: MemoryPlan
    model: ModelFile
    request_id: int
    is_applied: bool
