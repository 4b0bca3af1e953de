"""Where an axis has its ticks and how they are written: bytes in powers of two, wall-clock time, tokens. Pure."""

from __future__ import annotations

import datetime as dt
import math

from kvdesk.sizes import GIB, KIB, MIB
from kvdesk.ui.widgets.numbers import format_clock

CLOCK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
MOST_TICKS = 100


def power_of_two_step(at_least: float, least: float) -> float:
    """The smallest power of two that is ``at_least`` and ``least``."""
    return max(float(least), 2.0 ** math.ceil(math.log2(at_least)))


def bytes_step(at_least: float) -> float:
    """A power of two, at least a mebibyte."""
    return power_of_two_step(at_least, MIB)


def clock_step(at_least_s: float) -> float:
    """A step that a clock face has; whole days beyond."""
    return next((float(s) for s in CLOCK_STEPS_S if s >= at_least_s), math.ceil(at_least_s / 86400) * 86400.0)


def decimal_step(at_least: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is ``at_least``."""
    unit = 10.0 ** math.floor(math.log10(at_least))
    return next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= at_least * (1 - 1e-9))


def ticks_between(low: float, high: float, step: float, origin: float = 0.0) -> list[float]:
    """The values from ``low`` to ``high`` that are whole steps once ``origin`` is added."""
    first = math.ceil((low + origin) / step)
    last = min(math.floor((high + origin) / step), first + MOST_TICKS - 1)
    return [index * step - origin for index in range(first, last + 1)]


def local_origin(epoch_s: float) -> float:
    """What to add to seconds that are ``epoch_s`` short of Unix time to have local time: ticks fall on full minutes."""
    offset = dt.datetime.fromtimestamp(max(0.0, epoch_s), dt.UTC).astimezone().utcoffset()
    return epoch_s + (offset.total_seconds() if offset else 0.0)


def bytes_text(value: float) -> str:
    """ "0", "512 MiB", "1.5 GiB"."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if abs(value) >= unit:
            return f"{value / unit:.4g} {name}"
    return "0"


def clock_text(time_s: float, step_s: float) -> str:
    """Local time of a Unix time, with seconds where ticks are closer than a minute."""
    return format_clock(time_s, seconds=step_s < 60)
