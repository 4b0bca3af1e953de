"""The values that everybody shares: turns, buffers, devices, caches, what a model and a context are.

Values only: nothing here imports llama.cpp or does I/O. Times are milliseconds, sizes bytes, lengths tokens (= KV cells).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kvdesk.backend.settings import ContextSettings


@dataclass(frozen=True)
class ChatTurn:
    """One message of a prompt. ``role`` is "system", "user" or "assistant".

    ``content`` of an assistant is its answer, ``thought`` what it thought before.
    """

    role: str
    content: str
    thought: str = ""


@dataclass(frozen=True)
class TemplateChoice:
    """Which chat template a model is spoken to with: Jinja ``source``, or a ``builtin`` one by name (llama.cpp's, or "plain");
    neither is the model's own."""

    source: str = ""
    builtin: str = ""


OWN_TEMPLATE = TemplateChoice()


class BufferKind(StrEnum):
    """What a llama.cpp buffer holds."""

    WEIGHTS = "weights"
    KV = "kv"
    RECURRENT = "recurrent"
    COMPUTE = "compute"
    OUTPUT = "output"


@dataclass(frozen=True)
class Buffer:
    """One line of llama.cpp's own accounting.

    ``device`` is the memory domain it lies in ("CPU", "CUDA0", "RPC0[...]"), ``name`` llama.cpp's buffer type
    ("CPU_Mapped", "CPU_REPACK", "CUDA0", ...), ``mapped`` true where the bytes are pages of the model file: then
    ``size_bytes`` are those its weights lie in, and ``span_bytes`` is llama.cpp's own figure, from the first weight to the
    last with all that lies between.
    """

    device: str
    name: str
    kind: BufferKind
    size_bytes: int
    mapped: bool = False
    span_bytes: int | None = None


@dataclass(frozen=True)
class Device:
    """One ggml device. ``kind`` is "cpu", "gpu", "igpu", "accel" or "rpc"; memory None where it cannot be told.

    ``device_id`` is ggml's own (``ggml_backend_dev_props.device_id``, a PCI bus id such as "0000:c1:00.0"), "" if none.
    """

    name: str
    description: str
    kind: str
    free_bytes: int | None
    total_bytes: int | None
    device_id: str = ""


@dataclass(frozen=True)
class Backend:
    """One of ggml's backends. ``file`` is its library, "" when it is linked in; ``variant`` the kind of CPU that was chosen
    ("haswell"); ``why`` it is not in use, in the system's words, "" when it is."""

    name: str
    file: str = ""
    variant: str = ""
    why: str = ""


@dataclass(frozen=True)
class CacheBlock:
    """One KV cache (a sliding-window model has two): ``cells`` of it exist, ``size_bytes`` in all."""

    name: str
    cells: int
    layers: int
    size_bytes: int
    type_k: str
    type_v: str


CHECKPOINTS_KEPT = 8
"""Points of a conversation that the engine can go back to, where its cells cannot simply be cut."""
CHECKPOINTS_BYTES = 256 * 1024 * 1024
"""What they may hold in all; the newest one is kept whatever its size."""


@dataclass(frozen=True)
class KvState:
    """KV cells and bytes: occupied (hold a token) and allocated (exist). Recurrent state counts as bytes only.
    ``checkpoints_bytes`` is what the conversation's checkpoints hold beside the cells, in RAM."""

    cells_used: int
    cells_allocated: int
    bytes_used: int
    bytes_allocated: int
    checkpoints_bytes: int = 0


@dataclass(frozen=True)
class ModelFacts:
    """What llama.cpp says of the loaded model."""

    path: str
    name: str
    architecture: str
    description: str
    size_bytes: int
    n_params: int
    n_layer: int
    n_ctx_train: int
    n_vocab: int
    has_chat_template: bool
    is_recurrent: bool = False
    is_hybrid: bool = False
    template_problem: str = ""
    """Why the file's own chat template is not used, if it has one that cannot be."""
    recommended_sampling: tuple[tuple[str, Any], ...] = ()
    """What the file recommends (``general.sampling.*``): names of SamplingSettings, and values."""


@dataclass(frozen=True)
class ContextFacts:
    """The context that now exists, as asked for (``settings``) and as made.

    ``n_ctx`` are the cells allocated now (with ``allocation="grow"`` fewer than ``n_ctx_limit``, the length the
    conversation may reach). ``how``: "new" (empty), "moved" (cells copied bit for bit), "converted" (cells turned
    into other types), "reread" (tokens decoded again), "dropped" (could not be kept).
    """

    settings: ContextSettings
    n_ctx: int
    n_ctx_limit: int
    flash_attn: bool
    buffers: tuple[Buffer, ...]
    caches: tuple[CacheBlock, ...]
    kv: KvState
    how: str
    kept_tokens: int
    elapsed_ms: float


class StopReason(StrEnum):
    """Why a reply ended."""

    EOS = "eos"
    STOP_STRING = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    CONTEXT_FULL = "context"


@dataclass(frozen=True)
class TurnStats:
    """One finished turn. ``prompt_tokens`` is the whole prompt, of which ``reused_tokens`` were still in the cache;
    ``reread_tokens`` had been computed before and had to be read again; ``thinking_tokens`` of the completion are thoughts."""

    stop_reason: StopReason
    prompt_tokens: int
    reused_tokens: int
    completion_tokens: int
    ttft_ms: float
    prompt_tokens_per_second: float | None
    tokens_per_second: float | None
    reread_tokens: int = 0
    thinking_tokens: int = 0


@dataclass(frozen=True)
class GrowStep:
    """One growth of the context: ``at_tokens`` were occupied when ``from_cells`` became ``to_cells``."""

    at_tokens: int
    from_cells: int
    to_cells: int
    ms: float
