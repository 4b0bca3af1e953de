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
from kvdesk.backend.conversations.conversation import ConversationRow
from kvdesk.backend.conversations.store import ConversationStore
from kvdesk.backend.conversations.store_thread import StoreThread
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
        self._list.search_changed.connect(self._on_search_changed)
        self._list.rename_requested.connect(self._on_rename_requested)
        self._list.delete_requested.connect(self._on_delete_requested)
        self._list.undo_requested.connect(self._on_undo_requested)

    def keep(self, work: Callable[[ConversationStore], Any], on_done: Callable[[Any], None] | None = None) -> None:
        """Hand ``work`` to the store; its failure is said, its result goes to ``on_done`` here."""

        def arrived(result: Any) -> None:
            if isinstance(result, Exception):
                self.noticed.emit(str(result), "error")
            elif on_done:
                on_done(result)

        self._store.submit(work, self._bridge.here(arrived))

    def keep_listed(self, work: Callable[[ConversationStore], Any]) -> None:
        """``keep`` what changes the list."""
        self.keep(work, lambda _: self.refresh())

    def refresh(self) -> None:
        """Show the store's conversations."""
        query, size_of = self._query, self._snapshot_size

        def work(store: ConversationStore) -> list[ConversationRow]:
            return [
                dataclasses.replace(row, snapshot_bytes=size_of(row.id) or None) for row in store.conversations(query)
            ]

        self.keep(work, self._list.show_conversations)

    def export(self, conversation_id: str, kind: str, path: Path) -> None:
        """Write a conversation to ``path`` as "markdown" or "json"."""

        def work(store: ConversationStore) -> None:
            conversation, messages = store.conversation(conversation_id), store.messages(conversation_id)
            make = file_format.to_markdown if kind == "markdown" else file_format.to_json
            try:
                write_file(path, make(conversation, messages))
            except OSError as error:
                words = f"The conversation cannot be written to {path}: {error.strerror or error}."
                raise StoreError(words) from error

        self.keep(work, lambda _: self.noticed.emit(self.tr("Exported to {0}").format(path), "note"))

    def import_file(self, path: Path) -> None:
        """Add the conversation in a JSON file and have it shown."""

        def work(store: ConversationStore) -> str:
            conversation, messages = file_format.from_json(text_file.read_text(path))
            store.add_conversation(conversation, messages)
            return conversation.id

        def shown(conversation_id: str) -> None:
            self.refresh()
            self.restored.emit(conversation_id)

        self.keep(work, shown)

    # --- what the list asks for ------------------------------------------------------------------------------------

    def _on_search_changed(self, query: str) -> None:
        self._query = query
        self.refresh()

    def _on_rename_requested(self, conversation_id: str, title: str) -> None:
        self.renamed.emit(conversation_id, title)
        self.keep_listed(lambda store: store.rename(conversation_id, title))

    def _on_delete_requested(self, conversation_id: str) -> None:
        self.keep_listed(lambda store: store.delete(conversation_id, time.time()))
        self.deleted.emit(conversation_id)

    def _on_undo_requested(self, conversation_id: str) -> None:
        self.keep_listed(lambda store: store.undelete(conversation_id))
        self.restored.emit(conversation_id)
