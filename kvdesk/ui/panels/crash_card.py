"""The crash card: why the engine died, the last minute of its memory, and buttons to load it again. UI thread.

The window and the chat stay whole; this only tells and asks. Its chart needs pyqtgraph and is left out until it can
be built.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from kvdesk.backend.protocol.facts import Buffer
from kvdesk.backend.system.samples import Sample
from kvdesk.ui.memory.composition import split
from kvdesk.ui.memory.plots.chart_event import ChartEvent
from kvdesk.ui.widgets.numbers import format_bytes, format_clock, format_tokens
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.theme import Theme, set_role

CHART_HEIGHT_PX = 110


class CrashCard(QFrame):
    """What is shown after the engine died; hidden until ``show_crash``."""

    reload_requested = Signal()
    """Load again with the same settings."""
    reload_smaller_requested = Signal(int)
    """Load again with this Context Length."""
    reload_without_gpu_requested = Signal()
    """Load again with no layer on a graphics card."""
    copy_report_requested = Signal()
    show_log_requested = Signal()
    dismissed = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._n_ctx = 0
        self._plot = None
        set_role(self, "card")
        self.setAccessibleName(self.tr("The engine died"))
        title = PlainLabel(self.tr("The engine died"))
        set_role(title, "red")
        title.setStyleSheet("font-weight: 600;")
        self._when = PlainLabel()
        set_role(self._when, "muted")
        top = QHBoxLayout()
        top.addWidget(title)
        top.addStretch(1)
        top.addWidget(self._when)
        self._sentence = PlainLabel()
        self._sentence.setWordWrap(True)
        self._sentence.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._kept = PlainLabel(self.tr("The conversation is kept, and a reply as far as it was written."))
        self._kept.setWordWrap(True)
        set_role(self._kept, "muted")
        self._chart_words = PlainLabel()
        set_role(self._chart_words, "muted")
        self._smaller = self._button("", self.tr("Load the same model with a shorter context"))
        self._smaller.hide()
        self._smaller.clicked.connect(lambda: self.reload_smaller_requested.emit(self._n_ctx))
        self._reload = self._button(self.tr("Reload"), self.tr("Load the same model with the same settings"))
        self._reload.clicked.connect(self.reload_requested)
        self._without_gpu = self._button(
            self.tr("Go on without the GPU"),
            self.tr("Load the same model in RAM alone. GPU Offload in the settings turns the GPU on again."),
        )
        self._without_gpu.hide()
        self._without_gpu.clicked.connect(self.reload_without_gpu_requested)
        self._report = self._button(
            self.tr("Copy report"), self.tr("Versions, settings, machine and the last minute, for a bug tracker")
        )
        self._report.clicked.connect(self.copy_report_requested)
        self._log = self._button(self.tr("Show log"), self.tr("What llama.cpp wrote last"))
        self._log.clicked.connect(self.show_log_requested)
        self._dismiss = self._button(self.tr("Dismiss"), "")
        set_role(self._dismiss, "flat")
        self._dismiss.clicked.connect(self.dismiss)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(12, 12, 12, 12)
        self._layout.setSpacing(8)
        self._layout.addLayout(top)
        for widget in (self._sentence, self._kept, self._chart_words):
            self._layout.addWidget(widget)
        self._add_buttons((self._smaller, self._reload))
        self._add_buttons((self._without_gpu, self._report, self._log), last=self._dismiss)
        self.hide()

    def show_crash(
        self,
        sentence: str,
        time_s: float,
        last_minute: Sequence[Sample] = (),
        buffers: tuple[Buffer, ...] = (),
        domain: str = "RAM",
        events: Sequence[ChartEvent] = (),
    ) -> None:
        """What happened, when (Unix time), and the samples before it; the chart is of ``domain``."""
        self._sentence.setText(sentence)
        self._when.setText(format_clock(time_s))
        self._show_chart(last_minute, buffers, domain, (*events, ChartEvent(time_s, "crash", sentence)))
        self.show_smaller(None)
        self.offer_without_gpu(offered=False)
        self.set_busy(False)
        self.show()

    def show_smaller(self, n_ctx: int | None, total_bytes: int | None = None, fits: bool | None = None) -> None:
        """Offer to load again with ``n_ctx`` tokens, priced; None: there is no such offer (yet)."""
        self._n_ctx = n_ctx or 0
        self._smaller.setVisible(n_ctx is not None)
        set_role(self._smaller, "primary")
        set_role(self._reload, "" if n_ctx is not None else "primary")
        if n_ctx is None:
            return
        notes = [format_bytes(total_bytes)] if total_bytes is not None else []
        notes += {True: [self.tr("fits")], False: [self.tr("does not fit")], None: []}[fits]
        words = self.tr("Reload with context {0}").format(format_tokens(n_ctx))
        self._smaller.setText(f"{words} ({', '.join(notes)})" if notes else words)

    def offer_without_gpu(self, *, offered: bool) -> None:
        """Offer to go on without the graphics card, where its driver may have been the cause."""
        self._without_gpu.setVisible(offered)

    def set_busy(self, busy: bool) -> None:
        """A reload is under way: no second one."""
        for button in (self._smaller, self._reload, self._without_gpu):
            button.setEnabled(not busy)

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        if self._plot is not None:
            self._plot.set_theme(theme)

    @property
    def sentence(self) -> str:
        """The text that says what happened."""
        return self._sentence.text()

    def dismiss(self) -> None:
        """Close it, as its button does."""
        self.hide()
        self.dismissed.emit()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _add_buttons(self, buttons: Sequence[QPushButton], last: QPushButton | None = None) -> None:
        """A row of ``buttons`` from the left, and ``last`` at its right end."""
        row = QHBoxLayout()
        row.setSpacing(8)
        for button in buttons:
            row.addWidget(button)
        row.addStretch(1)
        if last:
            row.addWidget(last)
        self._layout.addLayout(row)

    def _button(self, text: str, tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        return button

    def _show_chart(
        self, samples: Sequence[Sample], buffers: tuple[Buffer, ...], domain: str, events: tuple[ChartEvent, ...]
    ) -> None:
        if self._plot is not None:
            self._layout.removeWidget(self._plot)
            self._plot.hide()
            self._plot.deleteLater()
            self._plot = None
        samples = [sample for sample in samples if sample.domain(domain) is not None]
        self._chart_words.setVisible(bool(samples))
        if not samples:
            return
        self._chart_words.setText(self.tr("{0} in the last {1} s").format(domain, self._span_s(samples)))
        from kvdesk.ui.memory.plots.domain_plot import DomainPlot

        self._plot = DomainPlot(self._theme, capacity_rows=max(2, len(samples)))
        self._plot.setFixedHeight(CHART_HEIGHT_PX)
        self._plot.setAccessibleName(self.tr("Memory in the last minute"))
        for sample in samples:
            reading = sample.domain(domain)
            if reading is not None:
                parts = split(reading, buffers, sample.kv)
                self._plot.add_reading(
                    sample.monotonic_s, sample.time_s, reading, parts, sample.predicted(domain), sample.margin_bytes
                )
        self._plot.show_events(events)
        start, end = samples[0].monotonic_s, samples[-1].monotonic_s
        self._plot.show_range(start, end + max(2.0, (end - start) * 0.04))  # room for the crash's own mark
        self._layout.insertWidget(self._layout.indexOf(self._chart_words) + 1, self._plot)

    def _span_s(self, samples: Sequence[Sample]) -> int:
        return round(samples[-1].monotonic_s - samples[0].monotonic_s)
