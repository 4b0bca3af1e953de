"""Prices on screen: asks the planner about what waits, is in force or is edited, shows its answers. UI thread.

What a setting costs is the planner's; what fits is plan.py's; what is loaded, and when, ui/controllers/model.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from PySide6.QtCore import QObject, QTimer, Signal

from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.planning import plan_event as e
from kvdesk.backend.planning.plan import MemoryPlan
from kvdesk.backend.planning.planner import Planner
from kvdesk.backend.protocol.facts import Buffer
from kvdesk.backend.settings import CACHE_TYPES, FLASH_ATTN, EngineSettings
from kvdesk.ui.memory.memory_dock import MemoryDock
from kvdesk.ui.settings.settings_panel import SettingsPanel

CURVE_TYPES = (("f16", "f16"), ("q8_0", "q8_0"), ("q4_0", "q4_0"))
PRICED_CHOICES = {"type_k": CACHE_TYPES, "type_v": CACHE_TYPES, "flash_attn": FLASH_ATTN}
CAPACITY_SEQUENCES = (1, 2, 4, 8, 16)
CAPACITY_LENGTHS = (2048, 4096, 8192, 16384, 32768)
SHORTEST_OFFERED = 1024
CURVE_DELAY_MS = 250
"""The curve and the choices' prices follow edits a little later than the price."""


