"""The one state of a session, and how it follows from the state before and an event. Pure.

Who acts on it: ``session.py`` sends commands, the controllers and ``kvdesk chat`` render, the session log records.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from kvdesk.backend.engine.engine_event import BUSY, Died, EngineEvent, EngineState, FellBack, StateChanged
from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.planning import plan_event as p
from kvdesk.backend.planning.calibration import Comparison
from kvdesk.backend.planning.plan import Curve, GrowthCost, MemoryPlan
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ContextFacts, Device, KvState, ModelFacts
from kvdesk.backend.settings import ContextSettings, EngineSettings


@dataclass(frozen=True)
class Choice:
    """A model and what it is loaded with; ``file`` None: settings alone, for the model that is opened next."""

    file: ModelFile | None = None
    settings: EngineSettings = field(default_factory=EngineSettings)


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


# --- what kvdesk itself decides -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoadAsked:
    """``choice`` is to be priced before it is loaded: the planner's question ``request_id``."""

    choice: Choice
    request_id: int


@dataclass(frozen=True)
class AskEnded:
    """The asked load is given up."""


@dataclass(frozen=True)
class LoadBegun:
    """The engine was told to load ``choice``."""

    choice: Choice


@dataclass(frozen=True)
class ContextBegun:
    """The engine was told to make the context anew."""

    settings: ContextSettings


@dataclass(frozen=True)
class SettingsChosen:
    """No model is there: these settings are for the next."""

    settings: EngineSettings


@dataclass(frozen=True)
class ReplyBegun:
    """The engine was told to answer."""

    reply: Reply


@dataclass(frozen=True)
class GrowthAsked:
    """The planner was asked what the growth step takes."""

    request_id: int


@dataclass(frozen=True)
class GrowthAnswered:
    """The engine was told whether to grow."""


@dataclass(frozen=True)
class MarginChosen:
    """What the OOM line keeps free from now on."""

    margin_bytes: int


Decision = (
    LoadAsked
    | AskEnded
    | LoadBegun
    | ContextBegun
    | SettingsChosen
    | ReplyBegun
    | GrowthAsked
    | GrowthAnswered
    | MarginChosen
)
SessionEvent = EngineEvent | p.PlanEvent | Decision


@dataclass(frozen=True)
class Change:
    """One event and the states around it: all that a listener needs, whatever the others have done with it."""

    event: SessionEvent
    before: SessionState
    now: SessionState


# --- how it goes on --------------------------------------------------------------------------------------------------


def reduce(state: SessionState, event: SessionEvent) -> SessionState:
    """The state after ``event``. An event that says nothing about it gives the same object back."""
    after = _after_engine(state, event)
    after = _after_plan(after, event)
    return _after_decision(after, event)


def _after_engine(state: SessionState, event: SessionEvent) -> SessionState:
    match event:
        case StateChanged():
            return _after_move(state, event)
        case m.Started():
            return replace(state, devices=event.devices, has_rpc=event.has_rpc)
        case m.LoadProgress():
            return replace(state, load_fraction=event.fraction)
        case FellBack():
            return _fallen_back(state, event.settings)
        case m.Loaded():
            return _loaded(state, event)
        case m.ContextMade():
            pending = state.pending[1:] if state.pending and not state.pending[0].is_load else state.pending
            return replace(_with_context(state, event.context), pending=pending, comparison=None, is_fresh=False)
        case m.Grown():
            return replace(_with_context(state, event.context), is_fresh=False)
        case m.Unloaded():
            return _gone(state, pending=state.pending)
        case Died():
            return replace(_gone(state), in_force=state.target, failure=event)
        case _:
            return _after_reply_event(state, event)


def _after_reply_event(state: SessionState, event: SessionEvent) -> SessionState:
    match event:
        case m.KvChanged():
            return _with_kv(state, event.kv)
        case m.Measured():
            return _with_kv(state, event.kv)
        case m.TextGenerated():
            return replace(state, tokens_per_second=event.tokens_per_second)
        case m.GrowWanted():
            return replace(state, growth=GrowthQuestion(event))
        case m.TurnFinished():
            state = _with_kv(state, event.kv)
            return replace(state, reply=None, growth=None, tokens_per_second=None, is_fresh=False)
        case m.Failed() if event.request_id == 0:
            return _command_failed(state, event)
        case m.Failed() if state.reply and event.request_id == state.reply.request_id:
            return replace(state, reply=None, growth=None, tokens_per_second=None)
        case _:
            return state


