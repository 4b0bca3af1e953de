"""The store on a thread of its own, so that no window ever waits for a disk.

Jobs run one after another in the order they were handed in; results are told on that thread (ui/controllers/bridge.py brings
them to Qt's).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kvdesk.backend.conversations.store import ConversationStore
from kvdesk.errors import StoreError

T = TypeVar("T")
_log = logging.getLogger(__name__)
_Job = tuple[Callable[[ConversationStore], Any], Callable[[Any], None] | None]


class StoreThread:
    """Owns the ConversationStore at ``path`` from ``__init__`` to ``close``.

    The file is opened on the thread. If that fails, every job is answered with the StoreError, so the window stays
    usable and can say why nothing is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def submit(
        self, work: Callable[[ConversationStore], T], on_done: Callable[[T | Exception], None] | None = None
    ) -> None:
        """Do ``work`` with the store on its thread, then call ``on_done`` there with the result or the error.

        An error that nobody listens for is logged. After ``close`` jobs are refused with a StoreError.
        """
        if self._is_closed:
            _tell(on_done, StoreError("The conversations are closed already."))
        else:
            self._jobs.put((work, on_done))

    def close(self, timeout_s: float = 10.0) -> bool:
        """Finish what was handed in, close the file and end the thread; False if that took longer than ``timeout_s``."""
        if not self._is_closed:
            self._is_closed = True
            self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            store = ConversationStore(self._path)
        except Exception as error:  # noqa: BLE001 (else nobody would be answered, and what waits for it never start)
            _log.warning("no conversations", exc_info=error)
            known = isinstance(error, StoreError)
            answer = error if known else StoreError(f"The conversations in {self._path} cannot be opened: {error}.")
            while (job := self._jobs.get()) is not None:
                _tell(job[1], answer)
            return
        with store:
            while (job := self._jobs.get()) is not None:
                work, on_done = job
                try:
                    result = work(store)
                except Exception as error:  # noqa: BLE001 (whatever a job raises belongs to who asked for it)
                    _tell(on_done, error)
                else:
                    _tell(on_done, result)


def _tell(on_done: Callable[[Any], None] | None, result: object) -> None:
    if on_done is None:
        if isinstance(result, Exception):
            _log.error("a store job failed", exc_info=result)
        return
    try:
        on_done(result)
    except Exception:  # noqa: BLE001 (a listener's bug must not take the store down with it)
        _log.exception("a listener of the store failed")
