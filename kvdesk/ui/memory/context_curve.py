"""Memory against context length, one line per cache type, with a dot for the setting. UI thread; decides nothing.

The numbers show at once; the plot comes with ``build_now``, after the first paint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QGridLayout, QVBoxLayout, QWidget

from kvdesk.backend.planning.plan import Curve
from kvdesk.ui.memory.segment_bar import Swatch
from kvdesk.ui.widgets.empty_layout import empty_layout
from kvdesk.ui.widgets.numbers import format_bytes, format_tokens
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.theme import Theme, set_role

if TYPE_CHECKING:
    from kvdesk.ui.memory.plots.curve_plot import CurvePlot

PLOT_HEIGHT_PX = 240


class ContextCurve(QWidget):
    """The curve, a sentence above it and a row of numbers for every cache type below it."""

    n_ctx_dragged = Signal(int)
    """While the dot is dragged, in steps of 256: for repricing."""
    n_ctx_chosen = Signal(int)
    """The dot was released."""
    types_chosen = Signal(str, str)
    """A cache type's row was chosen: K and V type."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._plot: CurvePlot | None = None
        self._curves: tuple[Curve, ...] = ()
        self._chosen_types = ("", "")
        self._n_ctx = 0
        self._used: int | None = None
        self._words = PlainLabel(self.tr("Choose a model to see what its context costs."))
        self._words.setWordWrap(True)
        self._placeholder = PlainLabel()
        self._placeholder.setMinimumHeight(PLOT_HEIGHT_PX)
        self._rows = QGridLayout()
        self._rows.setHorizontalSpacing(8)
        self._rows.setVerticalSpacing(2)
        self._rows.setColumnStretch(1, 1)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(8)
        self._layout.addWidget(self._words)
        self._layout.addWidget(self._placeholder, 1)
        self._layout.addLayout(self._rows)

    def show_curves(self, curves: Sequence[Curve], type_k: str, type_v: str) -> None:
        """``curves`` of the planner; ``type_k`` and ``type_v`` are the setting's own."""
        self._curves, self._chosen_types = tuple(curves), (type_k, type_v)
        if self._plot is not None:
            self._plot.show_curves(self._curves, self._chosen(), self._colors())
            self._plot.show_setting(self._n_ctx)
        self._refresh()

    def show_setting(self, n_ctx: int) -> None:
        """The Context Length as it is set; while the user moves the dot, the dot's place goes before."""
        if self._plot is not None and self._plot.is_moving:
            return
        self._n_ctx = n_ctx
        if self._plot is not None:
            self._plot.show_setting(n_ctx)
        self._refresh()

    def show_tokens_in_use(self, n_tokens: int | None) -> None:
        """How many tokens the conversation has."""
        self._used = n_tokens
        if self._plot is not None:
            self._plot.show_tokens_in_use(n_tokens)

    def clear(self) -> None:
        """Show no curve: no model is chosen."""
        self.show_curves((), "", "")

    def build_now(self) -> None:
        """Make the plot (imports pyqtgraph)."""
        if self._plot is not None:
            return
        from kvdesk.ui.memory.plots.curve_plot import CurvePlot

        self._plot = CurvePlot(self._theme)
        self._plot.setMinimumHeight(PLOT_HEIGHT_PX)
        self._plot.n_ctx_dragged.connect(self._on_dragged)
        self._plot.n_ctx_chosen.connect(self.n_ctx_chosen)
        self._layout.replaceWidget(self._placeholder, self._plot)
        self._layout.setStretchFactor(self._plot, 1)
        self._placeholder.hide()
        self._placeholder.deleteLater()
        self._plot.show_curves(self._curves, self._chosen(), self._colors())
        self._plot.show_setting(self._n_ctx)
        self._plot.show_tokens_in_use(self._used)

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        if self._plot is not None:
            self._plot.set_theme(theme)
            self._plot.show_curves(self._curves, self._chosen(), self._colors())
            self._plot.show_setting(self._n_ctx)
        self._refresh()

    @property
    def plot(self) -> CurvePlot | None:
        """The plot, None before ``build_now``."""
        return self._plot

    @property
    def words(self) -> str:
        """The sentence above the curve."""
        return self._words.text()

    def row_texts(self) -> list[tuple[str, str, str]]:
        """The rows below: types, bytes at the setting, how far they fit."""
        count = self._rows.rowCount()
        cells = [[self._rows.itemAtPosition(row, column) for column in (1, 2, 3)] for row in range(count)]
        return [tuple(cell.widget().text() for cell in row) for row in cells if all(row)]  # type: ignore[misc]

    # --- inside ------------------------------------------------------------------------------------------------------

    def _chosen(self) -> int:
        pairs = [(curve.type_k, curve.type_v) for curve in self._curves]
        return pairs.index(self._chosen_types) if self._chosen_types in pairs else 0

    def _colors(self) -> list[str]:
        chart = self._theme.chart
        named = {"f16": chart.kv_used, "q8_0": chart.weights, "q4_0": chart.compute}
        other = chart.event
        return [named.get(c.type_k, other) if c.type_k == c.type_v else other for c in self._curves]

    def _on_dragged(self, n_ctx: int) -> None:
        self._n_ctx = n_ctx
        self._refresh()
        self.n_ctx_dragged.emit(n_ctx)

    def _refresh(self) -> None:
        empty_layout(self._rows)
        if not self._curves:
            self._words.setText(self.tr("Choose a model to see what its context costs."))
            set_role(self._words, "muted")
            return
        chosen = self._curves[self._chosen()]
        self._words.setText(self._sentence(chosen))
        set_role(self._words, "red" if self._is_over(chosen) else "")
        titles = (
            "",
            self.tr("Cache type"),
            self.tr("At {0}").format(format_tokens(self._n_ctx)),
            self.tr("Fits up to"),
        )
        for column, title in enumerate(titles[1:], 1):
            self._rows.addWidget(self._cell(title, "muted", column > 1), 0, column)
        for row, (curve, color) in enumerate(zip(self._curves, self._colors(), strict=True), 1):
            swatch = Swatch("line")
            swatch.set_color(color)
            role = "heading" if curve is chosen else ""
            self._rows.addWidget(swatch, row, 0)
            self._rows.addWidget(self._cell(_type_words(curve), role, False), row, 1)
            self._rows.addWidget(self._cell(format_bytes(_bytes_at(curve, self._n_ctx)), role, True), row, 2)
            self._rows.addWidget(self._cell(self._fits_words(curve), role, True), row, 3)

    def _sentence(self, curve: Curve) -> str:
        if curve.oom_line_bytes is None:
            return self.tr("Memory in {0}; what is available there is unknown.").format(curve.device)
        if self._is_over(curve):
            over = (_bytes_at(curve, self._n_ctx) or 0) - curve.oom_line_bytes
            return self.tr("{0} tokens are {1} over the line in {2}.").format(
                format_tokens(self._n_ctx), format_bytes(over), curve.device
            )
        room = curve.oom_line_bytes - (_bytes_at(curve, self._n_ctx) or 0)
        return self.tr("{0} tokens leave {1} under the line in {2}.").format(
            format_tokens(self._n_ctx), format_bytes(room), curve.device
        )

    def _is_over(self, curve: Curve) -> bool:
        size = _bytes_at(curve, self._n_ctx)
        return size is not None and curve.oom_line_bytes is not None and size > curve.oom_line_bytes

    def _fits_words(self, curve: Curve) -> str:
        if curve.oom_line_bytes is None:
            return self.tr("unknown")
        if curve.crossing_n_ctx is None:
            return self.tr("nothing")
        if curve.points and curve.crossing_n_ctx >= curve.points[-1].n_ctx:
            return self.tr("all {0}").format(format_tokens(curve.crossing_n_ctx))
        return format_tokens(curve.crossing_n_ctx)

    def _cell(self, text: str, role: str, right: bool) -> PlainLabel:
        label = PlainLabel(text)
        if role:
            set_role(label, role)
        if right:
            label.setAlignment(Qt.AlignmentFlag.AlignRight)
        return label


def _bytes_at(curve: Curve, n_ctx: int) -> int | None:
    point = curve.at(n_ctx)
    return point.device_bytes if point else None


def _type_words(curve: Curve) -> str:
    return curve.type_k if curve.type_k == curve.type_v else f"K {curve.type_k} · V {curve.type_v}"
