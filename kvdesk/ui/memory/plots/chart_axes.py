"""Axes for memory charts: bytes in binary steps, wall-clock time, tokens, speeds. Imports pyqtgraph: after the first paint."""

from __future__ import annotations

import pyqtgraph as pg
from PySide6.QtGui import QColor, QFont, QPen

from kvdesk.ui.memory.plots.ticks import (
    bytes_step,
    bytes_text,
    clock_step,
    clock_text,
    decimal_step,
    local_origin,
    power_of_two_step,
    ticks_between,
)
from kvdesk.ui.widgets.numbers import short_tokens
from kvdesk.ui.widgets.theme import Theme, smaller


class _Axis(pg.AxisItem):
    """An axis whose steps are ours: one level of ticks, about ``spacing_px`` apart."""

    spacing_px = 40

    def __init__(self, orientation: str) -> None:
        super().__init__(orientation)
        self.enableAutoSIPrefix(False)
        self.setStyle(tickLength=0, tickTextOffset=6)

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's axis colours."""
        self.setPen(QPen(QColor(theme.border), 1))
        self.setTextPen(QColor(theme.chart.axis))

    def set_small_font(self, font: QFont) -> None:
        """Write the ticks a step smaller than ``font``."""
        self.setTickFont(smaller(font))

    def updateAutoSIPrefix(self) -> None:
        """Nothing: our ticks say their unit, and pyqtgraph would lay out an empty label at every change of range."""

    def tickValues(self, minVal: float, maxVal: float, size: float) -> list[tuple[float, list[float]]]:  # noqa: N803
        """pyqtgraph asks where the ticks are."""
        span = maxVal - minVal
        if span <= 0 or size <= 0:
            return []
        step = self.step(span / max(1.0, size / self.spacing_px))
        return [(step, ticks_between(minVal, maxVal, step, self.origin()))]

    def step(self, at_least: float) -> float:
        """The round step that is ``at_least`` that wide."""
        raise NotImplementedError

    def origin(self) -> float:
        """What to add to a value before it is rounded to steps."""
        return 0.0


class BytesAxis(_Axis):
    """Bytes in powers of two: 0, 256 MiB, 512 MiB, ... or 0, 4 GiB, 8 GiB."""

    spacing_px = 30

    def __init__(self) -> None:
        super().__init__("left")
        self.setWidth(60)

    def step(self, at_least: float) -> float:
        """The next power of two, at least a mebibyte."""
        return bytes_step(at_least)

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:  # noqa: ARG002
        """pyqtgraph asks how the ticks are written."""
        return [bytes_text(value) for value in values]


class ClockAxis(_Axis):
    """Wall-clock time; ``epoch_s`` is what to add to x to have Unix time."""

    spacing_px = 76

    def __init__(self) -> None:
        super().__init__("bottom")
        self.epoch_s = 0.0

    def step(self, at_least: float) -> float:
        """A step a clock face has."""
        return clock_step(at_least)

    def origin(self) -> float:
        """Local time, so that ticks fall on full minutes and hours of the wall clock."""
        return local_origin(self.epoch_s)

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:  # noqa: ARG002
        """pyqtgraph asks how the ticks are written."""
        return [clock_text(value + self.epoch_s, spacing) for value in values]


class TokensAxis(_Axis):
    """Context lengths: 0, 8k, 16k, ..."""

    spacing_px = 72

    def __init__(self) -> None:
        super().__init__("bottom")

    def step(self, at_least: float) -> float:
        """The next power of two, at least 256."""
        return power_of_two_step(at_least, 256)

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:  # noqa: ARG002
        """pyqtgraph asks how the ticks are written."""
        return [short_tokens(round(value)) for value in values]


class RateAxis(_Axis):
    """Tokens per second in round decimal steps."""

    spacing_px = 30

    def __init__(self) -> None:
        super().__init__("left")
        self.setWidth(60)

    def step(self, at_least: float) -> float:
        """1, 2, 2.5 or 5 times a power of ten."""
        return decimal_step(at_least)

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:  # noqa: ARG002
        """pyqtgraph asks how the ticks are written."""
        return [f"{value:,.10g}" for value in values]
