"""What was said and is not in the store yet: an ordered queue that outlives every failure of the store.

Part of store_thread.py, in its thread; rescue.py brings what is left at the end over to the next start.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from kvdesk.backend.conversations import search
from kvdesk.backend.conversations.conversation import Conversation, ConversationRow, Message, moved_to, new_id
from kvdesk.backend.conversations.store import ConversationStore
from kvdesk.errors import ConversationGone, StoreError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SaveState:
    """Whether everything said is stored. ``since_s`` (seconds since the epoch) is when the first change failed that still
    is not, None while there is none; ``reason`` is a sentence that says why."""

    since_s: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Unsaved:
    """One conversation as it should be stored, with those of its messages that were added or changed, in order."""

    conversation: Conversation
    messages: tuple[Message, ...] = ()

    def joined(self, later: Unsaved) -> Unsaved:
        """This and what was said ``later``: a message that changed again keeps its place."""
        messages = {message.id: message for message in (*self.messages, *later.messages)}
        return Unsaved(later.conversation, tuple(messages.values()))


class UnsavedChanges:
    """Conversations with changes that the store has not taken, the longest waiting first.

    Each is one transaction, so what is stored of it is whole and in order. ``on_moved`` hears of a conversation that
    another window deleted (its id, and the id of the new one in which its text goes on).
    """

    def __init__(self, on_moved: Callable[[str, str], None]) -> None:
        self._on_moved = on_moved
        self._waiting: dict[str, Unsaved] = {}
        self._stored: set[str] = set()
        self._moved: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Unsaved]:
        return iter(tuple(self._waiting.values()))

    def add(self, conversation: Conversation, messages: Iterable[Message] = ()) -> None:
        """Take a conversation as it is now, and messages that are new in it or have changed."""
        change = Unsaved(conversation, tuple(messages))
        while new := self._moved.get(change.conversation.id):  # said before the window heard of it
            change = Unsaved(*moved_to(new, change.conversation, change.messages))
        before = self._waiting.get(change.conversation.id)
        self._waiting[change.conversation.id] = before.joined(change) if before else change

    def write(self, store: ConversationStore) -> str:
        """Store what waits. Returns why something still does: "" when all is stored.

        What fails in the store (a full disk, a lock) ends the round; what fails because of one conversation does not keep
        the others waiting.
        """
        problem = ""
        for conversation_id, change in tuple(self._waiting.items()):
            try:
                self._write_one(store, change)
            except StoreError as error:
                return str(error)
            except Exception:  # noqa: BLE001 (a defect of ours: the text waits on, and is rescued in the end)
                _log.exception("conversation %s cannot be stored", conversation_id)
                problem = problem or f"“{change.conversation.title[:60]}” cannot be stored; kvdesk's log says why."
        return problem

    def _write_one(self, store: ConversationStore, change: Unsaved) -> None:
        old_id = change.conversation.id
        try:
            store.keep(change.conversation, change.messages, may_be_new=old_id not in self._stored)
        except ConversationGone:
            whole = _rooted(Unsaved(change.conversation, store.messages(old_id)).joined(change))
            change = Unsaved(*moved_to(new_id(), whole.conversation, whole.messages))
            store.keep(change.conversation, change.messages, may_be_new=True)
            self._moved[old_id] = change.conversation.id
            self._on_moved(old_id, change.conversation.id)
        del self._waiting[old_id]
        self._stored.add(change.conversation.id)

    # --- reading what the store has together with what it has not -----------------------------------------------

    def whole(self, opened: Callable[[], ConversationStore], conversation_id: str) -> Unsaved:
        """A conversation and all its messages as they should be stored. Raises StoreError where neither knows it, or
        ``opened`` (the store) cannot be read and nothing of it waits."""
        waiting = self._waiting.get(conversation_id)
        try:
            store = opened()
            stored = Unsaved(store.conversation(conversation_id), store.messages(conversation_id))
        except StoreError:
            if waiting is None:
                raise
            return waiting
        self._stored.add(conversation_id)  # should it not be there later on, it was deleted elsewhere
        return stored.joined(waiting) if waiting else stored

    def rows(self, stored: Iterable[ConversationRow], query: str = "") -> tuple[ConversationRow, ...]:
        """The store's rows for ``query`` with what waits: last used first."""
        words = search.words_of(query)
        rows = {row.id: row for row in stored}
        for conversation_id, change in self._waiting.items():
            head = change.conversation
            texts = (f"{head.title} {head.draft}", *(message.content for message in change.messages))
            if conversation_id in rows or any(search.holds_all(text, words) for text in texts):
                row = rows.get(conversation_id) or ConversationRow(conversation_id, "", 0.0)
                rows[conversation_id] = dataclasses.replace(
                    row, title=head.title, updated_s=head.updated_s, model_path=head.model_path, draft=head.draft
                )
        return tuple(sorted(rows.values(), key=lambda row: row.updated_s, reverse=True))


def _rooted(change: Unsaved) -> Unsaved:
    """``change`` as a tree of its own: a message that answers one which is gone for good becomes a first one."""
    known = {message.id for message in change.messages}
    leaf = change.conversation.active_leaf_id
    return Unsaved(
        dataclasses.replace(change.conversation, active_leaf_id=leaf if leaf in known else None),
        tuple(one if one.parent_id in known else dataclasses.replace(one, parent_id=None) for one in change.messages),
    )
