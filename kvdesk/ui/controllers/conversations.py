"""Conversations in the store and in the list: every word to the store's thread goes through here, its failures are said.

UI thread. Which conversation is open, and what is said in it, is ui/controllers/chat.py's.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal

from kvdesk.backend import text_file
from kvdesk.backend.atomic_file import write_file
from kvdesk.backend.conversations import file_format
from kvdesk.backend.conversations.conversation import Conversation, ConversationRow, Message
from kvdesk.backend.conversations.store import ConversationStore
from kvdesk.backend.conversations.store_thread import StoreThread
from kvdesk.backend.conversations.unsaved import SaveState, Unsaved
from kvdesk.errors import StoreError
from kvdesk.ui.chat.conversation_list import ConversationList
from kvdesk.ui.controllers.bridge import Bridge


class ConversationsController(QObject):
    """Keeps, lists, searches, renames, deletes and brings back."""

    noticed = Signal(str, str)
    """A sentence for the transcript and its kind ("note", "error")."""
    renamed = Signal(str, str)
    """Conversation id, new title."""
    deleted = Signal(str)
    """The conversation of this id is out of sight."""
    restored = Signal(str)
    """The conversation of this id is there again, or has come from a file: to be shown."""
    moved = Signal(str, str)
    """The first conversation was deleted in another window; what is said in it goes on in the second."""
    unsaved_changed = Signal(str)
    """A sentence that says since when and why something is not stored; "" when all is."""

    def __init__(
        self,
        store: StoreThread,
        bridge: Bridge,
        conversation_list: ConversationList,
        snapshot_size: Callable[[str], int],
        parent: QObject | None = None,
    ) -> None:
        """``snapshot_size``: bytes on disk of a conversation's kept cells."""
        super().__init__(parent)
        self._store = store
        self._bridge = bridge
        self._list = conversation_list
        self._snapshot_size = snapshot_size
        self._query = ""
        self._n_rescued = 0
        self._store.listen(
            bridge.here(self._on_state), bridge.here(lambda ids: self.moved.emit(*ids)), bridge.here(self._on_rescued)
        )
        self._list.search_changed.connect(self._on_search_changed)
        self._list.rename_requested.connect(self._on_rename_requested)
        self._list.delete_requested.connect(self._on_delete_requested)
        self._list.undo_requested.connect(self._on_undo_requested)

    def save(self, conversation: Conversation, *messages: Message, listed: bool = True) -> None:
        """Have a conversation stored as it is now, with those of its messages that are new or have changed. What the store
        does not take is tried again until it does; ``listed``: the list shows something of it."""
        self._store.save(conversation, *messages)
        if listed:
            self.refresh()

    def read(self, conversation_id: str, on_done: Callable[[Conversation, tuple[Message, ...]], None]) -> None:
        """Hand a conversation and all its messages to ``on_done``."""
        self._store.read(conversation_id, self._here(lambda whole: on_done(whole.conversation, whole.messages)))

    def keep(self, work: Callable[[ConversationStore], Any], on_done: Callable[[Any], None] | None = None) -> None:
        """Hand ``work`` to the store; its failure is said, its result goes to ``on_done`` here."""
        self._store.submit(work, self._here(on_done))

    def change(self, work: Callable[[ConversationStore], Any]) -> None:
        """``keep`` what changes a conversation, after all that was said before."""
        self._store.change(work, self._here(lambda _: self.refresh()))

    def refresh(self) -> None:
        """Show the store's conversations."""
        size_of = self._snapshot_size

        def shown(rows: tuple[ConversationRow, ...]) -> None:
            self._list.show_conversations(rows)

        def sized(
            rows: tuple[ConversationRow, ...] | Exception,
        ) -> None:  # on the store's thread: sizes are on the disk
            if not isinstance(rows, Exception):
                rows = tuple(dataclasses.replace(row, snapshot_bytes=size_of(row.id) or None) for row in rows)
            arrived(rows)

        arrived = self._here(shown)
        self._store.rows(self._query, sized)

    def _here(self, on_done: Callable[[Any], None] | None) -> Callable[[Any], None]:
        def arrived(result: Any) -> None:
            if isinstance(result, Exception):
                self.noticed.emit(str(result), "error")
            elif on_done:
                on_done(result)

        return self._bridge.here(arrived)

    def export(self, conversation_id: str, kind: str, path: Path) -> None:
        """Write a conversation to ``path`` as "markdown" or "json"."""

        def written(whole: Unsaved | Exception) -> None:  # on the store's thread
            if isinstance(whole, Exception):
                done(whole)
                return
            make = file_format.to_markdown if kind == "markdown" else file_format.to_json
            try:
                write_file(path, make(whole.conversation, whole.messages))
            except OSError as error:
                done(StoreError(f"The conversation cannot be written to {path}: {error.strerror or error}."))
            else:
                done(None)

        done = self._here(lambda _: self.noticed.emit(self.tr("Exported to {0}").format(path), "note"))
        self._store.read(conversation_id, written)

    def import_file(self, path: Path) -> None:
        """Add the conversation in a JSON file and have it shown."""

        def work(store: ConversationStore) -> str:
            conversation, messages = file_format.from_json(text_file.read_text(path))
            store.keep(conversation, messages)
            return conversation.id

        def shown(conversation_id: str) -> None:
            self.refresh()
            self.restored.emit(conversation_id)

        self._store.change(work, self._here(shown))

    # --- what the store says --------------------------------------------------------------------------------------

    def _on_state(self, state: SaveState) -> None:
        if state.since_s is None:
            self.unsaved_changed.emit("")
            self.refresh()
        else:
            since = time.strftime("%H:%M", time.localtime(state.since_s))
            self.unsaved_changed.emit(self.tr("Not saved since {0}. {1}").format(since, state.reason))

    def _on_rescued(self, n_conversations: int) -> None:
        self._n_rescued = n_conversations

    def say_rescued(self) -> None:
        """Say, once the conversation of last time is shown, that what an earlier run could not save is there again."""
        if self._n_rescued:
            words = self.tr("What could not be saved when kvdesk ended is here again (conversations: {0}).")
            self.noticed.emit(words.format(self._n_rescued), "note")

    # --- what the list asks for ------------------------------------------------------------------------------------

    def _on_search_changed(self, query: str) -> None:
        self._query = query
        self.refresh()

    def _on_rename_requested(self, conversation_id: str, title: str) -> None:
        self.renamed.emit(conversation_id, title)
        self.change(lambda store: store.rename(conversation_id, title))

    def _on_delete_requested(self, conversation_id: str) -> None:
        self.deleted.emit(conversation_id)  # first: whoever shows it saves what is typed in it
        self.change(lambda store: store.delete(conversation_id, time.time()))

    def _on_undo_requested(self, conversation_id: str) -> None:
        self.change(lambda store: store.undelete(conversation_id))
        self.restored.emit(conversation_id)