class PlanController(QObject):
    """One model's prices: of the settings in force, and of those in the panel."""

    load_priced = Signal(object)
    """MemoryPlan of what was asked about with ``price_load``; None: it cannot be priced, the engine will say why."""
    unreadable = Signal(str)
    """What was asked about with ``price_load`` is no model; why."""
    planned = Signal(object)
    """MemoryPlan of the settings in force, at the full context length."""
    compared = Signal(object)
    """Comparison after the first reply of a load."""
    smaller_priced = Signal(int, object, object)
    """The answer to ``price_smaller``: a shorter context length, its total in bytes, whether it fits."""

    def __init__(
        self,
        planner: Planner,
        settings_panel: SettingsPanel,
        memory_dock: MemoryDock,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._planner = planner
        self._panel = settings_panel
        self._dock = memory_dock
        self._file: ModelFile | None = None
        self._settings = EngineSettings()
        self._waiting: ModelFile | None = None
        self._plan: MemoryPlan | None = None
        self._planned_file: ModelFile | None = None
        self._full_plan: MemoryPlan | None = None
        self._load_id = self._edit_id = self._smaller_id = self._choices_id = 0
        self._is_comparison_due = False
        self._curve_timer = QTimer(self, singleShot=True, interval=CURVE_DELAY_MS)
        self._curve_timer.timeout.connect(self._ask_curve)
        self._panel.settings_edited.connect(self._price)

    # --- what it is told -------------------------------------------------------------------------------------------

    def follow(self, file: ModelFile | None, settings: EngineSettings) -> None:
        """``file`` is loaded, or being loaded, with ``settings``; what is known of their price is shown as in force."""
        if (file and file.path) != (self._file and self._file.path):
            self._full_plan = None
        self._file, self._settings = file, settings
        if self._plan and self._planned_file and self._is_in_force(self._plan, self._planned_file):
            self._show(self._plan, self._planned_file)

    def price_load(self, file: ModelFile, settings: EngineSettings) -> None:
        """Ask what loading would cost: ``load_priced`` or ``unreadable``. Until ``end_waiting`` edits are priced for it."""
        self._waiting = file
        self._load_id = self._planner.plan(file.path, settings, "load")

    def end_waiting(self) -> None:
        """What waited is loaded now, or given up."""
        self._waiting = None
        self._load_id = 0

    def price_in_force(self) -> None:
        """Ask again about the settings in force."""
        if self._file:
            self._edit_id = self._planner.plan(self._file.path, self._settings)
            self._curve_timer.start()

    def price_edited(self) -> None:
        """Ask again about what the panel shows (what it is held against has changed)."""
        self._price(self._panel.edited)

    def price_tables(self) -> None:
        """Ask what the "Why" tab has beside the plan: KV sizes by length and type, how many conversations fit."""
        if self._file:
            self._planner.kv_table(self._file.path, self._settings)
            self._planner.capacity(self._file.path, self._settings, CAPACITY_SEQUENCES, CAPACITY_LENGTHS)

    def price_smaller(self) -> None:
        """Ask what a reload with half the context would take: the way out that the crash card offers."""
        n_ctx = self._settings.context.n_ctx or (self._file.n_ctx_train if self._file else 0)
        if self._file and n_ctx >= 2 * SHORTEST_OFFERED:
            context = replace(self._settings.context, n_ctx=n_ctx // 2)
            smaller = replace(self._settings, context=context)
            self._smaller_id = self._planner.plan(self._file.path, smaller, "smaller")

    def expect_comparison(self) -> None:
        """A context was made: its first reply will tell what was predicted well."""
        self._is_comparison_due = True

    def compare(self, n_ctx: int, buffers: Sequence[Buffer], held: dict[str, int | None]) -> None:
        """After a reply: hold what the engine really has, ``n_ctx`` cells, against the plan, and learn from it."""
        if self._file:
            real = replace(self._settings, context=replace(self._settings.context, n_ctx=n_ctx))
            self._planner.compare(self._file.path, real, buffers, held)

    def let_go(self) -> None:
        """End the planner's helper soon: it must not hold a network worker that the engine wants."""
        self._planner.let_go()

    @property
    def longest(self) -> int | None:
        """The longest context under the line with the settings priced last; None when none is, or none is known yet."""
        return self._plan.max_n_ctx if self._plan else None

    # --- asking ----------------------------------------------------------------------------------------------------

    @property
    def _target(self) -> ModelFile | None:
        """The model that edits are for."""
        return self._waiting or self._file

    def _price(self, settings: EngineSettings) -> None:
        if self._target:
            self._edit_id = self._planner.plan(self._target.path, settings)
            self._curve_timer.start()

    def _ask_curve(self) -> None:
        if self._target:
            edited = self._panel.edited
            pair = (edited.context.type_k, edited.context.type_v)
            types = CURVE_TYPES if pair in CURVE_TYPES else (*CURVE_TYPES, pair)
            self._planner.curve(self._target.path, edited, types)
            self._choices_id = self._planner.choices(self._target.path, edited, PRICED_CHOICES)

    # --- the planner's answers -------------------------------------------------------------------------------------

    def on_plan_event(self, event: e.PlanEvent) -> None:
        """Show a price, or pass on what waited for it."""
        match event:
            case e.PlanReady():
                self._on_plan_ready(event)
            case e.ChoicesReady() if event.request_id == self._choices_id:
                self._show_choice_prices(event.delta_bytes)
            case e.CurveReady():
                edited = self._panel.edited.context
                self._dock.show_curves(event.curves, edited.type_k, edited.type_v)
            case e.KvTableReady():
                sizes = {(n, kind): size for n, row in event.table.items() for kind, size in row.items()}
                self._dock.explain_view.show_kv_sizes(sizes, self._file.n_ctx_train if self._file else None)
            case e.CapacityReady():
                self._dock.explain_view.show_capacity(event.cells)
            case e.Compared():
                self._on_compared(event)
            case e.PlanFailed():
                self._on_plan_failed(event)
            case _:
                pass

    def _on_plan_ready(self, event: e.PlanReady) -> None:
        if event.request_id == self._smaller_id:
            if event.is_final:
                self.smaller_priced.emit(event.plan.n_ctx, event.plan.total_bytes, event.plan.fits)
        elif event.request_id == self._load_id:
            self._show(event.plan, event.model)
            if event.is_final:
                self._load_id = 0
                self._curve_timer.start()
                self.load_priced.emit(event.plan)
        elif event.request_id == self._edit_id:
            self._show(event.plan, event.model)

    def _on_plan_failed(self, event: e.PlanFailed) -> None:
        if event.request_id == self._load_id:
            self._load_id = 0
            if event.kind == "ModelFileError":
                self.unreadable.emit(event.sentence)
            else:
                self.load_priced.emit(None)
        elif event.request_id == self._edit_id:
            self._panel.show_price(None, None, event.sentence, None, "")
        elif event.request_id == self._choices_id:
            self._show_choice_prices({field: dict.fromkeys(choices) for field, choices in PRICED_CHOICES.items()})

    def _show_choice_prices(self, delta_bytes: Mapping[str, Mapping[str, int | None]]) -> None:
        for field, prices in delta_bytes.items():
            self._panel.show_choice_prices(field, prices)

    def _on_compared(self, event: e.Compared) -> None:
        if self._full_plan and self._file and self._file.path == event.path:
            self._dock.show_comparison(self._full_plan, self._file, event.comparison, self._planner.history)
        if self._is_comparison_due:
            self._is_comparison_due = False
            self.compared.emit(event.comparison)

    def _is_in_force(self, plan: MemoryPlan, model: ModelFile) -> bool:
        return self._file is not None and model.path == self._file.path and plan.settings == self._settings

    def _show(self, plan: MemoryPlan, model: ModelFile) -> None:
        self._plan, self._planned_file = plan, model
        is_applied = self._is_in_force(plan, model)
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
