"""A reply while it is being written: the message it was begun as and what has come since. Plain value, changed in place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from kvdesk.backend.conversations.conversation import Message
from kvdesk.backend.protocol.facts import TurnStats


@dataclass
class WrittenReply:
    """``begun`` has text already where a reply is continued."""

    begun: Message
    texts: list[str] = field(default_factory=list[str])
    thoughts: list[str] = field(default_factory=list[str])

    @property
    def text(self) -> str:
        """What was written since."""
        return "".join(self.texts)

    @property
    def thought(self) -> str:
        """What was thought since."""
        return "".join(self.thoughts)

    def take(self, text: str, thought: str) -> None:
        """Add what the model wrote."""
        self.texts.append(text)
        self.thoughts.append(thought)

    def so_far(self) -> Message:
        """The message with what has come of it."""
        begun = self.begun
        return dataclasses.replace(
            begun, content=begun.content + self.text, thought=(begun.thought + self.thought).strip()
        )

    def ended(self, stats: TurnStats | None, note: str) -> Message:
        """The message as it is kept; ``note`` says why it ended where that is not ``stats``'s to say."""
        return dataclasses.replace(self.so_far(), stats=stats, stop_note=note, is_complete=stats is not None)
