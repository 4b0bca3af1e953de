"""The KV cache in one strip: a bar of cells occupied, allocated and still to come, and one line of figures. UI thread."""

from __future__ import annotations

from PySide6.QtWidgets import QFrame, QSizePolicy, QVBoxLayout, QWidget

from kvdesk.backend.protocol.facts import KvState
from kvdesk.ui.memory.segment_bar import Segment, SegmentBar
from kvdesk.ui.widgets.numbers import format_bytes, format_bytes_pair, format_tokens
from kvdesk.ui.widgets.plain_text import PlainLabel, plain_tip
from kvdesk.ui.widgets.theme import Theme, set_role, set_small


class KvStrip(QFrame):
    """What the conversation holds of the cache, what is allocated, and what it may grow to."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._kv: KvState | None = None
        self._n_ctx_limit: int | None = None
        self._full_bytes: int | None = None
        set_role(self, "card")
        self.setAccessibleName(self.tr("KV cache"))
        self._bar = SegmentBar(theme)
        self._bar.setAccessibleName(self.tr("KV cells occupied, allocated and at most"))
        self._line = PlainLabel()
        self._line.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        set_small(self._line)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 4, 8, 3)
        layout.setSpacing(2)
        layout.addWidget(self._bar)
        layout.addWidget(self._line)
        self._refresh()

    def show_kv(self, kv: KvState | None, n_ctx_limit: int | None = None, full_bytes: int | None = None) -> None:
        """``n_ctx_limit`` cells are the most the context may reach, ``full_bytes`` what they will take (the plan)."""
        self._kv, self._n_ctx_limit, self._full_bytes = kv, n_ctx_limit, full_bytes
        self._refresh()

    @property
    def words(self) -> str:
        """The text of the line under the bar."""
        return self._line.text()

    @property
    def bar(self) -> SegmentBar:
        """The widget that draws occupied and allocated cells."""
        return self._bar

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        self._bar.set_theme(theme)
        self._refresh()

    def _refresh(self) -> None:
        kv = self._kv
        if kv is None:
            self._line.setText(self.tr("KV cache: no context"))
            self._line.setToolTip("")
            self._bar.show_segments(0, ())
            return
        limit = max(self._n_ctx_limit or kv.cells_allocated, kv.cells_allocated)
        held = format_bytes_pair(kv.bytes_used, kv.bytes_allocated)
        if limit:
            words = self.tr("KV {0} / {1} tokens, {2}").format(
                format_tokens(kv.cells_used), format_tokens(kv.cells_allocated), held
            )
        else:  # a recurrent model keeps state, not cells
            words = self.tr("KV state {0}").format(held)
        if limit > kv.cells_allocated:
            grown = format_bytes(self._full_bytes)
            words += self.tr(", grows to {0}").format(grown)
        self._line.setText(words)
        self._line.setToolTip(plain_tip(self._explained(kv, limit)))
        self._bar.show_segments(*self._segments(kv, limit))

    def _segments(self, kv: KvState, limit: int) -> tuple[int, list[Segment]]:
        chart = self._theme.chart
        free_bytes = kv.bytes_allocated - kv.bytes_used
        used_words = self.tr("Occupied: {0} tokens, {1}").format(
            format_tokens(kv.cells_used), format_bytes(kv.bytes_used)
        )
        free_cells = max(0, kv.cells_allocated - kv.cells_used)
        free_words = self.tr("Allocated, empty: {0} tokens, {1}").format(
            format_tokens(free_cells), format_bytes(free_bytes)
        )
        if not limit:
            sizes = (kv.bytes_used, free_bytes)
            return max(1, kv.bytes_allocated), [
                Segment(size, color, words)
                for size, color, words in zip(
                    sizes, (chart.kv_used, chart.kv_free), (used_words, free_words), strict=True
                )
            ]
        rest = limit - kv.cells_allocated
        rest_bytes = None if self._full_bytes is None else max(0, self._full_bytes - kv.bytes_allocated)
        rest_words = self.tr("Not allocated yet: {0} tokens, {1}").format(
            format_tokens(rest), format_bytes(rest_bytes if rest else 0)
        )
        return limit, [
            Segment(kv.cells_used, chart.kv_used, used_words),
            Segment(free_cells, chart.kv_free, free_words),
            Segment(rest, self._theme.text_muted, rest_words, is_room=True),
        ]

    def _explained(self, kv: KvState, limit: int) -> str:
        return "\n".join(segment.label for segment in self._segments(kv, limit)[1])
