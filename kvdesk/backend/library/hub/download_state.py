"""A download as it may be shown. Pure values."""

from __future__ import annotations

from dataclasses import dataclass

QUEUED, WAITING, LOADING, CHECKING, PAUSED, FAILED, DONE = (
    "queued", "waiting", "loading", "checking", "paused", "failed", "done",
)  # fmt: skip
UNDER_WAY = frozenset({QUEUED, WAITING, LOADING, CHECKING})


@dataclass(frozen=True)
class DownloadState:
    """``stage``: QUEUED (others run), WAITING (another kvdesk has it), LOADING, CHECKING, PAUSED, FAILED or DONE.

    ``bytes_per_second`` is of the last seconds, ``seconds_left`` follows from it; both None while they cannot be told.
    ``error`` says what a person can do about FAILED, ``path`` is where the model is once DONE.
    """

    key: str
    name: str
    repo_id: str
    stage: str
    done_bytes: int
    size_bytes: int
    bytes_per_second: float | None = None
    error: str = ""
    path: str = ""

    @property
    def seconds_left(self) -> float | None:
        """Until all bytes are here, at the present speed."""
        if self.stage != LOADING or not self.bytes_per_second:
            return None
        return (self.size_bytes - self.done_bytes) / self.bytes_per_second
