"""Answers "what would this cost?" for the window without making it wait: a thread of its own around dry_run.py.

Latest wins: while a slider moves, only the newest settings are priced. Callbacks run on the planner's thread (the
bridge turns them into signals). Joins dry_run, estimate, plan and calibration; knows no Qt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvdesk.backend.plan import CapacityCell, Curve, MemoryPlan, Reading
from kvdesk.backend.settings import EngineSettings


@dataclass(frozen=True)
class PlanReady:
    """The answer to Planner.plan (``request_id`` as it returned); ``now`` prices the present settings, if any."""

    request_id: int
    path: Path
    plan: MemoryPlan


@dataclass(frozen=True)
class CurveReady:
    request_id: int
    path: Path
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class CapacityReady:
    request_id: int
    path: Path
    cells: tuple[CapacityCell, ...]


@dataclass(frozen=True)
class PlanFailed:
    """No plan: ``kind`` is the class of errors.py, ``sentence`` for a person, ``nearest`` possible settings if known."""

    request_id: int
    path: Path
    kind: str
    sentence: str
    nearest: EngineSettings | None = None


PlanEvent = PlanReady | CurveReady | CapacityReady | PlanFailed


class Planner:
    """One helper process, kept warm for the chosen model and let go after ``idle_s`` without a question."""

    def __init__(
        self,
        on_event: Callable[[PlanEvent], None],
        read_domains: Callable[[], Sequence[Reading]],
        margin_bytes: int = 1024 * 1024 * 1024,
        idle_s: float = 60.0,
    ) -> None: ...

    def plan(self, path: Path, settings: EngineSettings, with_options: bool = True) -> int:
        """Price ``settings`` for the model at ``path``; supersedes a plan still waiting. The answer is PlanReady."""
        ...

    def curve(self, path: Path, settings: EngineSettings, types: Sequence[tuple[str, str]], points: int = 128) -> int:
        """Memory against context length for each pair of cache types; the answer is CurveReady."""
        ...

    def capacity(self, path: Path, settings: EngineSettings, n_seqs: Sequence[int], lengths: Sequence[int]) -> int:
        """How many conversations of which length fit; the answer is CapacityReady."""
        ...

    def stop(self) -> None:
        """End the helper and the thread; returns when both are gone."""
        ...
