"""The gauge of the context in use. UI thread."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QVBoxLayout, QWidget

from kvdesk.ui.memory.segment_bar import Segment, SegmentBar
from kvdesk.ui.widgets.numbers import (
    format_percent,
    format_tokens,
    short_tokens,
    unknown,
)
from kvdesk.ui.widgets.stable_width_label import StableWidthLabel
from kvdesk.ui.widgets.theme import Theme, mix, set_role

CONTEXT_AMBER = 0.80
CONTEXT_RED = 0.95


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
