"""The plan as a table: every component in every domain, predicted, measured and the error; the verdict on top. UI thread.

Two views: what the setting costs at full context (against what is loaded), and what was loaded as predicted and measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QGuiApplication, QKeyEvent, QKeySequence
from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QToolButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from kvdesk.backend.messages import Buffer, BufferKind
from kvdesk.backend.plan import DevicePlan, MemoryPlan, domain_name
from kvdesk.backend.samples import Sample
from kvdesk.ui.numbers import format_bytes, format_bytes_delta, format_exact_bytes, format_tokens
from kvdesk.ui.theme import Theme, set_role

COMPONENTS = ("weights_mapped", "weights", "kv", "recurrent", "compute", "output", "overhead")
ALWAYS_SHOWN = frozenset({"kv", "compute"})


@dataclass(frozen=True)
class Measured:
    """What was loaded: ``plan`` predicted for just that context, ``by_domain`` component -> bytes as llama.cpp and the
    system say; None where unknown."""

    plan: MemoryPlan
    by_domain: Mapping[str, Mapping[str, int | None]]


def measured(plan: MemoryPlan, buffers: tuple[Buffer, ...], sample: Sample | None) -> Measured:
    """Lay llama.cpp's real ``buffers`` and the monitor's ``sample`` beside ``plan``.

    "resident" is the engine's measured bytes; "overhead" what of it no buffer explains, known only where nothing is
    lazily given, that is on devices.
    """
    rows: dict[str, dict[str, int | None]] = {}
    for device in plan.devices:
        mine = [buffer for buffer in buffers if domain_name(buffer.device) == device.name]
        row: dict[str, int | None] = {name: _sum(mine, name) for name in COMPONENTS if name != "overhead"}
        reading = sample.domain(device.name) if sample else None
        row["resident"] = reading.engine_bytes if reading else None
        in_buffers = sum(buffer.size_bytes for buffer in mine)
        is_device = device.kind != "ram" and row["resident"] is not None
        row["overhead"] = max(0, row["resident"] - in_buffers) if is_device and row["resident"] is not None else None
        row["total"] = None if row["overhead"] is None else in_buffers + row["overhead"]
        rows[device.name] = row
    return Measured(plan, rows)


def components_of(loaded: Measured) -> list[dict[str, str | int | None]]:
    """Predicted and actual as plain values, for the session log's "predicted" event (its ``components``)."""
    rows: list[dict[str, str | int | None]] = []
    for device in loaded.plan.devices:
        actual = loaded.by_domain.get(device.name, {})
        for name in (*COMPONENTS, "resident"):
            predicted, real = _component(device, name), actual.get(name)
            if predicted or real:
                rows.append({"domain": device.name, "name": name, "predicted_bytes": predicted, "actual_bytes": real})
    return rows


