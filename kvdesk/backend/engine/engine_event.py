"""What the app's side of the engine tells beside the worker's own messages: its state, and a death. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from kvdesk.backend.protocol import messages as m
from kvdesk.backend.settings import EngineSettings
from kvdesk.errors import EngineDied


class EngineState(StrEnum):
    """Where the engine stands. Alive is not ready: only READY takes a prompt."""

    STOPPED = "stopped"
    STARTING = "starting"
    EMPTY = "empty"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    GENERATING = "generating"
    CHANGING = "changing"
    MEASURING = "measuring"
    DIED = "died"


BUSY = frozenset(
    {
        EngineState.LOADING,
        EngineState.WARMING,
        EngineState.GENERATING,
        EngineState.CHANGING,
        EngineState.MEASURING,
    }
)
"""States in which one command is under way."""


@dataclass(frozen=True)
class StateChanged:
    """The engine moved from one state to another; ``pid`` None when there is no process."""

    before: EngineState
    now: EngineState
    pid: int | None


@dataclass(frozen=True)
class Died:
    """The process ended without being asked. ``request_id`` is the reply that was cut off, 0 when none was."""

    error: EngineDied
    during: EngineState
    request_id: int
    log_path: Path


@dataclass(frozen=True)
class FellBack:
    """The warm-up killed the process (``error``); started once more with ``settings``, without repacked weights, it has
    loaded: its Loaded comes next. To be remembered and to be said."""

    settings: EngineSettings
    error: EngineDied


EngineEvent = m.Event | StateChanged | Died | FellBack
