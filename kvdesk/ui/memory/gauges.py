"""Small gauges: a segmented bar with marks, the KV gauge in tokens and bytes, the context gauge. UI thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QEvent, QRectF, QSize, Qt
from PySide6.QtGui import QBrush, QColor, QHelpEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QSizePolicy, QToolTip, QVBoxLayout, QWidget

from kvdesk.backend.messages import KvState
from kvdesk.ui.numbers import format_bytes, format_bytes_pair, format_percent, format_tokens, short_tokens, unknown
from kvdesk.ui.theme import Theme, mix, set_role

CONTEXT_AMBER = 0.80
CONTEXT_RED = 0.95


@dataclass(frozen=True)
class Segment:
    """A stretch of a bar: ``size`` in the bar's unit; ``is_room`` is drawn hollow, as what could still be had."""

    size: float
    color: str
    label: str
    is_room: bool = False


@dataclass(frozen=True)
class BarMark:
    """A tick across a bar at ``at``."""

    at: float
    color: str
    label: str


class SegmentBar(QWidget):
    """A horizontal bar of segments, from 0 to ``whole``, with ticks. Hovering a part says what it is."""

    def __init__(self, theme: Theme, height_px: int = 12, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._height_px = height_px
        self._segments: tuple[Segment, ...] = ()
        self._marks: tuple[BarMark, ...] = ()
        self._whole = 0.0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(self.tr("Memory bar"))

    def show_segments(self, whole: float, segments: Sequence[Segment], marks: Sequence[BarMark] = ()) -> None:
        """Draw ``segments`` one after another; what is left up to ``whole`` stays empty."""
        wanted = (whole, tuple(segments), tuple(marks))
        if wanted == (self._whole, self._segments, self._marks):
            return
        self._whole, self._segments, self._marks = wanted
        self.setAccessibleDescription("; ".join([*(s.label for s in segments), *(m.label for m in marks)]))
        self.update()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours; segments keep theirs until shown anew."""
        self._theme = theme
        self.update()

    def sizeHint(self) -> QSize:
        """Any width."""
        return QSize(120, self._height_px + 4)

    def event(self, event: QEvent) -> bool:
        """The tool tip is that of the part under the mouse."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            text = self.label_at(event.pos().x())
            QToolTip.showText(event.globalPos(), text, self)
            return True
        return super().event(event)

    def label_at(self, x_px: float) -> str:
        """What lies at ``x_px``; a mark within three pixels goes before the segment."""
        if self._whole <= 0 or self.width() <= 0:
            return ""
        for mark in self._marks:
            if abs(mark.at / self._whole * self.width() - x_px) <= 3:
                return mark.label
        at, passed = x_px / self.width() * self._whole, 0.0
        for segment in self._segments:
            passed += segment.size
            if at < passed:
                return segment.label
        return ""

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        """Segments with hairline gaps, then the marks."""
        painter = QPainter(self)
        bar = QRectF(0, (self.height() - self._height_px) / 2, self.width(), self._height_px)
        painter.fillRect(bar, QColor(self._theme.surface_raised))
        if self._whole > 0:
            x = 0.0
            for segment in self._segments:
                width = min(segment.size / self._whole * bar.width(), bar.width() - x)
                if width > 0:
                    self._paint_segment(painter, QRectF(bar.x() + x, bar.y(), width, bar.height()), segment)
                    x += width
            for mark in self._marks:
                at = round(min(mark.at / self._whole, 1.0) * (bar.width() - 1))
                painter.fillRect(QRectF(at - 1, bar.y() - 2, 2, bar.height() + 4), QColor(mark.color))
        painter.setPen(QPen(QColor(self._theme.border), 1))
        painter.drawRect(bar.adjusted(0.5, 0.5, -0.5, -0.5))

    def _paint_segment(self, painter: QPainter, rect: QRectF, segment: Segment) -> None:
        if segment.is_room:
            painter.fillRect(rect, QColor(self._theme.surface))
            painter.fillRect(rect, QBrush(QColor(segment.color), Qt.BrushStyle.BDiagPattern))
        else:
            painter.fillRect(rect.adjusted(0, 0, -1 if rect.width() > 3 else 0, 0), QColor(segment.color))


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
        self._summary = QLabel()
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
        self._values: dict[str, tuple[QLabel, QLabel]] = {}
        self._swatches: dict[str, Swatch] = {}
        names = {"used": self.tr("Occupied"), "free": self.tr("Allocated, empty"), "rest": self.tr("Not allocated yet")}
        tips = {
            "used": self.tr("Cells that hold a token of the conversation."),
            "free": self.tr("Cells that exist and wait for tokens: memory already taken."),
            "rest": self.tr("Cells the context may still grow by, up to the Context Length (n_ctx)."),
        }
        for row, (key, name) in enumerate(names.items()):
            self._swatches[key] = Swatch("room" if key == "rest" else "full")
            label, tokens, size = QLabel(name), QLabel(), QLabel()
            for widget in (label, tokens, size):
                widget.setToolTip(tips[key])
            for widget in (tokens, size):
                widget.setAlignment(Qt.AlignmentFlag.AlignRight)
            size.setMinimumWidth(size.fontMetrics().horizontalAdvance("1023 MiB"))
            set_role(label, "muted")
            for column, widget in enumerate((self._swatches[key], label, tokens, size)):
                self._rows.addWidget(widget, row, column)
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
                if item is not None and item.widget() is not None:
                    item.widget().setVisible(not compact)

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
            self._summary.setText(self.tr("no context"))
            self._bar.show_segments(0, ())
            for tokens, size in self._values.values():
                tokens.setText("–")
                size.setText("")
            return
        limit = max(self._n_ctx_limit or kv.cells_allocated, kv.cells_allocated)
        rest = limit - kv.cells_allocated
        rest_bytes = None if self._full_bytes is None else max(0, self._full_bytes - kv.bytes_allocated)
        cells = {"used": kv.cells_used, "free": max(0, kv.cells_allocated - kv.cells_used), "rest": rest}
        sizes = {"used": kv.bytes_used, "free": kv.bytes_allocated - kv.bytes_used, "rest": rest_bytes if rest else 0}
        colors = {"used": chart.kv_used, "free": chart.kv_free, "rest": self._theme.text_muted}
        segments = []
        for key, (tokens, size) in self._values.items():
            tokens.setText(self.tr("{0} tokens").format(format_tokens(cells[key])))
            size.setText(format_bytes(sizes[key]))
            label = f"{self._rows_label(key)}: {tokens.text()}, {size.text()}"
            segments.append(Segment(cells[key], colors[key], label, is_room=key == "rest"))
        if limit:
            self._bar.show_segments(limit, segments)
        else:  # a recurrent model keeps state, not cells
            used, free = (
                Segment(s, c, "") for s, c in ((kv.bytes_used, chart.kv_used), (sizes["free"], chart.kv_free))
            )
            self._bar.show_segments(max(1, kv.bytes_allocated), (used, free))
        self._summary.setText(self.tr("{0} allocated").format(format_bytes_pair(kv.bytes_used, kv.bytes_allocated)))

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
        self._label = QLabel()
        self._bar = SegmentBar(theme, height_px=4)
        self._bar.setAccessibleName(self.tr("Context in use"))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(1)
        layout.addWidget(self._label)
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
            self._label.setText(unknown() if limit else "–")
            self._bar.show_segments(0, ())
            self.setToolTip("")
            set_role(self._label, "muted")
            return
        share = (used + self._draft) / limit
        tone = "red" if share >= CONTEXT_RED else "amber" if share >= CONTEXT_AMBER else "muted"
        color = {"red": self._theme.red, "amber": self._theme.amber, "muted": self._theme.accent}[tone]
        set_role(self._label, tone)
        self._label.setText(f"{short_tokens(used)} / {short_tokens(limit)}")
        segments = [Segment(used, color, self.tr("{0} tokens in use").format(format_tokens(used)))]
        if self._draft:
            draft = self.tr("{0} tokens in the draft").format(format_tokens(self._draft))
            segments.append(Segment(self._draft, mix(color, self._theme.surface, 0.5), draft))
        self._bar.show_segments(limit, segments)
        tip = self.tr("{0} of {1} tokens in use ({2}); n_ctx").format(
            format_tokens(used), format_tokens(limit), format_percent(used / limit)
        )
        self.setToolTip(tip)


class Swatch(QWidget):
    """A square of colour before a legend's name. ``kind``: "full", "edged" (pale with an edge), "room" (hatched: not
    there yet), "line", "dotted"."""

    def __init__(self, kind: str = "full", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._color = "#000000"
        self._kind = kind
        self.setFixedSize(12, 12)

    def set_color(self, color: str) -> None:
        """Paint it in ``color``."""
        if color != self._color:
            self._color = color
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        """The square, or the line."""
        painter = QPainter(self)
        color = QColor(self._color)
        if self._kind in ("line", "dotted"):
            style = Qt.PenStyle.DotLine if self._kind == "dotted" else Qt.PenStyle.SolidLine
            painter.setPen(QPen(color, 2, style))
            painter.drawLine(0, 6, 12, 6)
            return
        if self._kind == "full":
            painter.fillRect(1, 1, 10, 10, color)
            return
        if self._kind == "edged":
            pale = QColor(color)
            pale.setAlphaF(0.4)
            painter.fillRect(1, 1, 10, 10, pale)
        else:
            painter.fillRect(1, 1, 10, 10, QBrush(color, Qt.BrushStyle.BDiagPattern))
        painter.setPen(color)
        painter.drawRect(1, 1, 9, 9)
