"""The list of conversations as a Qt model: headings by day, rows, a title that can be edited in place. UI thread.

Editing tells ``title_edited``; the row changes when the owner shows new rows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QAbstractListModel, QCoreApplication, QModelIndex, QPersistentModelIndex, Qt, Signal

from kvdesk.backend.conversations.conversation import ConversationRow, title_of
from kvdesk.shown_text import shown_line
from kvdesk.ui.widgets.numbers import format_file_size
from kvdesk.ui.widgets.plain_text import plain_tip

Index = QModelIndex | QPersistentModelIndex
ROW_ROLE = Qt.ItemDataRole.UserRole
"""The ConversationRow; None for a heading."""


def _tr(text: str) -> str:
    return QCoreApplication.translate("ConversationRows", text)


def heading_of(updated_s: float, now_s: float) -> str:
    """The heading under which something last used at ``updated_s`` stands at ``now_s``, by days of local time."""
    today, day = (dt.datetime.fromtimestamp(t).astimezone().date() for t in (now_s, updated_s))
    days = (today - day).days
    if days <= 0:
        return _tr("Today")
    if days == 1:
        return _tr("Yesterday")
    return _tr("Previous 7 days") if days <= 7 else _tr("Older")


def title_text(row: ConversationRow) -> str:
    """What to call a conversation, also one that nothing has been said in yet."""
    if not row.title and (draft := title_of(row.draft)):
        return _tr("Draft: {0}").format(draft)
    return shown_line(row.title) or _tr("New chat")


class ConversationRows(QAbstractListModel):
    """Headings and conversations, in the order they were given."""

    title_edited = Signal(str, str)
    """Conversation id and the title wanted."""

    def __init__(self) -> None:
        super().__init__()
        self._entries: list[ConversationRow | str] = []

    def show_rows(self, rows: Sequence[ConversationRow], now_s: float) -> None:
        """Take ``rows``, newest first."""
        entries: list[ConversationRow | str] = []
        heading = ""
        for row in rows:
            if (wanted := heading_of(row.updated_s, now_s)) != heading:
                heading = wanted
                entries.append(heading)
            entries.append(row)
        if entries == self._entries:
            return
        self.beginResetModel()
        self._entries = entries
        self.endResetModel()

    def index_of(self, conversation_id: str) -> QModelIndex:
        """Where a conversation stands; invalid when it is not in the list."""
        for number, entry in enumerate(self._entries):
            if isinstance(entry, ConversationRow) and entry.id == conversation_id:
                return self.index(number)
        return QModelIndex()

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008 (Qt's signature)
        return 0 if parent.isValid() else len(self._entries)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        entry = self._entries[index.row()]
        row = entry if isinstance(entry, ConversationRow) else None
        if role == ROW_ROLE:
            return row
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole):
            return entry if row is None else title_text(row)
        if role == Qt.ItemDataRole.ToolTipRole and row is not None:
            return plain_tip(_tip(row))
        return None

    def setData(self, index: Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        row = index.data(ROW_ROLE)
        title = " ".join(str(value).split())
        if role != Qt.ItemDataRole.EditRole or row is None or not title or title == title_text(row):
            return False
        self.title_edited.emit(row.id, title)
        return True

    def flags(self, index: Index) -> Qt.ItemFlag:
        if index.data(ROW_ROLE) is None:
            return Qt.ItemFlag.ItemNeverHasChildren
        enabled = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        return enabled | Qt.ItemFlag.ItemIsEditable | Qt.ItemFlag.ItemNeverHasChildren


def _tip(row: ConversationRow) -> str:
    lines = [title_text(row), dt.datetime.fromtimestamp(row.updated_s).astimezone().strftime("%x %H:%M")]
    if row.model_path:
        lines.append(row.model_path.replace("\\", "/").rsplit("/", 1)[-1])
    if row.snapshot_bytes is not None:
        lines.append(_tr("KV snapshot on disk: {0}").format(format_file_size(row.snapshot_bytes)))
    return "\n".join(lines)
