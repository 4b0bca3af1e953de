"""What the store did not take before kvdesk ended: one file a conversation, beside the database, for the next start.

Part of store_thread.py, in its thread. The files are those that Export writes, and can be imported by hand as well.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from kvdesk.backend.atomic_file import write_file
from kvdesk.backend.conversations import file_format
from kvdesk.backend.conversations.unsaved import Unsaved
from kvdesk.errors import UsageError

PREFIX = "kvdesk-unsaved-"
_log = logging.getLogger(__name__)


def write(folders: Iterable[Path], change: Unsaved) -> Path | None:
    """Write a conversation to the first of ``folders`` that takes it: the others may be on the disk that is full. None,
    and a line in the log, when none does."""
    text = file_format.to_json(change.conversation, change.messages, with_draft=True)
    for folder in folders:
        path = folder / f"{PREFIX}{change.conversation.id}.json"
        try:
            write_file(path, text)
        except OSError as error:
            _log.warning("%s does not take what is unsaved: %s", path, error)
        else:
            _log.warning("what is unsaved of a conversation is in %s", path)
            return path
    return None


def read(folders: Iterable[Path]) -> Iterator[tuple[Path, Unsaved]]:
    """What earlier runs wrote, and where it is. Files of other users and files that are damaged are left alone."""
    for folder in folders:
        for path in sorted(folder.glob(f"{PREFIX}*.json")):
            try:
                if os.name == "posix" and path.lstat().st_uid != os.getuid():
                    continue
                yield path, Unsaved(*file_format.from_json(path.read_text("utf-8"), keep_ids=True))
            except (OSError, UnicodeError, UsageError) as error:
                _log.warning("%s cannot be read: %s", path, error)


def remove(path: Path) -> None:
    """Its conversation is in the store now."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s cannot be removed: %s", path, error)
