"""Axes for memory charts: bytes in binary steps, wall-clock time, tokens. Imports pyqtgraph: after the first paint."""

from __future__ import annotations

import datetime as dt
import math

import pyqtgraph as pg
from PySide6.QtGui import QColor, QFont, QPen

from kvdesk.ui.numbers import GIB, KIB, MIB, format_clock, short_tokens
from kvdesk.ui.theme import Theme

CLOCK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


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
        small = QFont(font)
        small.setPointSizeF(max(7.0, font.pointSizeF() - 1.5))
        self.setTickFont(small)

    def updateAutoSIPrefix(self) -> None:
        """Nothing: our ticks say their unit, and pyqtgraph would lay out an empty label at every change of range."""

    def tickValues(self, minVal: float, maxVal: float, size: float) -> list[tuple[float, list[float]]]:  # noqa: N803
        """pyqtgraph asks where the ticks are."""
        span = maxVal - minVal
        if span <= 0 or size <= 0:
            return []
        step = self.step(span / max(1.0, size / self.spacing_px))
        first = math.ceil((minVal + self.origin()) / step)
        values = []
        while (value := first * step - self.origin()) <= maxVal and len(values) < 100:
            values.append(value)
            first += 1
        return [(step, values)]

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
        return max(float(MIB), 2.0 ** math.ceil(math.log2(at_least)))

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:  # noqa: ARG002
        """pyqtgraph asks how the ticks are written."""
        return [_tick_bytes(value) for value in values]


class ClockAxis(_Axis):
    """Wall-clock time; ``epoch_s`` is what to add to x to have Unix time."""

    spacing_px = 76

    def __init__(self) -> None:
        super().__init__("bottom")
        self.epoch_s = 0.0

    def step(self, at_least: float) -> float:
        """A step a clock face has."""
        return next((float(s) for s in CLOCK_STEPS_S if s >= at_least), math.ceil(at_least / 86400) * 86400.0)

    def origin(self) -> float:
        """Local time, so that ticks fall on full minutes and hours of the wall clock."""
        return self.epoch_s + _utc_offset_s(self.epoch_s)

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:  # noqa: ARG002
        """pyqtgraph asks how the ticks are written."""
        return [format_clock(value + self.epoch_s, seconds=spacing < 60) for value in values]


class TokensAxis(_Axis):
    """Context lengths: 0, 8k, 16k, ..."""

    spacing_px = 56

    def __init__(self) -> None:
        super().__init__("bottom")

    def step(self, at_least: float) -> float:
        """The next power of two, at least 256."""
        return max(256.0, 2.0 ** math.ceil(math.log2(at_least)))

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:  # noqa: ARG002
        """pyqtgraph asks how the ticks are written."""
        return [short_tokens(round(value)) for value in values]


def _utc_offset_s(time_s: float) -> float:
    offset = dt.datetime.fromtimestamp(max(0.0, time_s), dt.UTC).astimezone().utcoffset()
    return offset.total_seconds() if offset else 0.0


def _tick_bytes(value: float) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if abs(value) >= unit:
            return f"{value / unit:.4g} {name}"
    return "0"
