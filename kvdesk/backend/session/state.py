"""The one state of a session: everything that is known of engine, model, context and prices. Plain values.

How it follows from the state before and an event: ``reduce.py``. Who acts on it: ``session.py`` sends commands, the
controllers and ``kvdesk chat`` render, the session log records.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kvdesk.backend.engine.crash_report import is_computing_fault
from kvdesk.backend.engine.engine_event import BUSY, Died, EngineState
from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.planning import plan_event as p
from kvdesk.backend.planning.calibration import Comparison
from kvdesk.backend.planning.plan import Curve, GrowthCost, MemoryPlan
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import OWN_TEMPLATE, ContextFacts, Device, ModelFacts, TemplateChoice
from kvdesk.backend.settings import EngineSettings


@dataclass(frozen=True)
class Choice:
    """A model and what it is loaded with; ``file`` None: settings alone, for the model that is opened next."""

    file: ModelFile | None = None
    settings: EngineSettings = field(default_factory=EngineSettings)
    template: TemplateChoice = OWN_TEMPLATE


@dataclass(frozen=True)
class AskedLoad:
    """A load that waits for its price (the planner's question ``request_id``), and then for the person's word.

    ``problem``: it cannot be priced; the engine, or the file's reader, says why.
    """

    choice: Choice
    request_id: int
    plan: MemoryPlan | None = None
    problem: p.PlanFailed | None = None

    @property
    def is_priced(self) -> bool:
        """Whether the planner has answered."""
        return self.plan is not None or self.problem is not None


@dataclass(frozen=True)
class Pending:
    """What the engine has been told to put in force and has not yet; ``SessionState.in_force`` is what it goes back to."""

    choice: Choice
    is_load: bool


@dataclass(frozen=True)
class Reply:
    """The reply under way; ``overflow`` is what happens at the context's end."""

    request_id: int
    overflow: str


@dataclass(frozen=True)
class GrowthQuestion:
    """The engine waits with a reply until it is told whether the context may grow. ``request_id``: of the planner's
    question about it, 0 while there is none; then ``cost``, or ``is_unpriced`` where it cannot be told."""

    wanted: m.GrowWanted
    request_id: int = 0
    cost: GrowthCost | None = None
    is_unpriced: bool = False


@dataclass(frozen=True)
class SessionState:
    """Everything that is known of engine, model, context and prices. Sizes in bytes, lengths in tokens."""

    engine: EngineState = EngineState.STOPPED
    pid: int | None = None
    devices: tuple[Device, ...] = ()
    has_rpc: bool = False
    load_fraction: float = 0.0
    asked: AskedLoad | None = None
    in_force: Choice = field(default_factory=Choice)
    pending: tuple[Pending, ...] = ()
    model: ModelFacts | None = None
    context: ContextFacts | None = None
    """The context that exists, its ``kv`` as it is now."""
    reply: Reply | None = None
    tokens_per_second: float | None = None
    growth: GrowthQuestion | None = None
    failure: Died | None = None
    """The last death, until a model is loaded again."""
    predicted: MemoryPlan | None = None
    """Of ``target``, at its full context length."""
    curves: tuple[Curve, ...] = ()
    comparison: Comparison | None = None
    """Predicted against actual since the context was made; None before the first reply in it."""
    is_fresh: bool = False
    """Nothing was done with the model since it was loaded: what the process holds beside the buffers is the model's."""
    margin_bytes: int = m.Load.margin_bytes

    @property
    def target(self) -> Choice:
        """What is loaded, or being loaded."""
        return self.pending[-1].choice if self.pending else self.in_force

    @property
    def file(self) -> ModelFile | None:
        """The model that is loaded or being loaded."""
        return self.target.file

    @property
    def settings(self) -> EngineSettings:
        """What it is loaded, or being loaded, with."""
        return self.target.settings

    @property
    def may_be_a_gpus_fault(self) -> bool:
        """Whether the engine crashed, not for lack of memory, with a graphics card in use: a driver may have done it."""
        used = self.settings.model.n_gpu_layers != 0 and any(d.kind in ("gpu", "igpu") for d in self.devices)
        return used and self.failure is not None and is_computing_fault(self.failure.error)

    @property
    def is_loading(self) -> bool:
        """Whether a load was sent and has not ended."""
        return any(one.is_load for one in self.pending)

    @property
    def can_answer(self) -> bool:
        """Whether a message can be answered, now or after what is under way."""
        return self.model is not None and self.context is not None and not self.is_loading

    @property
    def is_busy(self) -> bool:
        """Whether a command is under way in the engine."""
        return self.engine in BUSY
