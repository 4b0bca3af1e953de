"""Keeps the cells of conversations on disk when they leave the context and brings them back. Engine process only.

Cells are copied out on the caller's thread and written on one of its own, one snapshot at a time. What a file looks like and
which ones go is snapshots.py's. Nothing here fails loudly: tokens can always be read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from kvdesk.backend.conversations.snapshots import SnapshotKey, SnapshotStore, model_identity
from kvdesk.backend.llama import library
from kvdesk.backend.llama.kv.checkpoints import common_prefix
from kvdesk.backend.llama.kv.conversation_cells import ConversationCells
from kvdesk.backend.llama.kv.growth_question import ContextFull, GrowQuestion
from kvdesk.backend.llama.kv.transfer import restore_sequence, save_sequence
from kvdesk.backend.protocol.messages import SnapshotPlace
from kvdesk.errors import EngineError

MIN_TOKENS = 32
"""Fewer are read again faster than a file is opened."""


class SnapshotCache:
    """The snapshots of one loaded model."""

    def __init__(self, place: SnapshotPlace, model_parts: Sequence[Path]) -> None:
        """Raises OSError when the model's file cannot be read."""
        self._store = SnapshotStore(Path(place.folder), place.budget_bytes)
        self._model_id = model_identity(*model_parts)
        self._kept: tuple[SnapshotKey, list[int]] | None = None
        self._writer = ThreadPoolExecutor(1, "snapshots")
        self._writing: Future[bool] | None = None

    def keep(self, session: ConversationCells) -> bool:
        """Save the cells if they changed since they were kept last; True when something is being written. Returns once they
        are copied: what is read next need not wait for the disk."""
        key = self._key(session, session.conversation_id)
        now = (key, list(session.tokens))
        if not key.conversation_id or len(session.tokens) < MIN_TOKENS or now == self._kept:
            return False
        self.settle()
        try:
            state = save_sequence(session.context.ptr)
        except EngineError:
            return False
        self._writing = self._writer.submit(self._store.save, *now, state)
        self._kept = now
        return True

    def settle(self) -> None:
        """Wait until what was kept last is on disk, and the copy of its cells is free again: before memory is priced."""
        if self._writing:
            wait((self._writing,))
            self._writing = None

    def close(self) -> None:
        """Wait for what is being written, and end the thread."""
        self.settle()
        self._writer.shutdown()

    def bring_back(
        self, session: ConversationCells, conversation_id: str, prompt: Sequence[int], ask: GrowQuestion
    ) -> int:
        """Fill the cells with those kept for ``conversation_id`` if that spares more of ``prompt`` than what is there;
        returns how many tokens came back."""
        if self._kept and self._kept[0].conversation_id == conversation_id:
            self.settle()
        head = self._store.peek(conversation_id)
        if not head or common_prefix(head.tokens, prompt) <= common_prefix(session.tokens, prompt):
            return 0
        snapshot = self._store.load(self._key(session, conversation_id))
        if not snapshot or len(snapshot.tokens) >= session.limit:
            return 0
        session.forget()
        try:
            session.make_room(len(snapshot.tokens) + 1, ask)
        except ContextFull:
            return 0
        if not restore_sequence(session.context.ptr, snapshot.state):
            session.forget()
            return 0
        session.take(snapshot.tokens)
        self._kept = (snapshot.key, list(snapshot.tokens))
        return len(snapshot.tokens)

    def _key(self, session: ConversationCells, conversation_id: str) -> SnapshotKey:
        settings = session.settings
        engine = f"{library.lib_version()} {library.state_layout(settings)}"
        if session.model.positions.is_long(session.limit):
            engine += " long"
        return SnapshotKey(
            conversation_id, self._model_id, engine, settings.type_k, settings.type_v, session.context.flash_attn
        )
