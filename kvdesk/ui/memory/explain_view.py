"""Why the KV cache is as large as it is: the formula with the model's own numbers beside the exact figure, its size at
the usual lengths, and how many conversations fit. UI thread; the arithmetic is explain.py's and the planner's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QGridLayout, QVBoxLayout, QWidget

from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.planning.explain import KvFacts, kv_facts, why
from kvdesk.backend.planning.plan import CapacityCell, MemoryPlan
from kvdesk.ui.memory.segment_bar import Segment, SegmentBar
from kvdesk.ui.widgets.empty_layout import empty_layout
from kvdesk.ui.widgets.numbers import format_bytes, format_exact_bytes, format_tokens, short_tokens
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.theme import Theme, set_role, set_small

ATTENTION_WORDS = {
    "MHA": "multi-head attention: every head has K and V of its own",
    "GQA": "grouped-query attention: several heads share one K and V",
    "MQA": "multi-query attention: all heads share one K and V",
    "MLA": "latent attention: K and V of all heads in one compressed vector",
    "SWA": "sliding window: some layers keep only the last tokens",
    "recurrent": "recurrent: a state of fixed size, no KV cache",
    "hybrid": "hybrid: some layers attend, others keep a recurrent state",
}


class ExplainView(QWidget):
    """The page that explains the plan, with one card per question."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._facts: KvFacts | None = None
        self._formula_card = _Card(self.tr("Why this much KV cache"))
        self._bars = QGridLayout()
        self._bars.setHorizontalSpacing(8)
        self._bars.setColumnStretch(1, 1)
        self._formula_card.column.addLayout(self._bars)
        self._sentences = PlainLabel()
        self._sentences.setWordWrap(True)
        self._sentences.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._formula_card.column.addWidget(self._sentences)
        self._sizes_card = _Card(self.tr("KV size by context length"))
        self._sizes = _Table()
        self._sizes_card.column.addWidget(self._sizes)
        self._capacity_card = _Card(self.tr("Conversations side by side"))
        self._capacity_note = PlainLabel(
            self.tr("Total memory with each conversation's own KV cache. ✓ fits, ✗ does not.")
        )
        self._capacity_note.setWordWrap(True)
        set_role(self._capacity_note, "muted")
        self._capacity = _Table()
        self._capacity_card.column.addWidget(self._capacity_note)
        self._capacity_card.column.addWidget(self._capacity)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        for card in (self._formula_card, self._sizes_card, self._capacity_card):
            layout.addWidget(card)
        self.clear()

    def show_plan(self, plan: MemoryPlan, model: ModelFile) -> None:
        """Explain the KV cache of ``plan``."""
        self._facts = kv_facts(model, plan.footprint) if plan.footprint else None
        device = max(plan.devices, key=lambda device: device.kv_bytes)
        lines = [f"{name}: {ATTENTION_WORDS[name]}." for name in model.attention if name in ATTENTION_WORDS]
        lines += why("kv", plan, device, model)
        lines += why("recurrent", plan, device, model)
        if not lines:
            lines = [self.tr("This model keeps no KV cache.")]
        self._sentences.setText("\n".join(f"•  {line[:1].upper()}{line[1:]}" for line in lines))
        self._draw_bars()

    def show_kv_sizes(self, sizes: Mapping[tuple[int, str], int | None], n_ctx_train: int | None = None) -> None:
        """KV bytes by (context length, cache type): a page of the usual lengths and the model's own."""
        lengths = sorted({length for length, _ in sizes})
        types = list(dict.fromkeys(kind for _, kind in sizes))
        head = [self.tr("Tokens"), *types]
        rows = [
            [
                self.tr("{0} (its own)").format(short_tokens(n)) if n == n_ctx_train else short_tokens(n),
                *(format_bytes(sizes.get((n, kind))) for kind in types),
            ]
            for n in lengths
        ]
        tips = [["", *(format_exact_bytes(sizes.get((n, kind))) for kind in types)] for n in lengths]
        self._sizes.fill(head, rows, tips)
        self._sizes_card.setVisible(bool(rows))

    def show_capacity(self, cells: Sequence[CapacityCell]) -> None:
        """How many parallel conversations of how many tokens fit."""
        lengths = sorted({cell.n_ctx_seq for cell in cells})
        counts = sorted({cell.n_seq for cell in cells})
        by_place = {(cell.n_seq, cell.n_ctx_seq): cell for cell in cells}
        head = [self.tr("At once"), *(short_tokens(n) for n in lengths)]
        rows, tips = [], []
        for count in counts:
            places = [by_place.get((count, n)) for n in lengths]
            rows.append([str(count), *(_capacity_words(cell) for cell in places)])
            tips.append(["", *("" if cell is None else self._capacity_tip(cell) for cell in places)])
        self._capacity.fill(head, rows, tips)
        self._capacity_card.setVisible(bool(rows))

    def clear(self) -> None:
        """Show no explanation: no model is chosen."""
        self._facts = None
        self._sentences.setText(self.tr("Choose a model to see where its figures come from."))
        self._sizes_card.hide()
        self._capacity_card.hide()
        self._draw_bars()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        self._draw_bars()

    @property
    def sentences(self) -> str:
        """The text of all reasons shown."""
        return self._sentences.text()

    def size_texts(self) -> list[list[str]]:
        """The table of sizes, its head first."""
        return self._sizes.texts()

    def capacity_texts(self) -> list[list[str]]:
        """The table of conversations, its head first."""
        return self._capacity.texts()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _draw_bars(self) -> None:
        """Every head its own, the formula, the exact figure: side by side on one scale."""
        empty_layout(self._bars)
        facts = self._facts
        if facts is None:
            return
        chart = self._theme.chart
        bars = [
            (self.tr("By the formula"), facts.formula_bytes, chart.overhead),
            (self.tr("Exact"), facts.exact_bytes, chart.kv_used),
        ]
        if facts.shared_heads_ratio > 1:
            bars.insert(0, (self.tr("Were no heads shared"), facts.every_head_bytes, chart.overhead))
        whole = max(size for _, size, _ in bars)
        for row, (words, size, color) in enumerate(bars):
            name, value = PlainLabel(words), PlainLabel(format_bytes(size))
            set_role(name, "muted")
            if color == chart.kv_used:
                set_role(value, "heading")
            value.setAlignment(Qt.AlignmentFlag.AlignRight)
            value.setToolTip(format_exact_bytes(size))
            bar = SegmentBar(self._theme, height_px=8)
            bar.setAccessibleName(words)
            bar.show_segments(whole, [Segment(size, color, f"{words}: {format_bytes(size)}")])
            for column, widget in enumerate((name, bar, value)):
                self._bars.addWidget(widget, row, column)

    def _capacity_tip(self, cell: CapacityCell) -> str:
        return self.tr("{0} conversations of {1} tokens: {2} in all, {3} of it KV").format(
            cell.n_seq, format_tokens(cell.n_ctx_seq), format_bytes(cell.total_bytes), format_bytes(cell.kv_bytes)
        )


