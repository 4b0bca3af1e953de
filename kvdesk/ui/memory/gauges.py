"""Small gauges: the KV cache in tokens and bytes, the context in use. UI thread."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from kvdesk.backend.protocol.facts import KvState
from kvdesk.ui.memory.segment_bar import Segment, SegmentBar, Swatch
from kvdesk.ui.widgets.numbers import (
    format_bytes,
    format_bytes_pair,
    format_percent,
    format_tokens,
    short_tokens,
    unknown,
)
from kvdesk.ui.widgets.stable_width_label import StableWidthLabel
from kvdesk.ui.widgets.theme import Theme, mix, set_role

CONTEXT_AMBER = 0.80
CONTEXT_RED = 0.95


class KvGauge(QWidget):
    """The KV cache: cells occupied, allocated and at most, in tokens and bytes, as numbers beside a bar."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._kv: KvState | None = None
        self._n_ctx_limit: int | None = None
        self._full_bytes: int | None = None
        heading = QLabel(self.tr("KV cache"))
        set_role(heading, "heading")
        self._summary = StableWidthLabel()
        self._summary.setAlignment(Qt.AlignmentFlag.AlignRight)
        set_role(self._summary, "muted")
        top = QHBoxLayout()
        top.addWidget(heading)
        top.addStretch(1)
        top.addWidget(self._summary)
        self._bar = SegmentBar(theme)
        self._bar.setAccessibleName(self.tr("KV cells occupied, allocated and at most"))
        self._rows = QGridLayout()
        self._rows.setHorizontalSpacing(8)
        self._rows.setVerticalSpacing(2)
        self._rows.setColumnStretch(1, 1)
        self._values: dict[str, tuple[StableWidthLabel, StableWidthLabel]] = {}
        self._swatches: dict[str, Swatch] = {}
        names = {"used": self.tr("Occupied"), "free": self.tr("Allocated, empty"), "rest": self.tr("Not allocated yet")}
        tips = {
            "used": self.tr("Cells that hold a token of the conversation."),
            "free": self.tr("Cells that exist and wait for tokens: memory already taken."),
            "rest": self.tr("Cells the context may still grow by, up to the Context Length (n_ctx)."),
        }
        for row, (key, name) in enumerate(names.items()):
            self._swatches[key] = Swatch("room" if key == "rest" else "full")
            label, tokens, size = QLabel(name), StableWidthLabel(), StableWidthLabel()
            for widget in (label, tokens, size):
                widget.setToolTip(tips[key])
            for widget in (tokens, size):
                widget.setAlignment(Qt.AlignmentFlag.AlignRight)
            set_role(label, "muted")
            self._rows.addWidget(self._swatches[key], row, 0)
            self._rows.addWidget(label, row, 1)
            self._rows.addWidget(tokens, row, 2, Qt.AlignmentFlag.AlignRight)
            self._rows.addWidget(size, row, 3, Qt.AlignmentFlag.AlignRight)
            self._values[key] = (tokens, size)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(top)
        layout.addWidget(self._bar)
        layout.addLayout(self._rows)
        self._refresh()

    def show_kv(self, kv: KvState | None, n_ctx_limit: int | None = None, full_bytes: int | None = None) -> None:
        """``n_ctx_limit`` cells are the most the context may reach, ``full_bytes`` what they will take (the plan)."""
        self._kv, self._n_ctx_limit, self._full_bytes = kv, n_ctx_limit, full_bytes
        self._refresh()

    def set_compact(self, compact: bool) -> None:
        """Only the bar and the summary."""
        for row in range(self._rows.rowCount()):
            for column in range(4):
                item = self._rows.itemAtPosition(row, column)
                widget = item.widget() if item is not None else None
                if widget is not None:
                    widget.setVisible(not compact)

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        self._bar.set_theme(theme)
        self._refresh()

    def _refresh(self) -> None:
        chart = self._theme.chart
        for key, color in (("used", chart.kv_used), ("free", chart.kv_free), ("rest", self._theme.text_muted)):
            self._swatches[key].set_color(color)
        kv = self._kv
        if kv is None:
            self._summary.show_text(self.tr("no context"))
            self._bar.show_segments(0, ())
            for tokens, size in self._values.values():
                tokens.show_text("")
                size.show_text("–")
            return
        limit = max(self._n_ctx_limit or kv.cells_allocated, kv.cells_allocated)
        rest = limit - kv.cells_allocated
        rest_bytes = None if self._full_bytes is None else max(0, self._full_bytes - kv.bytes_allocated)
        cells = {"used": kv.cells_used, "free": max(0, kv.cells_allocated - kv.cells_used), "rest": rest}
        sizes = {"used": kv.bytes_used, "free": kv.bytes_allocated - kv.bytes_used, "rest": rest_bytes if rest else 0}
        colors = {"used": chart.kv_used, "free": chart.kv_free, "rest": self._theme.text_muted}
        segments = []
        for key, (tokens, size) in self._values.items():
            tokens.show_text(self.tr("{0} tokens").format(format_tokens(cells[key])))
            size.show_text(format_bytes(sizes[key]))
            label = f"{self._rows_label(key)}: {tokens.text()}, {size.text()}"
            segments.append(Segment(cells[key], colors[key], label, is_room=key == "rest"))
        if limit:
            self._bar.show_segments(limit, segments)
        else:  # a recurrent model keeps state, not cells
            used, free = (
                Segment(s, c, "") for s, c in ((kv.bytes_used, chart.kv_used), (sizes["free"], chart.kv_free))
            )
            self._bar.show_segments(max(1, kv.bytes_allocated), (used, free))
        self._summary.show_text(self.tr("{0} allocated").format(format_bytes_pair(kv.bytes_used, kv.bytes_allocated)))

    def _rows_label(self, key: str) -> str:
        row = list(self._values).index(key)
        item = self._rows.itemAtPosition(row, 1)
        widget = item.widget() if item is not None else None
        return widget.text() if isinstance(widget, QLabel) else ""


