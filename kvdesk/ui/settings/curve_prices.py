"""Prices of other context lengths and cache types by the planner's newest curves: no question, no wait. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvdesk.backend.planning.plan import Curve
from kvdesk.ui.panels.options_card import Answer, PricedChoice


@dataclass(frozen=True)
class Cells:
    """So many cells of these cache types."""

    count: int
    type_k: str
    type_v: str


def priced_choice(
    curves: Sequence[Curve],
    key: str,
    label: str,
    now: Cells,
    then: Cells,
    answer: Answer,
    *,
    is_risky: bool = False,
) -> PricedChoice:
    """The way out that leads from ``now`` to ``then``: its total, the difference, whether it fits; None where no curve
    tells."""
    by_types = {(curve.type_k, curve.type_v): curve for curve in curves}
    curve, present = by_types.get((then.type_k, then.type_v)), by_types.get((now.type_k, now.type_v))
    after, before = curve.at(then.count) if curve else None, present.at(now.count) if present else None
    line = curve.oom_line_bytes if curve else None
    return PricedChoice(
        key,
        label,
        after.total_bytes if after else None,
        after.total_bytes - before.total_bytes if after and before else None,
        after.device_bytes <= line if after and line is not None else None,
        is_risky=is_risky,
        answer=answer,
    )
