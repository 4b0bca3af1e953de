"""A message as the transcript shows it, and what it remembers of one while its text streams in. No widgets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from kvdesk.backend.protocol.facts import TurnStats
from kvdesk.ui.chat.segments import Segment, SegmentParser, parse


@dataclass(frozen=True)
class MessageRow:
    """One message to show. ``role`` is "user" or "assistant"; the versions of a message count from 1.

    ``stop_note`` says in words why a reply ended early; ``is_complete`` is False for one that was never finished.
    """

    message_id: str
    role: str
    text: str
    stats: TurnStats | None = None
    model_name: str = ""
    stop_note: str = ""
    is_complete: bool = True
    version: int = 1
    n_versions: int = 1


class MessageState:
    """A row and everything about it that outlives its widgets, which come and go with scrolling."""

    def __init__(self, row: MessageRow) -> None:
        self.row = row
        self.is_streaming = False
        self.failure = ""
        self.prompt_done: int | None = None
        self.prompt_total = 0
        self.n_tokens: int | None = None
        self.tokens_per_second: float | None = None
        self.thinking_open: bool | None = None
        """Whether the user opened or closed the thinking; None: neither."""
        self._parser: SegmentParser | None = None
        self._segments: list[Segment] | None = None
        self._pieces: list[str] = []
        self._waiting: list[str] = []

    @property
    def is_reply(self) -> bool:
        """True for what the model says."""
        return self.row.role == "assistant"

    @property
    def is_thinking(self) -> bool:
        """Whether the model is thinking now."""
        return self.is_streaming and self._parser is not None and self._parser.is_thinking

    @property
    def has_text(self) -> bool:
        """Whether the message has any text yet."""
        return bool(self.row.text.strip() or any(piece.strip() for piece in self._pieces))

    @property
    def has_waiting_text(self) -> bool:
        """Whether text was appended that ``take_waiting`` has not taken."""
        return bool(self._waiting)

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join((self.row.text, *self._pieces, *self._waiting))

    @property
    def segments(self) -> list[Segment]:
        """The segments of the text taken so far."""
        if self._parser is not None:
            return self._parser.segments
        if self._segments is None:
            self._segments = parse(self.row.text, self.is_reply)
        return self._segments

    def replace(self, row: MessageRow) -> None:
        """Become ``row``."""
        self.row = row
        self._segments = None

    def begin(self) -> None:
        """Text will be appended, to what there is."""
        self.is_streaming = True
        self.failure = ""
        self.prompt_done = self.n_tokens = self.tokens_per_second = None
        self._segments = None
        self._parser = SegmentParser(self.is_reply)
        self._parser.append(self.row.text)
        self.row = dataclasses.replace(self.row, stats=None, stop_note="", is_complete=False)

    def append(self, text: str) -> None:
        """Put ``text`` aside for ``take_waiting``; costs nothing."""
        self._waiting.append(text)

    def take_waiting(self) -> int:
        """Parse what waits. Returns the index of the first segment that may have changed."""
        text = "".join(self._waiting)
        self._waiting.clear()
        self._pieces.append(text)
        return self._parser.append(text) if self._parser else 0

    def end(self, stats: TurnStats | None = None, failure: str = "") -> None:
        """No more text comes."""
        self.row = dataclasses.replace(self.row, text=self.text, stats=stats, is_complete=not failure)
        self.is_streaming = False
        self.failure = failure
        self.prompt_done = None
        self._pieces.clear()
        self._waiting.clear()
        self._parser = self._segments = None

    def forget_segments(self) -> None:
        """Let go of what can be parsed again."""
        self._segments = None
