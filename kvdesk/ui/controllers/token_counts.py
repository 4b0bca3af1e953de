"""How many tokens the open conversation and the draft make, asked of the engine as they change. UI thread."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ChatTurn
from kvdesk.backend.session.session import Session


class TokenCounts(QObject):
    """The newest counts; each state of the conversation is counted once, the draft alone each time it is typed in."""

    counted = Signal(int, int)
    """Tokens of the conversation and of the draft, as a prompt."""
    draft_counted = Signal(int)
    """Tokens of the draft alone."""

    def __init__(self, session: Session, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._n_asked = 0
        self._conversation_id = self._draft_id = 0
        """The newest requests; negative, as no reply's is."""
        self._turns: tuple[ChatTurn, ...] | None = None
        self._conversation_tokens: int | None = None
        self._draft_tokens = 0

    def forget(self) -> None:
        """Another model counts anew, or none is there."""
        self._turns = self._conversation_tokens = None

    def ask(self, turns: tuple[ChatTurn, ...], draft: str) -> None:
        """Ask for both; answered while replies go on."""
        if turns != self._turns:
            self._turns, self._conversation_tokens = turns, None
            self._conversation_id = self._send(turns, is_plain=False)
        self._draft_id = self._send((ChatTurn("user", draft),) if draft else (), is_plain=True)

    def _send(self, turns: tuple[ChatTurn, ...], *, is_plain: bool) -> int:
        self._n_asked += 1
        self._session.engine.send(m.CountTokens(-self._n_asked, turns, is_plain))
        return -self._n_asked

    def take(self, event: m.TokensCounted) -> None:
        """An answer; one that is no longer wanted is dropped."""
        if event.request_id == self._conversation_id:
            self._conversation_tokens = event.n_tokens
        elif event.request_id == self._draft_id:
            self._draft_tokens = event.n_tokens
            self.draft_counted.emit(event.n_tokens)
        else:
            return
        if self._conversation_tokens is not None:
            has_messages = any(turn.role != "system" for turn in self._turns or ())
            self.counted.emit(self._conversation_tokens if has_messages else 0, self._draft_tokens)
