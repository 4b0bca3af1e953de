"""The plan as a table: every component in every domain, predicted, measured and the error; the verdict on top. UI thread.

Three views: what the setting costs at full context, what was loaded as predicted and measured, and earlier loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor
from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QToolButton,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.planning.calibration import Comparison
from kvdesk.backend.planning.device_plan import DevicePlan
from kvdesk.backend.planning.explain import why
from kvdesk.backend.planning.plan import MemoryPlan
from kvdesk.sizes import MIB
from kvdesk.ui.memory.plan_tree import Group, PlanTree, Row
from kvdesk.ui.widgets.numbers import (
    format_bytes,
    format_bytes_delta,
    format_clock,
    format_exact_bytes,
    format_tokens,
)
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.theme import Theme, set_role

COMPONENTS = ("weights_mapped", "weights", "kv", "recurrent", "compute", "output", "overhead", "checkpoints")
ALWAYS_SHOWN = frozenset({"kv", "compute"})
WHY = {"weights_mapped": "mapped", "resident": "total"}
"""Rows whose name in explain.why is another."""


@dataclass(frozen=True)
class Loaded:
    """``comparison`` of prediction and measurement for just the context that was made; ``plan`` of the same ``model``
    knows the domains."""

    plan: MemoryPlan
    model: ModelFile
    comparison: Comparison


class PlanTable(QWidget):
    """The verdict in a sentence, what it rests on, the table, and why the chosen figure is what it is."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._plan: MemoryPlan | None = None
        self._model: ModelFile | None = None
        self._loaded: Loaded | None = None
        self._history: tuple[Comparison, ...] = ()
        self._verdict = PlainLabel()
        self._verdict.setWordWrap(True)
        self._source = PlainLabel()
        self._source.setWordWrap(True)
        set_role(self._source, "muted")
        self._warnings = PlainLabel()
        self._warnings.setWordWrap(True)
        set_role(self._warnings, "amber")
        self._views = {
            "set": self._view_button(self.tr("This setting"), self.tr("What the setting costs at full context")),
            "loaded": self._view_button(self.tr("As loaded"), self.tr("What was loaded: predicted, measured, error")),
            "history": self._view_button(self.tr("History"), self.tr("How well earlier loads met their prediction")),
        }
        self._group = QButtonGroup(self)
        views = QHBoxLayout()
        views.setSpacing(4)
        for button in self._views.values():
            self._group.addButton(button)
            views.addWidget(button)
        views.addStretch(1)
        self._views["set"].setChecked(True)
        self._group.buttonClicked.connect(self._refresh)
        self._tree = PlanTree()
        self._tree.setAccessibleName(self.tr("Memory plan"))
        self._tree.currentItemChanged.connect(self._on_row_chosen)
        self._why = PlainLabel()
        self._why.setWordWrap(True)
        self._why.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        set_role(self._why, "muted")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (self._verdict, self._source, self._warnings):
            layout.addWidget(widget)
        layout.addLayout(views)
        layout.addWidget(self._tree, 1)
        layout.addWidget(self._why)
        self._refresh()

    def show_plan(self, plan: MemoryPlan | None, model: ModelFile | None = None) -> None:
        """What the present setting costs; None when no model is chosen. With ``model`` every figure answers "why"."""
        self._plan, self._model = plan, model
        self._refresh()

    def show_loaded(self, loaded: Loaded | None) -> None:
        """What was loaded. While a plan of another model is shown (it is about to be opened) nothing is said of it."""
        was_loaded = self._loaded is not None
        self._loaded = loaded
        if self._loaded is None and self._views["loaded"].isChecked():
            self._views["set"].setChecked(True)
        elif self._loaded is not None and not was_loaded and self._views["set"].isChecked():
            self._views["loaded"].setChecked(True)
        self._refresh()

    def show_history(self, history: Sequence[Comparison]) -> None:
        """Every load compared so far on this machine, oldest first."""
        self._history = tuple(history)
        self._refresh()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        self._refresh()

    @property
    def verdict(self) -> str:
        """The text of the verdict above the table."""
        return self._verdict.text()

    @property
    def why(self) -> str:
        """What is said about the chosen figure."""
        return self._why.text()

    def choose_view(self, name: str) -> None:
        """Turn to "set", "loaded" or "history", as if its button had been clicked."""
        self._views[name].click()

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
        loaded = self._loaded_of_model
        self._views["loaded"].setEnabled(loaded is not None)
        self._views["history"].setEnabled(bool(self._history))
        self._why.hide()
        plan = self._plan or (loaded.plan if loaded else None)
        for label in (self._source, self._warnings):
            label.hide()
        if plan is None:
            self._verdict.setText(self.tr("Choose a model to see what it will take."))
            set_role(self._verdict, "muted")
        else:
            self._verdict.setText(plan.verdict.sentence)
            set_role(self._verdict, plan.verdict.alarm or "heading")
            self._warnings.setText("\n".join(plan.warnings))
            self._warnings.setVisible(bool(plan.warnings))
        if self._views["history"].isChecked():
            self._show_history()
        elif self._views["loaded"].isChecked() and loaded is not None:
            self._show_as_loaded(loaded)
        elif plan is not None:
            self._show_as_set(plan)
        else:
            self._fill((), ())

    def _say_source(self, text: str) -> None:
        self._source.setText(text)
        self._source.show()

    def _fill(self, titles: Sequence[str], groups: Sequence[Group]) -> None:
        self._tree.fill(titles, groups, QColor(self._theme.text_muted))

    def _show_as_set(self, plan: MemoryPlan) -> None:
        source = (
            self.tr("llama.cpp's own dry run") if plan.source == "dry-run" else self.tr("an estimate from the header")
        )
        self._say_source(self.tr("At {0} tokens, from {1}.").format(format_tokens(plan.n_ctx), source))
        titles = [self.tr("Component"), self.tr("Predicted")]
        loaded = self._loaded_of_model
        if loaded:
            titles.append(self.tr("vs. loaded"))
        groups = []
        for device in plan.devices:
            rows = []
            for name, value, words in self._component_rows(device):
                cells = [format_bytes(value)]
                if loaded:
                    cells.append(_difference_words(_difference(device, name, loaded.comparison)))
                rows.append(_row(plan, self._model, device, name, words, cells, format_exact_bytes(value)))
            groups.append(Group(_domain_words(device), rows + self._line_rows(plan, device)))
        self._fill(titles, groups)

    @property
    def _loaded_of_model(self) -> Loaded | None:
        loaded = self._loaded
        is_same = loaded is not None and (self._model is None or self._model.path == loaded.model.path)
        return loaded if is_same else None

    def _show_as_loaded(self, loaded: Loaded) -> None:
        plan, comparison = loaded.plan, loaded.comparison
        self._say_source(
            self.tr("With {0} cells allocated, measured at {1}.").format(
                format_tokens(comparison.n_ctx), format_clock(comparison.time_s)
            )
        )
        groups = []
        for device in plan.devices:
            words = self._component_words(device) | {
                "weights": self.tr("Weights"),
                "overhead": self.tr("Overhead"),
                "total": self.tr("Resident"),
            }
            rows = []
            for row in comparison.rows:
                if row.domain != device.name or not (row.predicted_bytes or row.actual_bytes):
                    continue
                tip = self.tr("Predicted {0}, measured {1}").format(
                    format_exact_bytes(row.predicted_bytes), format_exact_bytes(row.actual_bytes)
                )
                if row.error_bytes and row.predicted_bytes:
                    tip += self.tr(", error {0}").format(f"{row.error_bytes / row.predicted_bytes:+.2%}")
                cells = [
                    format_bytes(row.predicted_bytes),
                    format_bytes(row.actual_bytes),
                    _difference_words(row.error_bytes),
                ]
                name = words.get(row.component, row.component)
                rows.append(_row(plan, loaded.model, device, row.component, name, cells, tip))
            groups.append(Group(_domain_words(device), rows))
        self._fill([self.tr("Component"), self.tr("Predicted"), self.tr("Actual"), self.tr("Error")], groups)

    def _show_history(self) -> None:
        self._say_source(self.tr("{0} loads compared on this machine.").format(len(self._history)))
        groups = []
        for comparison in reversed(self._history):
            types = f"K {comparison.type_k} V {comparison.type_v}"
            name = comparison.model.split(" (")[0]  # the key tells files of one name apart by their size
            words = f"{name}  ·  {format_tokens(comparison.n_ctx)}  ·  {types}"
            rows = [
                Row(
                    row.domain,
                    [
                        format_bytes(row.predicted_bytes),
                        format_bytes(row.actual_bytes),
                        _difference_words(row.error_bytes),
                    ],
                    self.tr("Predicted {0}, measured {1}").format(
                        format_exact_bytes(row.predicted_bytes), format_exact_bytes(row.actual_bytes)
                    ),
                )
                for row in comparison.rows
                if row.component == "total"
            ]
            groups.append(Group(words, rows))
        self._fill([self.tr("Load"), self.tr("Predicted"), self.tr("Actual"), self.tr("Error")], groups)

    def _component_words(self, device: DevicePlan) -> dict[str, str]:
        return {
            "weights_mapped": self.tr("Weights, mapped"),
            "weights": self.tr("Weights, anonymous") if device.weights_mapped_bytes else self.tr("Weights"),
            "kv": self.tr("KV cache"),
            "recurrent": self.tr("Recurrent state"),
            "compute": self.tr("Compute"),
            "output": self.tr("Output"),
            "overhead": self.tr("Overhead, learned") if device.overhead_learned else self.tr("Overhead, typical"),
            "checkpoints": self.tr("Checkpoints"),
        }

    def _component_rows(self, device: DevicePlan) -> list[tuple[str, int | None, str]]:
        """(key, predicted bytes, words) for every row worth showing, sums last."""
        words = self._component_words(device)
        rows = [
            (name, value, words[name])
            for name in COMPONENTS
            if (value := _component(device, name)) != 0 or name in ALWAYS_SHOWN
        ]
        if abs(device.total_bytes - device.resident_bytes) < MIB:
            return [*rows, ("total", device.total_bytes, self.tr("Total"))]
        return [
            *rows,
            ("total", device.total_bytes, self.tr("Reserved")),
            ("resident", device.resident_bytes, self.tr("Resident")),
        ]

    def _line_rows(self, plan: MemoryPlan, device: DevicePlan) -> list[Row]:
        held = (
            ("must_hold", self.tr("Must be held"), device.must_hold_bytes),
            ("droppable", self.tr("May be dropped"), device.weights_mapped_bytes),
        )
        lines = (
            *(held if device.weights_mapped_bytes else ()),  # else all of it must be
            ("line", self.tr("OOM line"), device.oom_line_bytes),
            ("ceiling", self.tr("Ceiling now"), device.ceiling_bytes),
            ("others", self.tr("Other programs"), device.others_bytes),
            ("capacity", self.tr("Capacity"), device.capacity_bytes),
        )
        room = device.room_bytes
        words = self.tr("Room") if room is None or room >= 0 else self.tr("Over the line")
        value = format_bytes(None if room is None else abs(room))
        return [
            _row(plan, self._model, device, "room", words, [value], format_exact_bytes(room)),
            *(_row(plan, self._model, device, key, text, [format_bytes(size)], "") for key, text, size in lines),
        ]

    def _on_row_chosen(self, item: QTreeWidgetItem | None) -> None:
        reason = item.data(0, Qt.ItemDataRole.UserRole) if item else ""
        self._why.setText(reason or "")
        self._why.setVisible(bool(reason))


