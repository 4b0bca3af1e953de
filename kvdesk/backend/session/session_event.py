"""What can happen in a session: the events of engine and planner, and what kvdesk itself decides. Plain values."""

from __future__ import annotations

from dataclasses import dataclass

from kvdesk.backend.engine.engine_event import EngineEvent
from kvdesk.backend.planning import plan_event as p
from kvdesk.backend.session.state import Choice, Reply, SessionState
from kvdesk.backend.settings import ContextSettings, EngineSettings


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
