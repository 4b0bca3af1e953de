"""The context profile's window: what to measure, progress, two plots, the table, export. UI thread; measures nothing.

The owner runs the profile and hands in its points; the window says what is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QProgressBar,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from kvdesk.ui.memory.segment_bar import Swatch
from kvdesk.ui.widgets.numbers import format_bytes, format_percent, format_rate, format_tokens
from kvdesk.ui.widgets.plain_text import PlainLabel, plain_tip
from kvdesk.ui.widgets.theme import Theme, set_role
from kvdesk.ui.widgets.tree_items import top_level_items
from kvdesk.ui.widgets.wheel import leave_wheel_to_the_page

if TYPE_CHECKING:
    from kvdesk.backend.planning.context_profile import ProfilePoint
    from kvdesk.ui.memory.plots.profile_plots import ProfileMemoryPlot, ProfileSpeedPlot

CACHE_TYPES = ("f16", "q8_0", "q4_0")
CHOSEN_FIRST = frozenset({"f16", "q8_0"})
SHORTEST = 512
DEFAULT_LONGEST = 8192
"""Reading twice as much takes more than twice as long; who wants more chooses more."""
PLOTS_HEIGHT_PX = 300


class ProfileWindow(QDialog):
    """Not modal: the window behind it stays usable."""

    start_requested = Signal(tuple, int)
    """Cache types (a tuple of names), longest context in tokens."""
    cancel_requested = Signal()
    export_requested = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._points: tuple[ProfilePoint, ...] = ()
        self._is_running = False
        self._has_result = False
        self._why_not = ""
        self._start_tip = self.tr("Unload the chat's model and measure")
        self._memory_plot: ProfileMemoryPlot | None = None
        self._speed_plots: tuple[ProfileSpeedPlot, ...] = ()
        self.setWindowTitle(self.tr("Context profile"))
        self.setMinimumSize(880, 700)
        self.resize(1100, 780)
        self._title = PlainLabel(self.tr("Context profile"))
        set_role(self._title, "heading")
        self._intro = PlainLabel(
            self.tr(
                "Loads the model at one context length after the other, on this machine, and measures what it holds and "
                "how fast it is with the context full; speed only where filling it takes less than a minute. Lengths that "
                "would cross the OOM line are left out. The chat's model is unloaded meanwhile and loaded again afterwards."
            )
        )
        self._intro.setWordWrap(True)
        set_role(self._intro, "muted")
        self._types = {kind: QCheckBox(kind) for kind in CACHE_TYPES}
        for kind, box in self._types.items():
            box.setChecked(kind in CHOSEN_FIRST)
            box.setToolTip(self.tr("type_k and type_v {0}").format(kind))
            box.setAccessibleName(self.tr("Measure with cache type {0}").format(kind))
            box.toggled.connect(self._enable)
        self._longest = QComboBox()
        leave_wheel_to_the_page(self._longest)
        self._longest.setAccessibleName(self.tr("Longest context"))
        self._longest.setToolTip(self.tr("The last n_ctx to measure; every half of it down to 512 comes before"))
        self._start = self._button(self.tr("Start"), self._start_tip)
        set_role(self._start, "primary")
        self._start.clicked.connect(self._on_start_clicked)
        self._cancel = self._button(self.tr("Cancel"), self.tr("Stop measuring; what was measured stays"))
        self._cancel.clicked.connect(self._on_cancel_clicked)
        self._progress = QProgressBar()
        self._progress.setTextVisible(False)
        self._progress.setAccessibleName(self.tr("Progress"))
        self._words = PlainLabel()
        self._words.setWordWrap(True)
        self._swatches = {kind: Swatch("full") for kind in CACHE_TYPES}
        self._reading = PlainLabel()
        self._reading.setWordWrap(True)
        self._placeholder = PlainLabel(self.tr("Nothing has been measured yet."))
        self._placeholder.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._placeholder.setMinimumHeight(PLOTS_HEIGHT_PX)
        set_role(self._placeholder, "muted")
        self._plots = QGridLayout()
        self._table = QTreeWidget()
        self._export = self._button(self.tr("Export CSV…"), self.tr("The table with every byte, for spreadsheets"))
        self._export.clicked.connect(self.export_requested)
        self._build()
        self.show_reading(None)
        self._enable()

    # --- what it is told -------------------------------------------------------------------------------------------

    def show_model(self, name: str, n_ctx_train: int | None, why_not: str = "") -> None:
        """The model to be measured, ``name`` "" for none, and why it cannot be now, "" when it can."""
        self._title.setText(self.tr("Context profile of {0}").format(name) if name else self.tr("Context profile"))
        self._why_not = why_not
        if name:
            self._show_lengths(n_ctx_train or DEFAULT_LONGEST)
        self._start.setToolTip(plain_tip(why_not) or self._start_tip)
        if not self._is_running and not self._has_result:
            self.show_words(why_not)
        self._enable()

    def show_running(self, is_running: bool) -> None:
        """Measuring has begun, or has ended."""
        self._is_running, self._has_result = is_running, not is_running
        self._progress.setVisible(is_running)
        self._progress.setRange(0, 0)
        self._enable()

    def show_progress(self, done: float, words: str) -> None:
        """``done`` 0.0 to 1.0, and what is being done."""
        self._progress.setRange(0, 1000)
        self._progress.setValue(round(done * 1000))
        self.show_words(words)

    def show_words(self, words: str, role: str = "muted") -> None:
        """A sentence under the controls; ``role`` "muted", "amber" or "red"."""
        self._words.setText(words)
        set_role(self._words, role)

    def show_points(self, points: Sequence[ProfilePoint]) -> None:
        """Draw and list everything measured so far."""
        self._points = tuple(points)
        if self._points:
            self._build_plots()
        for widget in (self._reading, self._table):
            widget.setVisible(bool(self._points))
        for plot in self._all_plots():
            plot.show_points(self._points, self._colors())
        self._table.clear()
        for point in self._points:
            self._table.addTopLevelItem(self._row(point))
        self.show_reading(None)
        self._enable()

    def show_reading(self, point: ProfilePoint | None) -> None:
        """Say one point in words: the one under the mouse, or how to read the plots."""
        if point is None:
            self._reading.setText(
                self.tr(
                    "Lines are predicted, dots measured. Solid: all the engine holds; dashed and hollow: the KV cache."
                )
            )
            set_role(self._reading, "muted")
            return
        self._reading.setText(
            self.tr("{0} tokens, {1}: KV cache {2} of {3} ({4}), predicted {5} of {6}; prompt {7}, decode {8}.").format(
                format_tokens(point.n_ctx),
                point.type_k,
                format_bytes(point.kv_bytes),
                format_bytes(point.measured_total_bytes),
                format_percent(point.kv_share),
                format_bytes(point.predicted_kv_bytes),
                format_bytes(point.predicted_total_bytes),
                self._speed(point.prompt_tokens_per_second),
                self._speed(point.tokens_per_second),
            )
        )
        set_role(self._reading, "")

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        self._paint_swatches()
        for plot in self._all_plots():
            plot.set_theme(theme, self._colors())

    def reject(self) -> None:
        """Closing it, by whatever way, is also cancelling: nobody would see the rest."""
        super().reject()
        if self._is_running:
            self.cancel_requested.emit()

    # --- what it shows -----------------------------------------------------------------------------------------------

    @property
    def words(self) -> str:
        """The sentence under the controls."""
        return self._words.text()

    @property
    def reading(self) -> str:
        """The sentence over the plots."""
        return self._reading.text()

    @property
    def memory_plot(self) -> ProfileMemoryPlot | None:
        """Memory against context length, None before there is anything to draw."""
        return self._memory_plot

    @property
    def speed_plots(self) -> tuple[ProfileSpeedPlot, ...]:
        """Prompt and decode speed, empty before there is anything to draw."""
        return self._speed_plots

    def rows(self) -> list[list[str]]:
        """The texts of the table."""
        items = top_level_items(self._table)
        return [[item.text(column) for column in range(self._table.columnCount())] for item in items]

    # --- inside ------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        choices = QHBoxLayout()
        choices.setSpacing(12)
        choices.addWidget(PlainLabel(self.tr("Cache types")))
        for kind, box in self._types.items():
            pair = QHBoxLayout()
            pair.setSpacing(4)
            pair.addWidget(self._swatches[kind])
            pair.addWidget(box)
            choices.addLayout(pair)
        choices.addSpacing(12)
        length = PlainLabel(self.tr("&Longest context"))
        length.setBuddy(self._longest)
        choices.addWidget(length)
        choices.addWidget(self._longest)
        choices.addStretch(1)
        choices.addWidget(self._cancel)
        choices.addWidget(self._start)
        self._plots.setHorizontalSpacing(12)
        self._plots.setVerticalSpacing(4)
        self._plots.addWidget(self._placeholder, 0, 0)
        self._build_table()
        under = QHBoxLayout()
        under.addStretch(1)
        under.addWidget(self._export)
        column = QVBoxLayout(self)
        column.setContentsMargins(16, 16, 16, 16)
        column.setSpacing(8)
        column.addWidget(self._title)
        column.addWidget(self._intro)
        column.addLayout(choices)
        column.addWidget(self._progress)
        column.addWidget(self._words)
        column.addWidget(self._reading)
        column.addLayout(self._plots, 3)
        column.addWidget(self._table, 2)
        column.addLayout(under)
        for widget in (self._progress, self._reading, self._table):
            widget.hide()
        self._paint_swatches()

    def _build_table(self) -> None:
        titles = (
            self.tr("Context"),
            self.tr("Cache"),
            self.tr("KV\npredicted"),
            self.tr("KV\nmeasured"),
            self.tr("Total\npredicted"),
            self.tr("Total\nmeasured"),
            self.tr("KV's\nshare"),
            self.tr("Prompt"),
            self.tr("Decode"),
        )
        self._table.setAccessibleName(self.tr("What was measured"))
        self._table.setRootIsDecorated(False)
        self._table.setUniformRowHeights(True)
        self._table.setHeaderLabels(titles)
        self._table.setMinimumHeight(120)
        for column in range(len(titles)):
            if column != 1:
                self._table.headerItem().setTextAlignment(column, _RIGHT)
        header = self._table.header()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        header.setStretchLastSection(False)

    def _build_plots(self) -> None:
        """Make the plots (imports pyqtgraph)."""
        if self._memory_plot is not None:
            return
        from kvdesk.ui.memory.plots import profile_plots

        self._memory_plot = profile_plots.ProfileMemoryPlot(self._theme)
        prompt, decode = self.tr("Prompt, tokens per second"), self.tr("Decode, tokens per second")
        self._speed_plots = (
            profile_plots.ProfileSpeedPlot(self._theme, lambda point: point.prompt_tokens_per_second, prompt),
            profile_plots.ProfileSpeedPlot(self._theme, lambda point: point.tokens_per_second, decode),
        )
        self._plots.removeWidget(self._placeholder)
        self._placeholder.hide()
        self._plots.addWidget(self._heading(self.tr("Memory")), 0, 0)
        self._plots.addWidget(self._memory_plot, 1, 0, 3, 1)
        self._plots.addWidget(self._heading(prompt), 0, 1)
        self._plots.addWidget(self._speed_plots[0], 1, 1)
        self._plots.addWidget(self._heading(decode), 2, 1)
        self._plots.addWidget(self._speed_plots[1], 3, 1)
        for row, stretch in ((1, 1), (3, 1)):
            self._plots.setRowStretch(row, stretch)
        self._plots.setColumnStretch(0, 3)
        self._plots.setColumnStretch(1, 2)
        for plot in self._all_plots():
            plot.setMinimumHeight(110)
            plot.hovered.connect(self.show_reading)

    def _heading(self, text: str) -> PlainLabel:
        label = PlainLabel(text)
        set_role(label, "heading")
        return label

    def _button(self, text: str, tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        button.setAutoDefault(False)
        return button

    def _all_plots(self) -> tuple[ProfileMemoryPlot | ProfileSpeedPlot, ...]:
        return (self._memory_plot, *self._speed_plots) if self._memory_plot is not None else ()

    def _colors(self) -> dict[str, str]:
        """As the context curve has them."""
        chart = self._theme.chart
        return dict(zip(CACHE_TYPES, (chart.kv_used, chart.weights, chart.compute), strict=True))

    def _paint_swatches(self) -> None:
        for kind, color in self._colors().items():
            self._swatches[kind].set_color(color)

    def _show_lengths(self, n_ctx_train: int) -> None:
        before = self._longest.currentData()
        lengths = [min(SHORTEST, n_ctx_train)]
        while lengths[-1] * 2 <= n_ctx_train:
            lengths.append(lengths[-1] * 2)
        if lengths[-1] < n_ctx_train:
            lengths.append(n_ctx_train)
        if [self._longest.itemData(row) for row in range(self._longest.count())] == lengths:
            return
        self._longest.clear()
        for length in lengths:
            self._longest.addItem(format_tokens(length), length)
        wanted = before if before in lengths else max(one for one in lengths if one <= max(DEFAULT_LONGEST, lengths[0]))
        self._longest.setCurrentIndex(lengths.index(wanted))

    def _on_start_clicked(self) -> None:
        chosen = tuple(kind for kind, box in self._types.items() if box.isChecked())
        self.start_requested.emit(chosen, self._longest.currentData())

    def _on_cancel_clicked(self) -> None:
        self._cancel.setEnabled(False)
        self.show_words(self.tr("Cancelling…"))
        self.cancel_requested.emit()

    def _enable(self) -> None:
        idle = not self._is_running
        for box in (*self._types.values(), self._longest):
            box.setEnabled(idle)
        chosen = any(box.isChecked() for box in self._types.values())
        self._start.setEnabled(idle and chosen and not self._why_not and self._longest.count() > 0)
        self._cancel.setEnabled(self._is_running)
        self._export.setEnabled(idle and bool(self._points))

    def _speed(self, tokens_per_second: float | None) -> str:
        """A dash where filling the context would have taken too long; the introduction says so."""
        return "–" if tokens_per_second is None else format_rate(tokens_per_second)

    def _row(self, point: ProfilePoint) -> QTreeWidgetItem:
        texts = [
            format_tokens(point.n_ctx),
            point.type_k,
            format_bytes(point.predicted_kv_bytes),
            format_bytes(point.kv_bytes),
            format_bytes(point.predicted_total_bytes),
            format_bytes(point.measured_total_bytes),
            format_percent(point.kv_share),
            self._speed(point.prompt_tokens_per_second),
            self._speed(point.tokens_per_second),
        ]
        item = QTreeWidgetItem(texts)
        for column in range(len(texts)):
            if column != 1:
                item.setTextAlignment(column, _RIGHT)
        return item


_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
