"""How a session goes on: the next state from the state and an event. Pure."""

from __future__ import annotations

from dataclasses import replace

from kvdesk.backend.engine.engine_event import Died, EngineState, FellBack, StateChanged
from kvdesk.backend.planning import plan_event as p
from kvdesk.backend.planning.plan import MemoryPlan
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ContextFacts, KvState
from kvdesk.backend.session.session_event import (
    AskEnded,
    ContextBegun,
    GrowthAnswered,
    GrowthAsked,
    LoadAsked,
    LoadBegun,
    MarginChosen,
    ReplyBegun,
    SessionEvent,
    SettingsChosen,
)
from kvdesk.backend.session.state import AskedLoad, Choice, GrowthQuestion, Pending, SessionState
from kvdesk.backend.settings import EngineSettings


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
            if target.file and event.path == target.file.path and _is_price_of(event.plan, target.settings):
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


def _is_price_of(plan: MemoryPlan, settings: EngineSettings) -> bool:
    """Whether ``plan`` is what was shown for ``settings``: planned without repacked weights where the planner's own try of
    them failed, which the engine need not follow (it tries its own model)."""
    plain = replace(settings, model=replace(settings.model, use_extra_bufts=False))
    return plan.settings in (settings, plain)


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
