"""A message as the transcript shows it, and what it remembers of one while its text streams in. No widgets."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

from kvdesk.backend.protocol.facts import TurnStats
from kvdesk.ui.chat.segments import Segment, SegmentParser, parse

Piece = tuple[str, bool]
"""Text that arrived, and whether it is thought."""


@dataclass(frozen=True)
class MessageRow:
    """One message to show. ``role`` is "user" or "assistant"; the versions of a message count from 1. ``thought`` is what the
    model thought before it answered with ``text``.

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
    thought: str = ""


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
        self._pieces: list[Piece] = []
        self._waiting: list[Piece] = []

    @property
    def is_reply(self) -> bool:
        """True for what the model says."""
        return self.row.role == "assistant"

    @property
    def is_thinking(self) -> bool:
        """Whether the model is thinking now."""
        return self.is_streaming and self._parser is not None and self._parser.is_thinking

    @property
    def thinking_tokens(self) -> int | None:
        """Tokens of thoughts so far; None where that is not known."""
        if self.is_thinking:
            return self.n_tokens
        return (self.row.stats.thinking_tokens or None) if self.row.stats else None

    @property
    def has_text(self) -> bool:
        """Whether the message has any text yet."""
        texts = (self.row.text, self.row.thought, *(text for text, _ in self._pieces))
        return any(text.strip() for text in texts)

    @property
    def has_waiting_text(self) -> bool:
        """Whether text was appended that ``take_waiting`` has not taken."""
        return bool(self._waiting)

    @property
    def text(self) -> str:
        """All of the answer so far."""
        return self.row.text + "".join(text for text, is_thought in (*self._pieces, *self._waiting) if not is_thought)

    @property
    def thought(self) -> str:
        """All that was thought so far."""
        return self.row.thought + "".join(text for text, is_thought in (*self._pieces, *self._waiting) if is_thought)

    @property
    def segments(self) -> list[Segment]:
        """The segments of the text taken so far."""
        if self._parser is not None:
            return self._parser.segments
        if self._segments is None:
            self._segments = parse(self.row.text, self.is_reply, self.row.thought)
        return self._segments

    def replace(self, row: MessageRow) -> None:
        """Show ``row`` in place of what was shown."""
        self.row = row
        self._segments = None

    def begin(self) -> None:
        """Text will be appended, to what there is."""
        self.is_streaming = True
        self.failure = ""
        self.prompt_done = self.n_tokens = self.tokens_per_second = None
        self._segments = None
        self._parser = SegmentParser(self.is_reply)
        self._parser.append(self.row.thought, thinking=True)
        self._parser.append(self.row.text)
        self.row = dataclasses.replace(self.row, stats=None, stop_note="", is_complete=False)

    def append(self, text: str, *, is_thought: bool = False) -> None:
        """Put ``text`` aside for ``take_waiting``; costs nothing."""
        if text:
            self._waiting.append((text, is_thought))

    def take_waiting(self) -> int:
        """Parse what waits. Returns the index of the first segment that may have changed."""
        waiting, self._waiting = self._waiting, []
        self._pieces += waiting
        changed: list[int] = []
        for is_thought, pieces in itertools.groupby(waiting, key=lambda piece: piece[1]):
            if self._parser:
                changed.append(self._parser.append("".join(text for text, _ in pieces), thinking=is_thought))
        return min(changed, default=0)

    def end(self, stats: TurnStats | None = None, failure: str = "") -> None:
        """Mark the reply as ended."""
        self.row = dataclasses.replace(
            self.row, text=self.text, thought=self.thought, stats=stats, is_complete=not failure
        )
        self.is_streaming = False
        self.failure = failure
        self.prompt_done = None
        self._pieces.clear()
        self._waiting.clear()
        self._parser = self._segments = None

    def forget_segments(self) -> None:
        """Drop what can be parsed again."""
        self._segments = None
