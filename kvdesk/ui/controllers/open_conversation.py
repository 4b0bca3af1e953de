"""The conversation that is open: its messages, the branch on screen, and that every change of it is kept. UI thread.

What a message tree is, is backend/conversations/conversation.py's; the store is reached through ``ConversationsController``.
What is drawn of it, and what an engine does with it, is the chat controller's.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, Signal

from kvdesk.backend.conversations.conversation import (
    Conversation,
    Message,
    active_path,
    moved_to,
    newest_leaf,
    siblings,
    title_of,
    to_turns,
)
from kvdesk.backend.protocol.facts import ChatTurn
from kvdesk.ui.chat.message_row import MessageRow
from kvdesk.ui.controllers.conversations import ConversationsController


class OpenConversation(QObject):
    """One conversation and its messages. It is stored from its first message on, or from what is typed before."""

    shown = Signal()
    """Another conversation is open."""
    kept = Signal(str)
    """The open conversation is in the store from now on: its id."""
    system_prompt_changed = Signal()

    def __init__(
        self, keeper: ConversationsController, make_new: Callable[[], Conversation], parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._keeper = keeper
        self._make_new = make_new
        self.conversation: Conversation = make_new()
        self.is_kept = False
        self.path: tuple[Message, ...] = ()
        """The branch on screen, oldest message first."""
        self._messages: dict[str, Message] = {}

    # --- which --------------------------------------------------------------------------------------------------

    @property
    def kept_id(self) -> str:
        """The conversation's id, "" while nothing of it is kept."""
        return self.id if self.is_kept else ""

    @property
    def id(self) -> str:
        """The conversation's id; it has one before it is kept."""
        return self.conversation.id

    def show(self, conversation: Conversation, messages: tuple[Message, ...]) -> None:
        """Open a conversation that is in the store."""
        self.conversation, self.is_kept = conversation, True
        self._messages = {message.id: message for message in messages}
        self.path = active_path(messages, conversation.active_leaf_id)
        self.shown.emit()

    def show_new(self) -> None:
        """Open an empty conversation."""
        self.conversation, self.is_kept = self._make_new(), False
        self._messages, self.path = {}, ()
        self.shown.emit()

    def leave(self) -> None:
        """Another is opened: one that nothing was said in is not kept."""
        conversation_id = self.id
        if self.is_kept and not self._messages:
            self._keeper.change(lambda store: store.remove_if_empty(conversation_id))

    def move(self, new_id: str) -> dict[str, Message]:
        """It was deleted elsewhere: go on with a copy of it under ``new_id``. Old message id -> message of the copy."""
        self.conversation, messages = moved_to(new_id, self.conversation, self._messages.values())
        moved = dict(zip(self._messages, messages, strict=True))
        self._messages = {message.id: message for message in messages}
        self.path = tuple(moved[message.id] for message in self.path)
        self._keeper.save(self.conversation, *messages)
        self.kept.emit(new_id)
        return moved

    # --- reading ------------------------------------------------------------------------------------------------

    def message(self, message_id: str) -> Message | None:
        """The message with this id, on whatever branch."""
        return self._messages.get(message_id)

    @property
    def last_id(self) -> str | None:
        """The id of the branch's last message; None while it is empty."""
        return self.path[-1].id if self.path else None

    def turns(self) -> tuple[ChatTurn, ...]:
        """What the engine is given of the branch."""
        return to_turns(self.conversation, self.path)

    def row(self, message: Message) -> MessageRow:
        """What the transcript shows of ``message``."""
        versions = [one.id for one in siblings(self._messages.values(), message)]
        return MessageRow(
            message_id=message.id,
            role=message.role,
            text=message.content,
            thought=message.thought,
            stats=message.stats,
            model_name=message.model_name,
            stop_note=message.stop_note,
            is_complete=message.is_complete,
            version=versions.index(message.id) + 1,
            n_versions=len(versions),
        )

    def rows(self) -> list[MessageRow]:
        """The branch as the transcript shows it."""
        return [self.row(message) for message in self.path]

    # --- changing -----------------------------------------------------------------------------------------------

    def change(self, **changes: Any) -> None:
        """Change fields of the conversation and keep it."""
        self.conversation = dataclasses.replace(self.conversation, updated_s=time.time(), **changes)
        if self.is_kept:
            self._keeper.save(self.conversation)
        else:
            self._keep_if_typed()
        if "system_prompt" in changes:
            self.system_prompt_changed.emit()

    def rename(self, title: str) -> None:
        """Take a title that the list has been given."""
        self.conversation = dataclasses.replace(self.conversation, title=title)
        self._keeper.save(self.conversation, listed=False)

    def set_draft(self, draft: str) -> None:
        """Keep what is typed; its time in the list stays."""
        if draft == self.conversation.draft:
            return
        self.conversation = dataclasses.replace(self.conversation, draft=draft)
        if self.is_kept:
            self._keeper.save(self.conversation, listed=not self.conversation.title)
        else:
            self._keep_if_typed()

    def take_draft(self) -> None:
        """What was typed becomes a message, which is kept next."""
        self.conversation = dataclasses.replace(self.conversation, draft="")

    def refresh_new(self) -> bool:
        """Another model is there, and with it what new conversations begin with: one that nothing was done in takes it."""
        if not self.is_kept:
            self.conversation = dataclasses.replace(self.conversation, sampling=self._make_new().sampling)
        return not self.is_kept

    def add(self, message: Message) -> None:
        """Put a message at the end of the branch and keep it."""
        self._messages[message.id] = message
        self.path = (*self.path, message)
        title = self.conversation.title or (title_of(message.content) if message.role == "user" else "")
        self.conversation = dataclasses.replace(
            self.conversation, title=title, active_leaf_id=message.id, updated_s=time.time()
        )
        self._keeper.save(self.conversation, message)
        self._note_kept()

    def update(self, message: Message) -> None:
        """Keep ``message`` in place of the one with its id."""
        self._messages[message.id] = message
        self.path = tuple(message if one.id == message.id else one for one in self.path)
        self._keeper.save(self.conversation, message, listed=False)

    def cut_to(self, parent_id: str | None) -> None:
        """Make the branch end in ``parent_id``; nothing is deleted."""
        self.path = active_path(self._messages.values(), parent_id) if parent_id else ()

    def choose_version(self, message_id: str, delta: int) -> bool:
        """Show the version of a message ``delta`` further on, with what was said last below it; False: there is none."""
        message = self._messages.get(message_id)
        versions = [one.id for one in siblings(self._messages.values(), message)] if message else []
        at = versions.index(message_id) + delta if message else -1
        if not 0 <= at < len(versions):
            return False
        leaf = newest_leaf(self._messages.values(), versions[at])
        self.path = active_path(self._messages.values(), leaf)
        self.change(active_leaf_id=leaf)
        return True

    def _keep_if_typed(self) -> None:
        if self.conversation.draft.strip() or self.conversation.system_prompt != self._make_new().system_prompt:
            self._keeper.save(self.conversation)
            self._note_kept()

    def _note_kept(self) -> None:
        if not self.is_kept:
            self.is_kept = True
            self.kept.emit(self.id)
