"""Points of a conversation that its cells can go back to where they cannot simply be cut. Engine process only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kvdesk.backend.protocol.facts import CHECKPOINTS_BYTES, CHECKPOINTS_KEPT


@dataclass(frozen=True)
class Checkpoint:
    """A point to go back to, after ``n_tokens`` tokens."""

    n_tokens: int
    state: memoryview | None
    """What cutting back cannot rebuild (window cells, recurrent state); None where it can rebuild all."""
    logits: bytes | None = None
    """Of the last token, where a prompt ended: the same prompt is answered again, and alike, without decoding it."""

    @property
    def n_bytes(self) -> int:
        """Bytes of RAM that this checkpoint takes."""
        return len(self.state or b"") + len(self.logits or b"")


class Checkpoints:
    """The newest of one conversation, oldest first: at most CHECKPOINTS_KEPT, and CHECKPOINTS_BYTES together (but one)."""

    def __init__(self) -> None:
        self._kept: list[Checkpoint] = []

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(tuple(self._kept))

    def __reversed__(self) -> Iterator[Checkpoint]:
        return iter(tuple(reversed(self._kept)))

    def has(self, n_tokens: int) -> bool:
        """Whether the newest one is after ``n_tokens`` tokens."""
        return bool(self._kept) and self._kept[-1].n_tokens == n_tokens

    def with_logits(self, n_tokens: int) -> Checkpoint | None:
        """The one after exactly ``n_tokens`` tokens that has their logits."""
        return next((one for one in self._kept if one.n_tokens == n_tokens and one.logits), None)

    def add(self, checkpoint: Checkpoint) -> None:
        """Keep one more; the oldest go where that is too many or too much."""
        self._kept.append(checkpoint)
        while len(self._kept) > CHECKPOINTS_KEPT or (len(self._kept) > 1 and self.n_bytes > CHECKPOINTS_BYTES):
            del self._kept[0]

    @property
    def n_bytes(self) -> int:
        """Bytes of RAM that all of them take."""
        return sum(one.n_bytes for one in self._kept)

    def drop_after(self, n_tokens: int) -> None:
        """Forget those of more tokens than that."""
        self._kept = [one for one in self._kept if one.n_tokens <= n_tokens]

    def clear(self) -> None:
        """Forget all checkpoints and free their bytes."""
        self._kept.clear()

    def copy(self) -> Checkpoints:
        """The same ones, to go back to."""
        other = Checkpoints()
        other._kept = list(self._kept)
        return other


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens ``a`` and ``b`` share."""
    n = min(len(a), len(b))
    if list(a[:n]) == list(b[:n]):
        return n
    return next(i for i in range(n) if a[i] != b[i])