def _component(device: DevicePlan, name: str) -> int | None:
    if name == "weights":
        return device.weights_anonymous_bytes
    return getattr(device, f"{name}_bytes")


def _difference(device: DevicePlan, name: str, loaded: Comparison) -> int | None:
    """What component ``name`` of the plan takes more than what was predicted for the load; None: not comparable."""
    if name == "weights" and device.weights_mapped_bytes:
        return None  # told with the mapped ones: a comparison knows all weights together
    if name in ("weights", "weights_mapped"):
        name, now = "weights", device.weights_bytes
    elif name == "resident" or (name == "total" and device.total_bytes == device.resident_bytes):
        name, now = "total", device.resident_bytes
    elif name == "total":
        return None
    else:
        now = _component(device, name)
    row = loaded.row(device.name, name)
    before = row.predicted_bytes if row else 0
    return None if now is None or before is None else now - before


def _domain_words(device: DevicePlan) -> str:
    return f"{device.name}  ·  {device.description}" if device.description else device.name


def _difference_words(difference: int | None) -> str:
    if difference is None:
        return ""
    return format_bytes_delta(difference) if difference else "0"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _row(
    plan: MemoryPlan, model: ModelFile | None, device: DevicePlan, key: str, words: str, cells: list[str], tip: str
) -> Row:
    reasons = why(WHY.get(key, key), plan, device, model) if model else ()
    return Row(
        words,
        cells,
        tip,
        "\n".join(_sentence(reason) for reason in reasons),
        is_sum=key in ("total", "resident", "room"),
        is_line=key in ("must_hold", "droppable", "line", "ceiling", "others", "capacity"),
    )