def _after_plan(state: SessionState, event: SessionEvent) -> SessionState:
    asked, growth = state.asked, state.growth
    match event:
        case p.PlanReady():
            if asked and event.request_id == asked.request_id and event.is_final:
                state = replace(state, asked=replace(asked, plan=event.plan))
            target = state.target
            if target.file and event.path == target.file.path and event.plan.settings == target.settings:
                return replace(state, predicted=event.plan)
            return state
        case p.PlanFailed() if asked and event.request_id == asked.request_id:
            return replace(state, asked=replace(asked, problem=event))
        case p.PlanFailed() if growth and event.request_id == growth.request_id:
            return replace(state, growth=replace(growth, is_unpriced=True))
        case p.GrowthPriced() if growth and event.request_id == growth.request_id:
            return replace(state, growth=replace(growth, cost=event.cost))
        case p.CurveReady():
            return replace(state, curves=event.curves)
        case p.Compared() if state.context and state.in_force.file and event.path == state.in_force.file.path:
            return replace(state, comparison=event.comparison)
        case _:
            return state


def _after_decision(state: SessionState, event: SessionEvent) -> SessionState:
    match event:
        case LoadAsked():
            return replace(state, asked=AskedLoad(event.choice, event.request_id))
        case AskEnded():
            return replace(state, asked=None)
        case LoadBegun():
            return _load_begun(state, event.choice)
        case ContextBegun():
            settings = replace(state.settings, context=event.settings)
            pending = Pending(replace(state.target, settings=settings), is_load=False)
            return replace(state, pending=(*state.pending, pending), predicted=None)
        case SettingsChosen():
            return replace(state, in_force=replace(state.in_force, settings=event.settings))
        case ReplyBegun():
            return replace(state, reply=event.reply)
        case GrowthAsked():
            return replace(state, growth=state.growth and replace(state.growth, request_id=event.request_id))
        case GrowthAnswered():
            return replace(state, growth=None)
        case MarginChosen():
            return replace(state, margin_bytes=event.margin_bytes)
        case _:
            return state


def _load_begun(state: SessionState, choice: Choice) -> SessionState:
    return replace(
        state,
        asked=None,
        pending=(*state.pending, Pending(choice, is_load=True)),
        predicted=_known_plan(state, choice),
        load_fraction=0.0,
    )


def _known_plan(state: SessionState, choice: Choice) -> MemoryPlan | None:
    if state.asked and state.asked.choice == choice:
        return state.asked.plan
    return state.predicted if state.target == choice else None


def _after_move(state: SessionState, event: StateChanged) -> SessionState:
    speed = state.tokens_per_second if event.now is EngineState.GENERATING else None
    after = replace(state, engine=event.now, pid=event.pid, tokens_per_second=speed)
    if event.now is EngineState.STOPPED:
        return _gone(after, pending=state.pending[-1:])  # a process that is ended to make way for another load
    return replace(after, load_fraction=0.0) if event.now is EngineState.LOADING else after


def _fallen_back(state: SessionState, settings: EngineSettings) -> SessionState:
    """The load under way goes on with other settings than it was sent with."""
    if not state.pending:
        return state
    first = replace(state.pending[0], choice=replace(state.pending[0].choice, settings=settings))
    return replace(state, pending=(first, *state.pending[1:]), predicted=None)


def _loaded(state: SessionState, event: m.Loaded) -> SessionState:
    """The first load that waited has ended; what waited before it was overtaken by it."""
    at = next((i for i, one in enumerate(state.pending) if one.is_load), None)
    choice = state.in_force if at is None else state.pending[at].choice
    state = replace(
        state,
        in_force=choice,
        pending=() if at is None else state.pending[at + 1 :],
        model=event.model,
        devices=event.devices or state.devices,
        failure=None,
        comparison=None,
        reply=None,
        growth=None,
        is_fresh=True,
    )
    return _with_context(state, event.context)


def _with_context(state: SessionState, context: ContextFacts) -> SessionState:
    settings = state.in_force.settings
    if context.settings != settings.context:
        settings = replace(settings, context=context.settings)
    return replace(state, context=context, in_force=replace(state.in_force, settings=settings))


def _with_kv(state: SessionState, kv: KvState) -> SessionState:
    return replace(state, context=replace(state.context, kv=kv)) if state.context else state


def _command_failed(state: SessionState, event: m.Failed) -> SessionState:
    """A command without a number: a load or a new context. What was in force is in force again, or nothing is."""
    pending = state.pending[1:]
    return replace(state, pending=pending) if event.model_kept else _gone(state, pending=pending)


def _gone(state: SessionState, pending: tuple[Pending, ...] = ()) -> SessionState:
    """No model is loaded; settings stay for the next."""
    return replace(
        state,
        in_force=replace(state.in_force, file=None),
        pending=pending,
        model=None,
        context=None,
        reply=None,
        growth=None,
        tokens_per_second=None,
        predicted=state.predicted if pending else None,
        comparison=None,
    )
