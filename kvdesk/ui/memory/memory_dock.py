"""Memory beside the chat (KV strip, live chart), and its wide page (plan, curve, reasons). Hands on what it is told.

UI thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QTimer, Signal
from PySide6.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.planning.calibration import Comparison
from kvdesk.backend.planning.plan import Curve, MemoryPlan
from kvdesk.backend.protocol.facts import Buffer, BufferKind, ContextFacts, KvState
from kvdesk.backend.system.samples import Sample
from kvdesk.ui.memory.context_curve import ContextCurve
from kvdesk.ui.memory.explain_view import ExplainView
from kvdesk.ui.memory.kv_strip import KvStrip
from kvdesk.ui.memory.live_chart import LiveChart
from kvdesk.ui.memory.plan_table import Loaded, PlanTable
from kvdesk.ui.memory.plots.chart_event import ChartEvent
from kvdesk.ui.memory.plots.plot_import import PlotImport
from kvdesk.ui.widgets.scroll_column import ScrollColumn
from kvdesk.ui.widgets.theme import Theme


class MemoryDock(QWidget):
    """KV strip and live chart; ``page`` has the tabs "Plan", "Curve", "Why", which need width: the window places it."""

    n_ctx_dragged = Signal(int)
    """The curve's dot is being dragged: reprice."""
    n_ctx_chosen = Signal(int)
    """The curve's dot was released: a new Context Length to edit."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._context_buffers: tuple[Buffer, ...] = ()
        self._is_loading = False
        self._planned_weights: tuple[Buffer, ...] = ()
        self._n_ctx_limit: int | None = None
        self._full_kv_bytes: int | None = None
        self._kv: KvState | None = None
        self._replies = 0
        self._is_compact = self._is_low = False
        self._strip = KvStrip(theme)
        self._chart = LiveChart(theme)
        self._table = PlanTable(theme)
        self._curve = ContextCurve(theme)
        self._explain = ExplainView(theme)
        self._import = PlotImport(self)
        self._curve.n_ctx_dragged.connect(self.n_ctx_dragged)
        self._curve.n_ctx_chosen.connect(self.n_ctx_chosen)
        self.page = QTabWidget()
        """Plan, curve and reasons."""
        self.page.setDocumentMode(True)
        self.page.setAccessibleName(self.tr("Memory"))
        for view, title, tip in (
            (_page(self._table), self.tr("Plan"), self.tr("Predicted and measured, component by component")),
            (_page(self._curve), self.tr("Curve"), self.tr("Memory against context length")),
            (_page(self._explain, name=self.tr("Why")), self.tr("Why"), self.tr("Where the figures come from")),
        ):
            self.page.setTabToolTip(self.page.addTab(view, title), tip)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 4, 8, 0)
        layout.setSpacing(4)
        layout.addWidget(self._strip)
        layout.addWidget(ScrollColumn(self._chart, self.tr("Live")), 1)

    # --- live --------------------------------------------------------------------------------------------------------

    def add_sample(self, sample: Sample) -> None:
        """One sample of the monitor."""
        self._chart.add_sample(sample)

    def add_event(self, event: ChartEvent) -> None:
        """A mark on the time axis."""
        self._chart.add_event(event)

    def show_context(self, context: ContextFacts | None) -> None:
        """The context that exists now (load, change, growth); None: nothing is loaded."""
        self._n_ctx_limit = context.n_ctx_limit if context else None
        self._context_buffers = context.buffers if context else ()
        self._is_loading = False
        self._show_buffers()
        if context is None:
            self._table.show_loaded(None)
        self.show_kv(context.kv if context else None)

    def show_loading(self) -> None:
        """Weights arrive: the plan says already how many, so that the growing memory has its name."""
        if not self._is_loading:
            self._is_loading = True
            self._context_buffers = ()
            self._show_buffers()

    def _show_buffers(self) -> None:
        """The context's buffers; the plan, which is exact there, names the weights where the engine does not."""
        buffers = self._context_buffers
        named = self._is_loading or bool(buffers)
        if named and not any(buffer.kind is BufferKind.WEIGHTS for buffer in buffers):
            buffers = (*buffers, *self._planned_weights)
        self._chart.show_buffers(buffers)

    def show_kv(self, kv: KvState | None) -> None:
        """Show how many cells are occupied and allocated now."""
        self._kv = kv
        self._strip.show_kv(kv, self._n_ctx_limit, self._full_kv_bytes)
        self._show_replies_left()
        self._curve.show_tokens_in_use(kv.cells_used if kv else None)

    def show_replies(self, count: int) -> None:
        """``count`` replies are in the conversation: how many more like them the context holds is said from that."""
        self._replies = count
        self._show_replies_left()

    def _show_replies_left(self) -> None:
        kv, limit = self._kv, self._n_ctx_limit
        left = None
        if kv and limit and self._replies and kv.cells_used:
            left = round((limit - kv.cells_used) * self._replies / kv.cells_used)
        self._chart.show_replies_left(left)

    # --- plan --------------------------------------------------------------------------------------------------------

    def show_plan(self, plan: MemoryPlan | None, model: ModelFile | None, is_applied: bool) -> None:
        """The price of a setting. ``is_applied``: it is the one in force, so the live words and the gauge speak of it."""
        self._table.show_plan(plan, model)
        if plan is None or model is None:
            self._explain.clear()
            return
        self._explain.show_plan(plan, model)
        self._curve.show_setting(plan.n_ctx)
        if is_applied:
            self._chart.show_ghost({})
            self._chart.show_full_kv({device.name: device.kv_bytes + device.recurrent_bytes for device in plan.devices})
        else:
            self._chart.show_ghost(
                {device.name: (device.total_bytes, device.kv_bytes + device.recurrent_bytes) for device in plan.devices}
            )
        self._chart.show_descriptions({device.name: device.description for device in plan.devices})
        if is_applied:
            if plan.footprint is not None:
                self._planned_weights = tuple(b for b in plan.footprint.buffers if b.kind is BufferKind.WEIGHTS)
                self._show_buffers()
            self._full_kv_bytes = plan.kv.total_bytes
            self._chart.show_fit(plan.verdict.device, plan.max_n_ctx, model.n_ctx_train or None)
            self._strip.show_kv(self._kv, self._n_ctx_limit, self._full_kv_bytes)
            self._show_replies_left()

    def show_comparison(
        self, plan: MemoryPlan, model: ModelFile, comparison: Comparison, history: Sequence[Comparison] = ()
    ) -> None:
        """After a load: what was predicted for just the context that was made against what was measured; ``plan`` of the
        same ``model`` knows the domains. ``history`` are all loads so far."""
        self._table.show_loaded(Loaded(plan, model, comparison))
        self._table.show_history(history)

    def show_curves(self, curves: Sequence[Curve], type_k: str, type_v: str) -> None:
        """Memory against context length; ``type_k`` and ``type_v`` are the setting's."""
        self._curve.show_curves(curves, type_k, type_v)

    @property
    def explain_view(self) -> ExplainView:
        """The page that explains the plan."""
        return self._explain

    @property
    def live_chart(self) -> LiveChart:
        """The chart of memory over time."""
        return self._chart

    # --- looks -------------------------------------------------------------------------------------------------------

    def build_now(self) -> None:
        """Make the plots, importing pyqtgraph and numpy if ``build_soon`` has not yet: a second or so in all."""
        self._chart.build_now()
        self._curve.build_now()

    def build_soon(self) -> None:
        """Make the plots once what they need has been imported, which another thread does: the window does not wait."""
        self._import.finished.connect(self._build_step)
        self._import.start()

    def _build_step(self) -> None:
        """One plot for each turn of the event loop."""
        if self._chart.build_next():
            QTimer.singleShot(0, self, self._build_step)
        else:
            self._curve.build_now()

    def set_compact(self, compact: bool) -> None:
        """Small plots, no legends: the user's choice."""
        self._is_compact = compact
        self._chart.set_compact(compact or self._is_low)

    def set_sparkline(self, is_low: bool) -> None:
        """Small plots because there is no room for more."""
        self._is_low = is_low
        self._chart.set_compact(self._is_compact or is_low)

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        for part in (self._strip, self._chart, self._table, self._curve, self._explain):
            part.set_theme(theme)


def _page(*widgets: QWidget, name: str = "") -> QWidget:
    """``widgets`` below one another; with a ``name`` in a view of that name that scrolls."""
    page = QWidget()
    column = QVBoxLayout(page)
    column.setContentsMargins(8, 8, 8, 8)
    column.setSpacing(8)
    for widget in widgets:
        column.addWidget(widget)
    if not name:
        return page
    column.addStretch(1)
    return ScrollColumn(page, name)
