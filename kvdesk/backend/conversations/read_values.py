"""Values of a conversation that came from a file or a database, which may hold anything: read as what they must be. Pure.

A file is refused where a value is impossible (ValueError, for a sentence); a row of the database gives what of it is
possible, for it is the only copy there is.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, cast

from kvdesk.backend.protocol.facts import StopReason, TurnStats
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import EngineSettings

LATEST_S = 32_503_680_000.0
"""The year 3000, in seconds since 1970: what every system's calendar knows."""
_LARGEST = 2**53
"""Whole numbers up to here are exact in JSON everywhere."""
_MAY_BE_NONE = frozenset({"prompt_tokens_per_second", "tokens_per_second"})


def time_from(value: Any) -> float:
    """Seconds since 1970. Raises ValueError for what is none, or before 1970 or after the year 3000."""
    if type(value) not in (int, float) or not 0 <= value <= LATEST_S:  # NaN is in no bounds
        raise ValueError("is not a time in seconds since 1970")
    return float(value)


def nearest_time(value: float) -> float:
    """``value``, or the nearest time that a calendar has."""
    return min(max(value, 0.0), LATEST_S) if not math.isnan(value) else 0.0


def stats_from(value: Any) -> TurnStats:
    """The figures of a reply. Unknown keys are ignored. Raises ValueError that names a figure which is none."""
    if not isinstance(value, dict):
        raise ValueError("they are no JSON object")  # noqa: TRY004
    values = cast("dict[str, Any]", value)
    picked: dict[str, Any] = {}
    for field in dataclasses.fields(TurnStats):
        if field.name in values:
            picked[field.name] = _figure(field.name, str(field.type), values[field.name])
        elif field.default is dataclasses.MISSING:
            raise ValueError(f'"{field.name}" is missing')
    return TurnStats(**picked)


def _figure(name: str, kind: str, value: Any) -> Any:
    if name == "stop_reason":
        return StopReason(value)
    if name in _MAY_BE_NONE and value is None:
        return None
    kinds = (int,) if kind == "int" else (int, float)
    if type(value) not in kinds or not 0 <= cast("float", value) <= _LARGEST:
        raise ValueError(f'"{name}" is {_short(value)}')
    return value


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:39]}…"


def object_or_none(text: str | None) -> Mapping[str, Any] | None:
    """The JSON object in ``text``; None where there is none."""
    try:
        value: Any = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def stats_or_none(text: str | None) -> TurnStats | None:
    """The figures in ``text``; None where they cannot be read."""
    try:
        return stats_from(object_or_none(text))
    except ValueError:
        return None


def sampling_or_none(text: str | None) -> SamplingSettings | None:
    """The sampling in ``text``, each value that is none at its default; None where there is none at all."""
    values = object_or_none(text)
    return None if values is None else SamplingSettings.from_dict(values)


def engine_or_none(text: str | None) -> EngineSettings | None:
    """The engine's settings in ``text``, as ``sampling_or_none``."""
    values = object_or_none(text)
    return None if values is None else EngineSettings.from_dict(values)
