"""The legend of a memory chart: every part's colour, name and number, now or at the moment under the mouse. UI thread."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import QCoreApplication, Qt, Signal
from PySide6.QtWidgets import QGridLayout, QPushButton, QWidget

from kvdesk.ui.memory.segment_bar import Swatch
from kvdesk.ui.widgets.numbers import format_bytes
from kvdesk.ui.widgets.plain_text import PlainLabel, plain_tip
from kvdesk.ui.widgets.stable_width_label import StableWidthLabel
from kvdesk.ui.widgets.theme import ChartColors, Theme, mix, set_role, set_small

PARTS = ("kv_free", "kv_used", "compute", "overhead", "weights", "weights_mapped")
"""In the order of the stack from the top."""
LINES = ("total", "others", "oom_line", "predicted")
"""What they are held against."""
COLUMNS = (PARTS[:5], (*LINES, PARTS[5]))
"""As they are listed: the last part stands in the right column, so that no line is wasted."""
SHOWN_WHEN_SEEN = frozenset({"weights", "weights_mapped"})
"""Parts that one domain rarely has both of: listed once they are more than nothing."""
KINDS = {"oom_line": "line", "predicted": "dotted", "others": "edged"}


def part_color(name: str, theme: Theme) -> str:
    """The colour of a part or line. Mapped weights are the paler weights: the system can take them back."""
    chart: ChartColors = theme.chart
    return mix(chart.weights, theme.surface, 0.45) if name == "weights_mapped" else getattr(chart, name)


def part_words(name: str) -> tuple[str, str]:
    """A part's name and what it means."""
    tr = QCoreApplication.translate
    words = {
        "kv_free": (tr("Legend", "KV, empty"), tr("Legend", "Cells allocated for tokens to come.")),
        "kv_used": (tr("Legend", "KV, occupied"), tr("Legend", "Cells that hold the conversation.")),
        "compute": (
            tr("Legend", "Compute"),
            tr("Legend", "llama.cpp's compute and output buffers, at most what it reserved. Pages are given on first "
               "touch, so the border with overhead is not exact."),
        ),
        "overhead": (
            tr("Legend", "Overhead"),
            tr("Legend", "What no buffer explains: Python, libraries, vocabulary, a GPU's context."),
        ),
        "weights": (tr("Legend", "Weights"), tr("Legend", "Weights in memory of their own.")),
        "weights_mapped": (
            tr("Legend", "Weights, mapped"),
            tr("Legend", "Pages of the model file: the system can take them back and read them again."),
        ),
        "total": (tr("Legend", "Engine"), tr("Legend", "Measured; the parts beside it add up to it.")),
        "others": (
            tr("Legend", "Other programs"),
            tr("Legend", "In use by everything but the engine; hangs from the top of the chart."),
        ),
        "oom_line": (tr("Legend", "OOM line"), tr("Legend", "What the engine may hold now, less the safety margin.")),
        "predicted": (tr("Legend", "Full context"), tr("Legend", "Predicted total when the context is full.")),
    }  # fmt: skip
    return words[name]


class Legend(QWidget):
    """Two columns: the parts of the engine's memory, and what they are held against.

    With ``can_hide`` a part's name is a chip: clicking it asks to draw without that part.
    """

    part_toggled = Signal(str, bool)
    """A part, and whether it shall be drawn."""

    def __init__(self, theme: Theme, parent: QWidget | None = None, *, can_hide: bool = False) -> None:
        super().__init__(parent)
        self._theme = theme
        self._can_hide = can_hide
        self._hidden: frozenset[str] = frozenset()
        self._swatches: dict[str, Swatch] = {}
        self._names: dict[str, PlainLabel | QPushButton] = {}
        self._values: dict[str, StableWidthLabel] = {}
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(6)
        self._grid.setVerticalSpacing(1)
        for column, keys in zip((0, 3), COLUMNS, strict=True):
            self._grid.setColumnStretch(column + 1, 1)
            for row, key in enumerate(keys):
                self._add_row(row, column, key)
        self.show_when("")
        self.set_theme(theme)

    def show_values(self, values: Mapping[str, float | None]) -> None:
        """Bytes by part; None is written "unknown", for the prediction "–"."""
        for key, label in self._values.items():
            value = values.get(key)
            if value and key in SHOWN_WHEN_SEEN:
                self._show_row(key, True)
            text = "–" if key == "predicted" and value is None else format_bytes(value)
            label.show_text(text)

    def show_when(self, clock: str) -> None:
        """Which moment the numbers are of; empty is now."""
        self._names["total"].setText(self.tr("Engine {0}").format(clock) if clock else self.tr("Engine now"))

    def show_source(self, source: str) -> None:
        """Where the engine's figure comes from, in words."""
        for label in (self._names["total"], self._values["total"]):
            label.setToolTip(plain_tip(source) or part_words("total")[1])

    def value_text(self, key: str) -> str:
        """The number written for one part; empty while it is not listed."""
        label = self._values[key]
        return "" if label.isHidden() else label.text()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        for name, swatch in self._swatches.items():
            swatch.set_color(theme.border if name in self._hidden else part_color(name, theme))

    def show_hidden(self, hidden: frozenset[str]) -> None:
        """These parts are not drawn: their chips are off."""
        self._hidden = hidden
        for name in PARTS:
            chip = self._names[name]
            if isinstance(chip, QPushButton):
                chip.setChecked(name not in hidden)
        self.set_theme(self._theme)

    def _add_row(self, row: int, column: int, key: str) -> None:
        name, tip = part_words(key)
        label = self._chip(key, name) if self._can_hide and key in PARTS else PlainLabel(name)
        value = StableWidthLabel("–")
        value.setAlignment(Qt.AlignmentFlag.AlignRight)
        value.setAccessibleName(name)
        set_small(label)  # many numbers in a narrow dock
        set_small(value)
        value.setToolTip(tip)
        if isinstance(label, PlainLabel):
            label.setToolTip(tip)
            set_role(label, "muted")
        else:
            label.setToolTip(self.tr("{0} Click to hide it.").format(tip))
        if key == "total":
            set_role(value, "heading")
        else:
            self._swatches[key] = Swatch(KINDS.get(key, "full"))
            self._grid.addWidget(self._swatches[key], row, column)
        self._grid.addWidget(label, row, column + 1, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self._grid.addWidget(value, row, column + 2, Qt.AlignmentFlag.AlignRight)
        self._names[key], self._values[key] = label, value
        if key in SHOWN_WHEN_SEEN:
            self._show_row(key, False)

    def _chip(self, key: str, name: str) -> QPushButton:
        chip = QPushButton()
        chip.setText(name)
        chip.setCheckable(True)
        chip.setChecked(True)
        chip.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        set_role(chip, "chip")
        chip.clicked.connect(lambda checked: self.part_toggled.emit(key, checked))
        return chip

    def _show_row(self, key: str, shown: bool) -> None:
        for widget in (self._swatches[key], self._names[key], self._values[key]):
            if widget.isHidden() == shown:
                widget.setVisible(shown)