class _Card(QFrame):
    def __init__(self, title: str) -> None:
        super().__init__()
        set_role(self, "card")
        heading = PlainLabel(title)
        set_role(heading, "heading")
        self.column = QVBoxLayout(self)
        self.column.setContentsMargins(8, 8, 8, 8)
        self.column.setSpacing(4)
        self.column.addWidget(heading)


class _Table(QWidget):
    """Aligned cells, the first column to the left."""

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(8)
        self._grid.setVerticalSpacing(2)
        self._texts: list[list[str]] = []

    def fill(self, head: list[str], rows: list[list[str]], tips: list[list[str]]) -> None:
        empty_layout(self._grid)
        self._texts = [head, *rows]
        for row, (texts, row_tips) in enumerate(zip(self._texts, [[""] * len(head), *tips], strict=True)):
            for column, (text, tip) in enumerate(zip(texts, row_tips, strict=True)):
                label = PlainLabel(text)
                label.setToolTip(tip)
                set_small(label)
                if row == 0 or column == 0:
                    set_role(label, "muted")
                if column:
                    label.setAlignment(Qt.AlignmentFlag.AlignRight)
                self._grid.addWidget(label, row, column)

    def texts(self) -> list[list[str]]:
        return self._texts


def _capacity_words(cell: CapacityCell | None) -> str:
    if cell is None:
        return "–"
    mark = {True: "✓ ", False: "✗ ", None: ""}[cell.fits]
    return mark + format_bytes(cell.total_bytes)
