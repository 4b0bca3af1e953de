"""The frozen dataclasses that cross the pipe between the app and the engine process.

Commands go down (app to worker), events come up. Values only: nothing here imports llama.cpp or does I/O.
Times are milliseconds, sizes bytes, lengths tokens (= KV cells).
"""

from __future__ import annotations

from dataclasses import dataclass

from kvdesk.backend.protocol.facts import (
    OWN_TEMPLATE,
    Backend,
    ChatTurn,
    ContextFacts,
    Device,
    GrowStep,
    KvState,
    ModelFacts,
    TemplateChoice,
    TurnStats,
)
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import AUTOMATIC_MARGIN, ContextSettings, EngineSettings

# --- commands --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SnapshotPlace:
    """Where the cells of conversations are kept, and how many bytes they may take there in all."""

    folder: str
    budget_bytes: int


@dataclass(frozen=True)
class Load:
    """Load ``path`` (of a split model: its first part) and make a context. Replaces what is loaded.

    With ``snapshots`` every conversation's cells are kept there when another one is opened, and brought back.
    """

    path: str
    settings: EngineSettings
    snapshots: SnapshotPlace | None = None
    margin_bytes: int = AUTOMATIC_MARGIN
    """Memory is short where less than this can still be had: a context larger than its conversation shrinks then."""
    template: TemplateChoice = OWN_TEMPLATE


@dataclass(frozen=True)
class SetContext:
    """Make the context anew with ``settings``; weights stay, the cells of the conversation are kept if possible."""

    settings: ContextSettings


@dataclass(frozen=True)
class Generate:
    """Answer ``turns``. With ``continue_last`` the last turn is an unfinished assistant reply to go on with.

    ``conversation_id`` names whose cells these are; ``sampling.max_tokens`` 0 is no limit but the context's.
    """

    request_id: int
    conversation_id: str
    turns: tuple[ChatTurn, ...]
    sampling: SamplingSettings
    overflow: str = "stop"
    continue_last: bool = False


@dataclass(frozen=True)
class CountTokens:
    """How many tokens ``turns`` make as a prompt, or with ``is_plain`` what they say by itself; answered also while a reply is
    being generated. Of each of the two only the newest that waits is sure of an answer."""

    request_id: int
    turns: tuple[ChatTurn, ...]
    is_plain: bool = False


@dataclass(frozen=True)
class Measure:
    """Time the engine at a depth: with ``n_past`` tokens of no meaning in the cells, read ``n_prompt`` more and write
    ``n_decode``. The context must hold them all; what it held is lost. Filling it may take ``limit_s`` seconds."""

    request_id: int
    n_past: int
    n_prompt: int
    n_decode: int
    limit_s: float


@dataclass(frozen=True)
class GrowAnswer:
    """The app's word on a GrowWanted. ``action``: "grow", "stop", "convert" (to ``type_k``/``type_v`` first), "trim"."""

    action: str
    type_k: str = ""
    type_v: str = ""


@dataclass(frozen=True)
class Unload:
    """Free model and context; the process stays."""


@dataclass(frozen=True)
class Shutdown:
    """Free everything and exit."""


@dataclass(frozen=True)
class Stop:
    """Abort what is under way (load, prompt, reply); harmless when nothing is."""


@dataclass(frozen=True)
class Ping:
    """Answered with Pong at once, whatever is under way: the process lives and hears."""


Command = Load | SetContext | Generate | CountTokens | Measure | GrowAnswer | Unload | Shutdown | Stop | Ping

# --- events ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """The worker runs and llama.cpp's libraries are loaded."""

    pid: int
    devices: tuple[Device, ...]
    system_info: str
    has_rpc: bool
    backends: tuple[Backend, ...] = ()


@dataclass(frozen=True)
class Pong:
    """The answer to Ping."""


@dataclass(frozen=True)
class LoadProgress:
    """``fraction`` 0.0 to 1.0 of the weights are read (llama.cpp's progress callback)."""

    fraction: float


@dataclass(frozen=True)
class Warming:
    """Weights and context exist; the warm-up decode that may kill the process starts now."""


@dataclass(frozen=True)
class Loaded:
    """Model and context are ready to chat. ``devices`` is Started's list anew, network workers now among them."""

    model: ModelFacts
    context: ContextFacts
    elapsed_ms: float
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True)
class ContextMade:
    """The answer to SetContext: the new context is in use."""

    context: ContextFacts


@dataclass(frozen=True)
class PromptProgress:
    """``done`` of ``total`` prompt tokens are in the cache, ``reused`` of them from before."""

    request_id: int
    done: int
    total: int
    reused: int


@dataclass(frozen=True)
class TextGenerated:
    """More of a reply, coalesced: ``text`` to append to the answer, ``thought`` to append to what the model thinks before it;
    ``n_tokens`` generated so far, ``tokens_per_second`` so far."""

    request_id: int
    text: str
    n_tokens: int
    tokens_per_second: float | None
    thought: str = ""


@dataclass(frozen=True)
class Forgot:
    """To stay within the context length, ``n_turns`` of the oldest turns (or ``n_tokens`` tokens of the running reply's
    past) are no longer seen by the model; the system prompt is kept. The conversation itself is whole."""

    request_id: int
    n_turns: int
    n_tokens: int


@dataclass(frozen=True)
class TurnFinished:
    """The reply is whole (or was stopped); all its text has been sent before."""

    request_id: int
    stats: TurnStats
    kv: KvState


@dataclass(frozen=True)
class KvChanged:
    """Occupied or allocated cells have changed."""

    kv: KvState


@dataclass(frozen=True)
class Measured:
    """The answer to Measure: ``n_tokens`` are in the cells now; speeds that there was no time for are None."""

    request_id: int
    n_tokens: int
    prompt_tokens_per_second: float | None
    tokens_per_second: float | None
    kv: KvState


@dataclass(frozen=True)
class TokensCounted:
    """The answer to CountTokens."""

    request_id: int
    n_tokens: int


@dataclass(frozen=True)
class GrowWanted:
    """The reply waits: the cells are full and the context would grow. Answer with GrowAnswer.

    ``failed`` holds llama.cpp's words when the step was tried and the allocation failed; the old cells are back.
    """

    request_id: int
    at_tokens: int
    from_cells: int
    to_cells: int
    settings: ContextSettings
    failed: str = ""


@dataclass(frozen=True)
class Grown:
    """The context has grown by a step; its contents are unchanged."""

    step: GrowStep
    context: ContextFacts


@dataclass(frozen=True)
class Unloaded:
    """The answer to Unload: the model's memory is free."""


@dataclass(frozen=True)
class Failed:
    """A command failed; the process lives and what was loaded before is still usable where possible.

    ``kind`` is the name of the class in errors.py that the app raises or shows, ``request_id`` 0 when the command
    had none, ``model_kept`` whether a model is still loaded.
    """

    kind: str
    sentence: str
    request_id: int = 0
    asked_bytes: int | None = None
    model_kept: bool = True
    prompt_tokens: int = 0
    n_ctx: int = 0


Event = (
    Started
    | Pong
    | LoadProgress
    | Warming
    | Loaded
    | ContextMade
    | PromptProgress
    | TextGenerated
    | Forgot
    | TurnFinished
    | KvChanged
    | TokensCounted
    | Measured
    | GrowWanted
    | Grown
    | Unloaded
    | Failed
)
