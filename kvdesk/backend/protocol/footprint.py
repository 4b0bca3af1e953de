"""What one configuration allocates, as llama.cpp itself counts it (or as arithmetic estimates it). Pure values.

Made by dry_run.py (exact) and estimate.py (a guess, and labelled so); read by plan.py and explain.py. Any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kvdesk.backend.protocol.facts import Buffer, BufferKind, CacheBlock, Device
from kvdesk.backend.settings import EngineSettings

DRY_RUN = "dry-run"
ESTIMATE = "estimate"
DESCRIBED_DEVICE = "described:"
"""Among rpc_servers of a dry run: a device that does not exist, with the name that follows. llama.cpp splits a model over
it as over any other."""


@dataclass(frozen=True)
class Footprint:
    """Every buffer of one model with one context, before a byte of it exists.

    ``n_ctx`` cells are what llama.cpp makes of the wish (padded, whole sequences), ``n_ctx_seq`` of them serve one
    sequence. ``flash_attn`` is the answer to "auto". ``devices`` are all the domains that the model may use, the CPU
    included. ``n_vocab`` 0 when the file holds no vocabulary. ``source`` is DRY_RUN or ESTIMATE.
    """

    settings: EngineSettings
    source: str
    n_ctx: int
    n_ctx_seq: int
    flash_attn: bool
    buffers: tuple[Buffer, ...]
    caches: tuple[CacheBlock, ...]
    devices: tuple[Device, ...] = ()
    n_vocab: int = 0
    warnings: tuple[str, ...] = ()
    helper_device_bytes: dict[str, int] = field(default_factory=dict[str, int])
    """What the helper process itself holds on a device (its GPU context); not other programs' use."""

    def bytes_on(self, device: str, *kinds: BufferKind) -> int:
        """Bytes of ``kinds`` (all, if none is named) on ``device``."""
        return sum(b.size_bytes for b in self.buffers if b.device == device and (not kinds or b.kind in kinds))

    def bytes_of(self, *kinds: BufferKind) -> int:
        """Bytes of ``kinds`` on all devices."""
        return sum(b.size_bytes for b in self.buffers if b.kind in kinds)

    @property
    def cells(self) -> int:
        """KV cells in the cache that holds the whole conversation; 0 for a model that keeps none (recurrent)."""
        return max((c.cells for c in self.caches), default=0)