class PlanTable(QWidget):
    """The verdict in a sentence, what it rests on, and the table."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._plan: MemoryPlan | None = None
        self._loaded: Measured | None = None
        self._verdict = QLabel()
        self._verdict.setWordWrap(True)
        self._source = QLabel()
        self._source.setWordWrap(True)
        set_role(self._source, "muted")
        self._warnings = QLabel()
        self._warnings.setWordWrap(True)
        set_role(self._warnings, "amber")
        self._as_set = self._view_button(self.tr("This setting"), self.tr("What the setting costs at full context"))
        self._as_loaded = self._view_button(
            self.tr("As loaded"), self.tr("What was loaded: predicted, measured, error")
        )
        self._group = QButtonGroup(self)
        views = QHBoxLayout()
        views.setSpacing(4)
        for button in (self._as_set, self._as_loaded):
            self._group.addButton(button)
            views.addWidget(button)
        views.addStretch(1)
        self._as_set.setChecked(True)
        self._as_loaded.setEnabled(False)
        self._group.buttonClicked.connect(self._refresh)
        self._tree = _Tree()
        self._tree.setAccessibleName(self.tr("Memory plan"))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (self._verdict, self._source, self._warnings):
            layout.addWidget(widget)
        layout.addLayout(views)
        layout.addWidget(self._tree, 1)
        self._refresh()

    def show_plan(self, plan: MemoryPlan | None) -> None:
        """What the present setting costs; None when no model is chosen."""
        self._plan = plan
        self._refresh()

    def show_loaded(self, loaded: Measured | None) -> None:
        """What is loaded, measured; None when nothing is."""
        was_loaded = self._loaded is not None
        self._loaded = loaded
        self._as_loaded.setEnabled(loaded is not None)
        if loaded is None:
            self._as_set.setChecked(True)
        elif not was_loaded:
            self._as_loaded.setChecked(True)
        self._refresh()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        self._refresh()

    @property
    def verdict(self) -> str:
        """The sentence on top."""
        return self._verdict.text()

    def as_text(self) -> str:
        """The table as tab-separated lines."""
        return self._tree.as_text()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _view_button(self, text: str, tip: str) -> QToolButton:
        button = QToolButton()
        button.setText(text)
        button.setCheckable(True)
        button.setToolTip(tip)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        return button

    def _refresh(self, *_: object) -> None:
        plan = self._plan or (self._loaded.plan if self._loaded else None)
        if plan is None:
            self._verdict.setText(self.tr("Choose a model to see what it will take."))
            set_role(self._verdict, "muted")
            for label in (self._source, self._warnings):
                label.hide()
            self._tree.fill((), (), QColor(self._theme.text_muted))
            return
        self._verdict.setText(plan.verdict.sentence)
        set_role(self._verdict, plan.verdict.alarm or "heading")
        self._warnings.setText("\n".join(plan.warnings))
        self._warnings.setVisible(bool(plan.warnings))
        self._source.show()
        if self._as_loaded.isChecked() and self._loaded is not None:
            self._show_as_loaded(self._loaded)
        else:
            self._show_as_set(plan)

    def _show_as_set(self, plan: MemoryPlan) -> None:
        source = (
            self.tr("llama.cpp's own dry run") if plan.source == "dry-run" else self.tr("an estimate from the header")
        )
        self._source.setText(self.tr("At {0} tokens, from {1}.").format(format_tokens(plan.n_ctx), source))
        now = {device.name: device for device in self._loaded.plan.devices} if self._loaded else {}
        titles = [self.tr("Component"), self.tr("Predicted")]
        if now:
            titles.append(self.tr("vs. loaded"))
        groups = []
        for device in plan.devices:
            rows = []
            loaded = now.get(device.name)
            for name, value, words in self._component_rows(device):
                cells = [format_bytes(value)]
                if now:
                    before = _component(loaded, name) if loaded else 0
                    cells.append(_error_words(None if value is None or before is None else value - before))
                rows.append(_Row(words, cells, format_exact_bytes(value), is_sum=name in ("total", "resident")))
            groups.append(_Group(self._domain_words(device), rows + self._line_rows(device), device.fits is False))
        self._tree.fill(titles, groups, QColor(self._theme.text_muted))

    def _show_as_loaded(self, loaded: Measured) -> None:
        self._source.setText(self.tr("With {0} cells allocated, as loaded.").format(format_tokens(loaded.plan.n_ctx)))
        titles = [self.tr("Component"), self.tr("Predicted"), self.tr("Actual"), self.tr("Error")]
        groups = []
        for device in loaded.plan.devices:
            actual = loaded.by_domain.get(device.name, {})
            rows = []
            for name, value, words in self._component_rows(device, actual):
                real = actual.get("resident" if name == "total" and not _is_split(device) else name)
                error = None if value is None or real is None else real - value
                tip = self.tr("Predicted {0}, measured {1}").format(format_exact_bytes(value), format_exact_bytes(real))
                if error and value:
                    tip += self.tr(", error {0}").format(f"{error / value:+.2%}")
                cells = [format_bytes(value), "–" if real is None else format_bytes(real), _error_words(error)]
                rows.append(_Row(words, cells, tip, is_sum=name in ("total", "resident")))
            groups.append(_Group(self._domain_words(device), rows + self._line_rows(device), device.fits is False))
        self._tree.fill(titles, groups, QColor(self._theme.text_muted))

    def _component_rows(
        self, device: DevicePlan, actual: Mapping[str, int | None] | None = None
    ) -> list[tuple[str, int | None, str]]:
        """(key, predicted bytes, words) for every row worth showing, sums last."""
        words = {
            "weights_mapped": self.tr("Weights, mapped"),
            "weights": self.tr("Weights"),
            "kv": self.tr("KV cache"),
            "recurrent": self.tr("Recurrent state"),
            "compute": self.tr("Compute"),
            "output": self.tr("Output"),
            "overhead": self.tr("Overhead (learned)") if device.overhead_learned else self.tr("Overhead (typical)"),
        }
        rows = []
        for name in COMPONENTS:
            value = _component(device, name)
            if value != 0 or name in ALWAYS_SHOWN or (actual or {}).get(name):
                rows.append((name, value, words[name]))
        if _is_split(device):
            rows.append(("total", device.total_bytes, self.tr("Reserved")))
            rows.append(("resident", device.resident_bytes, self.tr("Resident")))
        else:
            rows.append(("total", device.total_bytes, self.tr("Total")))
        return rows

    def _line_rows(self, device: DevicePlan) -> list[_Row]:
        lines = (
            (self.tr("OOM line"), device.oom_line_bytes, self.tr("The ceiling less the safety margin")),
            (self.tr("Ceiling now"), device.ceiling_bytes, self.tr("What the engine may hold here in all, now")),
            (self.tr("Other programs"), device.others_bytes, self.tr("In use by everything but the engine")),
            (self.tr("Capacity"), device.capacity_bytes, self.tr("What there is")),
        )
        rows = [_Row(words, [format_bytes(value)], tip, is_line=True) for words, value, tip in lines]
        room = device.room_bytes
        words = self.tr("Room") if room is None or room >= 0 else self.tr("Over the line")
        value = format_bytes(None if room is None else abs(room))
        return [_Row(words, [value], format_exact_bytes(room), is_sum=True, is_bad=device.fits is False), *rows]

    def _domain_words(self, device: DevicePlan) -> str:
        return f"{device.name}  ·  {device.description}" if device.description else device.name


@dataclass(frozen=True)
class _Row:
    words: str
    cells: list[str]
    tip: str
    is_sum: bool = False
    is_line: bool = False
    is_bad: bool = False


@dataclass(frozen=True)
class _Group:
    words: str
    rows: list[_Row]
    is_bad: bool


class _Tree(QTreeWidget):
    """The table; Ctrl+C copies it all."""

    def __init__(self) -> None:
        super().__init__()
        self.setRootIsDecorated(False)
        self.setIndentation(0)
        self.setUniformRowHeights(True)
        self.setSelectionMode(QTreeWidget.SelectionMode.NoSelection)
        self.setExpandsOnDoubleClick(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.header().setSectionsMovable(False)
        self.header().setStretchLastSection(False)

    def fill(self, titles: Sequence[str], groups: Sequence[_Group], muted: QColor) -> None:
        at = self.verticalScrollBar().value()
        self.clear()
        self.setColumnCount(max(1, len(titles)))
        self.setHeaderLabels(list(titles) or [""])
        self.setHeaderHidden(not titles)
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for column in range(1, len(titles)):
            self.headerItem().setTextAlignment(column, right)
        for group in groups:
            head = QTreeWidgetItem([group.words])
            _embolden(head, 0)
            self.addTopLevelItem(head)
            head.setFirstColumnSpanned(True)
            for row in group.rows:
                item = QTreeWidgetItem([row.words, *row.cells])
                for column in range(len(titles)):
                    item.setToolTip(column, row.tip)
                    if column:
                        item.setTextAlignment(column, right)
                    if row.is_sum:
                        _embolden(item, column)
                    if row.is_line:
                        item.setForeground(column, muted)
                head.addChild(item)
            head.setExpanded(True)
        header = self.header()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in range(1, len(titles)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.verticalScrollBar().setValue(at)

    def as_text(self) -> str:
        columns = range(self.columnCount())
        lines = ["\t".join(self.headerItem().text(column) for column in columns)]
        for index in range(self.topLevelItemCount()):
            head = self.topLevelItem(index)
            lines.append(head.text(0))
            rows = [head.child(row) for row in range(head.childCount())]
            lines += ["\t".join(row.text(column) for column in columns).rstrip() for row in rows]
        return "\n".join(lines)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Ctrl+C puts the table on the clipboard."""
        if event.matches(QKeySequence.StandardKey.Copy):
            QGuiApplication.clipboard().setText(self.as_text())
        else:
            super().keyPressEvent(event)


def _embolden(item: QTreeWidgetItem, column: int) -> None:
    font = item.font(column)
    font.setBold(True)
    item.setFont(column, font)


def _component(device: DevicePlan, name: str) -> int | None:
    if name == "weights":
        return device.weights_anonymous_bytes
    return getattr(device, f"{name}_bytes")


def _is_split(device: DevicePlan) -> bool:
    """Whether reserved and resident differ enough to be told apart."""
    return abs(device.total_bytes - device.resident_bytes) >= 1 << 20


def _sum(buffers: list[Buffer], component: str) -> int:
    kinds = {
        "weights_mapped": (BufferKind.WEIGHTS, True),
        "weights": (BufferKind.WEIGHTS, False),
        "kv": (BufferKind.KV, False),
        "recurrent": (BufferKind.RECURRENT, False),
        "compute": (BufferKind.COMPUTE, False),
        "output": (BufferKind.OUTPUT, False),
    }
    kind, mapped = kinds[component]
    return sum(b.size_bytes for b in buffers if b.kind is kind and b.mapped == mapped)


def _error_words(error: int | None) -> str:
    if error is None:
        return ""
    return format_bytes_delta(error) if error else "0"
