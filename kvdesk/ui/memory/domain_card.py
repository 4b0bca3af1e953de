"""One memory domain on screen: what it is, where it stands in words, a bar of the whole domain, its plot, a legend.

The numbers and the bar are there at once; the plot (pyqtgraph) comes with ``build_now``, after the first paint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from kvdesk.backend.planning.verdict import alarm
from kvdesk.backend.protocol.facts import Buffer
from kvdesk.backend.system.samples import DomainReading, Sample
from kvdesk.ui.memory.composition import KV_LAYERS, LAYERS, Parts, room_under_line, split
from kvdesk.ui.memory.legend import Legend, part_color, part_words
from kvdesk.ui.memory.plots.chart_event import ChartEvent
from kvdesk.ui.memory.segment_bar import BarMark, Segment, SegmentBar
from kvdesk.ui.widgets.numbers import format_bytes, format_bytes_pair, format_clock, format_exact_bytes, format_tokens
from kvdesk.ui.widgets.plain_text import PlainLabel, plain_tip
from kvdesk.ui.widgets.stable_width_label import StableWidthLabel
from kvdesk.ui.widgets.theme import Theme, mix, set_role

if TYPE_CHECKING:
    from kvdesk.ui.memory.plots.domain_plot import DomainPlot
    from kvdesk.ui.memory.plots.moment import Moment

LEAST_PLOT_PX = 180
COMPACT_PLOT_HEIGHT_PX = 56


class DomainCard(QFrame):
    """The live chart of one domain."""

    following_changed = Signal(bool)
    range_changed = Signal(float, float)
    """The user zoomed or panned: the visible stretch of time on the chart's clock."""
    part_toggled = Signal(str, bool)
    """A part of the legend was clicked, and whether it shall be drawn."""
    time_pointed = Signal(object)
    """The mouse is at this time on the chart's clock; None when it left."""

    def __init__(self, name: str, kind: str, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._name, self._kind, self._theme = name, kind, theme
        self._plot: DomainPlot | None = None
        self._waiting: list[tuple[float, float, DomainReading, Parts | None, int | None, int]] = []
        self._waiting_events: list[ChartEvent] = []
        self._latest: tuple[Sample, DomainReading, Parts | None] | None = None
        self._max_n_ctx: int | None = None
        self._n_ctx_train: int | None = None
        self._replies_left: int | None = None
        self._hidden: frozenset[str] = frozenset()
        self._full_kv_bytes: int | None = None
        self._ghost: tuple[int, int] | None = None
        self._description = ""
        self._is_compact = False
        self._is_hovering = False
        set_role(self, "card")
        self.setAccessibleName(self.tr("Memory of {0}").format(self._title()))
        self._build()
        self._show_standing()

    # --- what it is told -------------------------------------------------------------------------------------------

    def add_sample(self, sample: Sample, buffers: tuple[Buffer, ...]) -> None:
        """Show this domain's reading in ``sample``; a sample without it is shown as unknown."""
        reading = sample.domain(self._name) or DomainReading(self._name, self._kind, None, None)
        parts = split(reading, buffers, sample.kv)
        row = (sample.monotonic_s, sample.time_s, reading, parts, sample.predicted(self._name), sample.margin_bytes)
        if self._plot is None:
            self._waiting.append(row)
        else:
            self._plot.add_reading(*row)
        self._latest = (sample, reading, parts)
        self._show_standing()
        if not self._is_hovering:
            self._show_now()

    def add_event(self, event: ChartEvent) -> None:
        """Mark an event on the time axis."""
        if self._plot is None:
            self._waiting_events.append(event)
        else:
            self._plot.add_event(event)

    def show_fit(self, max_n_ctx: int | None, n_ctx_train: int | None = None) -> None:
        """Say how far this chat can go here: ``max_n_ctx`` tokens fit; None says nothing."""
        self._max_n_ctx, self._n_ctx_train = max_n_ctx, n_ctx_train
        self._show_standing()

    def show_replies_left(self, count: int | None) -> None:
        """How many more replies like those so far the context holds; None says nothing."""
        self._replies_left = count
        self._show_standing()

    def show_full_kv(self, size_bytes: int | None) -> None:
        """What the KV cache takes here when the context is full."""
        self._full_kv_bytes = size_bytes
        self.show_hidden(self._hidden)

    def show_hidden(self, hidden: frozenset[str]) -> None:
        """Draw the domain without these parts."""
        self._hidden = hidden
        self._legend.show_hidden(hidden)
        if self._plot is not None:
            self._plot.set_hidden(hidden, self._full_kv_bytes)
        self.show_ghost(self._ghost)

    def show_ghost(self, sizes: tuple[int, int] | None) -> None:
        """Where the setting that is edited would bring this domain: (all bytes, those of the KV cache); None: no edit."""
        self._ghost = sizes
        if self._plot is None:
            return
        only_kv = self._hidden == frozenset(LAYERS) - KV_LAYERS
        size = sizes[only_kv] if sizes and (only_kv or not self._hidden) else None
        self._plot.show_ghost(size, self.tr("edited: {0}").format(format_bytes(size)) if size is not None else "")

    @property
    def parts(self) -> Parts | None:
        """What the newest sample says the engine holds here."""
        return self._latest[2] if self._latest else None

    def show_description(self, description: str) -> None:
        """The device in its maker's words."""
        self._description = description
        self._subtitle.setToolTip(plain_tip(description))
        self._elide_subtitle()

    def build_now(self) -> None:
        """Make the plot (imports pyqtgraph)."""
        if self._plot is not None:
            return
        from kvdesk.ui.memory.plots.domain_plot import DomainPlot

        self._plot = DomainPlot(self._theme)
        self._plot.setAccessibleName(self.tr("{0} over time").format(self._title()))
        self._fit_height(self._plot)
        self._plot.set_compact(self._is_compact)
        self._plot.moment_hovered.connect(self._on_moment_hovered)
        self._plot.following_changed.connect(self.following_changed)
        self._plot.range_changed.connect(self.range_changed)
        self._plot.time_pointed.connect(self.time_pointed)
        self._layout.replaceWidget(self._placeholder, self._plot)
        self._layout.setStretchFactor(self._plot, 1)
        self._placeholder.hide()
        self._placeholder.deleteLater()
        for row in self._waiting:
            self._plot.add_reading(*row)
        for event in self._waiting_events:
            self._plot.add_event(event)
        self._waiting.clear()
        self._waiting_events.clear()
        self.show_hidden(self._hidden)

    @property
    def plot(self) -> DomainPlot | None:
        """The plot, None before ``build_now``."""
        return self._plot

    @property
    def legend(self) -> Legend:
        """The numbers below the plot."""
        return self._legend

    @property
    def words(self) -> str:
        """Where the domain stands, as written."""
        return self._words.text()

    def set_compact(self, compact: bool) -> None:
        """Words, bar and a small plot without axes or legend."""
        self._is_compact = compact
        self._legend.setVisible(not compact)
        self._fit_height(self._placeholder if self._plot is None else self._plot)
        if self._plot is not None:
            self._plot.set_compact(compact)

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        self._bar.set_theme(theme)
        self._legend.set_theme(theme)
        if self._plot is not None:
            self._plot.set_theme(theme)
        self._show_standing()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """The device's name takes what room there is."""
        super().resizeEvent(event)
        self._elide_subtitle()

    # --- building ----------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        title = PlainLabel(self._title())
        set_role(title, "heading")
        self._subtitle = PlainLabel()
        set_role(self._subtitle, "muted")
        self._subtitle.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._totals = StableWidthLabel()
        self._totals.setAlignment(Qt.AlignmentFlag.AlignRight)
        top = QHBoxLayout()
        top.setSpacing(8)
        top.addWidget(title)
        top.addWidget(self._subtitle, 1)
        top.addWidget(self._totals)
        self._words = PlainLabel()
        self._words.setWordWrap(True)
        self._words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._bar = SegmentBar(self._theme)
        self._bar.setAccessibleName(self.tr("{0}: engine, room and other programs").format(self._title()))
        self._placeholder = PlainLabel(self.tr("Drawing begins in a moment."))
        self._placeholder.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._fit_height(self._placeholder)
        set_role(self._placeholder, "muted")
        self._legend = Legend(self._theme, can_hide=True)
        self._legend.part_toggled.connect(self.part_toggled)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(8, 6, 8, 6)
        self._layout.setSpacing(4)
        self._layout.addLayout(top)
        for widget in (self._words, self._bar, self._placeholder, self._legend):
            self._layout.addWidget(widget)
        self._layout.setStretchFactor(self._placeholder, 1)

    # --- showing -----------------------------------------------------------------------------------------------------

    def _title(self) -> str:
        return self.tr("RAM") if self._kind == "ram" else self._name

    def _fit_height(self, plot: QWidget) -> None:
        plot.setMinimumHeight(COMPACT_PLOT_HEIGHT_PX if self._is_compact else LEAST_PLOT_PX)

    def _elide_subtitle(self) -> None:
        metrics = self._subtitle.fontMetrics()
        width = self._subtitle.width()
        self._subtitle.setText(metrics.elidedText(self._description, Qt.TextElideMode.ElideRight, width))

    def _on_moment_hovered(self, moment: Moment | None) -> None:
        self._is_hovering = moment is not None
        if moment is None:
            self._legend.show_when("")
            self._show_now()
        else:
            self._legend.show_when(format_clock(moment.time_s))
            self._legend.show_values(moment.values)

    def _show_now(self) -> None:
        if self._latest is None:
            return
        sample, reading, parts = self._latest
        values: dict[str, float | None] = {name: None if parts is None else getattr(parts, name) for name in LAYERS}
        values["total"] = reading.engine_bytes
        values["others"] = reading.others_bytes
        values["oom_line"] = reading.oom_line(sample.margin_bytes)
        values["predicted"] = sample.predicted(self._name)
        self._legend.show_values(values)
        self._legend.show_source(reading.engine_source)

    def _show_standing(self) -> None:
        if self._latest is None:
            self._words.setText(self.tr("Waiting for the first reading."))
            return
        sample, reading, parts = self._latest
        room = room_under_line(reading, sample.margin_bytes)
        self._words.setText(self._standing(reading, room))
        set_role(self._words, alarm(room, reading.capacity_bytes))
        self._totals.show_text(format_bytes_pair(reading.used_bytes, reading.capacity_bytes))
        self._totals.setToolTip(
            self.tr("In use by all programs: {0}\nThere is: {1}").format(
                format_exact_bytes(reading.used_bytes), format_exact_bytes(reading.capacity_bytes)
            )
        )
        self._show_bar(reading, parts, sample.margin_bytes)

    def _standing(self, reading: DomainReading, room: int | None) -> str:
        if reading.available_bytes is None:
            return self.tr("What is available here could not be read.")
        if room is None:
            return self.tr("What the engine holds here could not be read.")
        size = format_bytes(abs(room))
        words = {
            "": self.tr("{0} under the line").format(size),
            "amber": self.tr("Low: only {0} under the line").format(size),
            "red": self.tr("Very low: {0} under the line").format(size),
        }[alarm(room, reading.capacity_bytes)]
        if room < 0:
            words = self.tr("Over the line by {0}").format(size)
        fit = self._fit_words()
        return f"{words}; {fit}" if fit else words

    def _fit_words(self) -> str:
        if self._replies_left is not None and self._max_n_ctx is not None:
            return self.tr("full in about {0} replies").format(self._replies_left)
        if self._max_n_ctx is None:
            return ""
        if self._n_ctx_train and self._max_n_ctx >= self._n_ctx_train:
            return self.tr("the model's whole context of {0} tokens fits").format(format_tokens(self._n_ctx_train))
        if self._max_n_ctx <= 0:
            return self.tr("no context fits")
        return self.tr("this chat fits up to {0} tokens").format(format_tokens(self._max_n_ctx))

    def _show_bar(self, reading: DomainReading, parts: Parts | None, margin_bytes: int) -> None:
        capacity, ceiling = reading.capacity_bytes, reading.ceiling_bytes
        if capacity is None:
            self._bar.show_segments(0, ())
            return
        theme = self._theme
        segments = []
        if parts is not None:
            for name in LAYERS:
                size = getattr(parts, name)
                segments.append(Segment(size, part_color(name, theme), f"{part_words(name)[0]}: {format_bytes(size)}"))
        marks = []
        line = reading.oom_line(margin_bytes)
        if ceiling is not None and line is not None:
            engine = reading.engine_bytes or 0
            room, margin = max(0, line - engine), max(0, ceiling - max(line, engine))
            others = max(0, capacity - max(ceiling, engine))
            segments += [
                Segment(room, theme.surface, self.tr("Room: {0}").format(format_bytes(room))),
                Segment(
                    margin, theme.chart.oom_line, self.tr("Margin kept free: {0}").format(format_bytes(margin)), True
                ),
                Segment(
                    others,
                    mix(theme.chart.others, theme.surface, 0.6),
                    self.tr("Other programs: {0}").format(format_bytes(others)),
                ),
            ]
            marks.append(BarMark(line, theme.chart.oom_line, self.tr("OOM line: {0}").format(format_bytes(line))))
        self._bar.show_segments(capacity, segments, marks)