class ContextGauge(QWidget):
    """Tokens in use against the Context Length in one small line: "12.4k / 32k" over a thin bar; amber at 80 %, red at 95 %."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._used: int | None = None
        self._draft = 0
        self._limit: int | None = None
        self._label = StableWidthLabel()
        self._bar = SegmentBar(theme, height_px=4)
        self._bar.setAccessibleName(self.tr("Context in use"))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(1)
        layout.addWidget(self._label, 0, Qt.AlignmentFlag.AlignLeft)
        layout.addWidget(self._bar)
        self.setMinimumWidth(self._label.fontMetrics().horizontalAdvance("100.0k / 128k  "))
        self._refresh()

    def show_tokens(self, used: int | None, limit: int | None, draft: int = 0) -> None:
        """``used`` of ``limit`` tokens, ``draft`` more being typed."""
        self._used, self._limit, self._draft = used, limit, draft
        self._refresh()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        self._bar.set_theme(theme)
        self._refresh()

    def _refresh(self) -> None:
        used, limit = self._used, self._limit
        if used is None or not limit:
            self._label.show_text(unknown() if limit else "–")
            self._bar.show_segments(0, ())
            self.setToolTip("")
            set_role(self._label, "muted")
            return
        share = (used + self._draft) / limit
        tone = "red" if share >= CONTEXT_RED else "amber" if share >= CONTEXT_AMBER else "muted"
        color = {"red": self._theme.red, "amber": self._theme.amber, "muted": self._theme.accent}[tone]
        set_role(self._label, tone)
        self._label.show_text(f"{short_tokens(used)} / {short_tokens(limit)}")
        segments = [Segment(used, color, self.tr("{0} tokens in use").format(format_tokens(used)))]
        if self._draft:
            draft = self.tr("{0} tokens in the draft").format(format_tokens(self._draft))
            segments.append(Segment(self._draft, mix(color, self._theme.surface, 0.5), draft))
        self._bar.show_segments(limit, segments)
        tip = self.tr("{0} of {1} tokens in use ({2}); n_ctx").format(
            format_tokens(used), format_tokens(limit), format_percent(used / limit)
        )
        self.setToolTip(tip)
