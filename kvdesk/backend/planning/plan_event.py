"""The planner's answers, each with the number of its question. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.planning.calibration import Comparison
from kvdesk.backend.planning.plan import CapacityCell, Curve, GrowthCost, MemoryPlan
from kvdesk.backend.settings import EngineSettings


@dataclass(frozen=True)
class PlanReady:
    """The answer to Planner.plan. Comes twice when finding the longest context takes a while: first without."""

    request_id: int
    path: Path
    model: ModelFile
    plan: MemoryPlan
    is_final: bool


@dataclass(frozen=True)
class CurveReady:
    """The answer to Planner.curve."""

    request_id: int
    path: Path
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class ChoicesReady:
    """The answer to Planner.choices: field -> choice -> bytes more (None: refused by llama.cpp)."""

    request_id: int
    path: Path
    delta_bytes: dict[str, dict[str, int | None]]


@dataclass(frozen=True)
class CapacityReady:
    """The answer to Planner.capacity."""

    request_id: int
    path: Path
    cells: tuple[CapacityCell, ...]


@dataclass(frozen=True)
class KvTableReady:
    """The answer to Planner.kv_table: context length -> cache type -> KV bytes (None: refused by llama.cpp)."""

    request_id: int
    path: Path
    table: dict[int, dict[str, int | None]]


@dataclass(frozen=True)
class GrowthPriced:
    """The answer to Planner.growth."""

    request_id: int
    path: Path
    cost: GrowthCost


@dataclass(frozen=True)
class Compared:
    """The answer to Planner.compare: what was learned of a load."""

    request_id: int
    path: Path
    comparison: Comparison


@dataclass(frozen=True)
class PlanFailed:
    """No answer: ``kind`` is the class of errors.py, ``sentence`` for a person, ``nearest`` possible settings if known."""

    request_id: int
    path: Path
    kind: str
    sentence: str
    nearest: EngineSettings | None = None


PlanEvent = PlanReady | CurveReady | ChoicesReady | CapacityReady | KvTableReady | GrowthPriced | Compared | PlanFailed
