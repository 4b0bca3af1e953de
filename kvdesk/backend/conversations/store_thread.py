"""The store on a thread of its own, so that no window ever waits for a disk.

Jobs run one after another in the order they were handed in; results are told on that thread (ui/controllers/bridge.py brings
them to Qt's). What is said is kept in memory until the store has it (unsaved.py), and beside it at the end (rescue.py).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from kvdesk.backend.conversations import rescue
from kvdesk.backend.conversations.conversation import Conversation, ConversationRow, Message
from kvdesk.backend.conversations.store import ConversationStore
from kvdesk.backend.conversations.unsaved import SaveState, Unsaved, UnsavedChanges
from kvdesk.errors import StoreError

RETRY_S = 1.0
"""How soon a store that failed is tried again; twice as long after each further failure, up to LONGEST_RETRY_S."""
LONGEST_RETRY_S = 10.0

T = TypeVar("T")
_log = logging.getLogger(__name__)
_Told = Callable[[Any], None] | None


class StoreThread:
    """Owns the ConversationStore at ``path`` from ``__init__`` to ``close``.

    The file is opened on the thread, and again when that failed. Until it is open every job is answered with the
    StoreError, so the window stays usable and can say why nothing is kept; what is said meanwhile waits in memory.

    ``rescue_folders``: where what is still unsaved at the end is written, the first that takes it; read at the start.
    """

    def __init__(self, path: Path, rescue_folders: Iterable[Path] = (), *, retry_s: float = RETRY_S) -> None:
        self._path = path
        self._rescue_folders = tuple(rescue_folders)
        self._first_retry_s = self._retry_s = retry_s
        self._retry_at: float | None = None
        self._store: ConversationStore | None = None
        self._problem = StoreError("")
        self._on_state: Callable[[SaveState], None] = lambda _: None
        self._on_moved: Callable[[tuple[str, str]], None] = lambda _: None
        self._on_rescued: Callable[[int], None] = lambda _: None
        self._unsaved = UnsavedChanges(lambda old, new: self._on_moved((old, new)))
        self._rescued: dict[str, Path] = {}
        self._n_rescued = 0
        self._state = SaveState()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def listen(
        self,
        on_state: Callable[[SaveState], None],
        on_moved: Callable[[tuple[str, str]], None],
        on_rescued: Callable[[int], None],
    ) -> None:
        """Hear, on the store's thread, of the SaveState as it changes; of (old id, new id) when a conversation was deleted
        elsewhere and what is said in it goes on in a new one; and of how many conversations an earlier run had to leave
        beside the store."""

        def work() -> None:
            self._on_state, self._on_moved, self._on_rescued = on_state, on_moved, on_rescued
            on_state(self._state)
            if self._n_rescued:
                on_rescued(self._n_rescued)

        self._jobs.put(work)

    def save(self, conversation: Conversation, *messages: Message) -> None:
        """Have a conversation stored as it is now, with those of its messages that are new or have changed. Nothing of it
        is lost: what the store does not take waits, in order, and is tried again."""

        def work() -> None:
            self._unsaved.add(conversation, messages)
            if self._retry_at is None:
                self._write()

        self._jobs.put(work)

    def submit(
        self, work: Callable[[ConversationStore], T], on_done: Callable[[T | Exception], None] | None = None
    ) -> None:
        """Do ``work`` with the store on its thread, then call ``on_done`` there with the result or the error.

        An error that nobody listens for is logged. After ``close`` jobs are refused with a StoreError.
        """
        self._put(lambda: work(self._opened_store()), on_done)

    def change(
        self, work: Callable[[ConversationStore], T], on_done: Callable[[T | Exception], None] | None = None
    ) -> None:
        """``submit`` for what changes a conversation: after all that was said before, or not at all."""

        def behind() -> T:
            if self._unsaved and (problem := self._write()):
                raise StoreError(problem)
            return work(self._opened_store())

        self._put(behind, on_done)

    def read(self, conversation_id: str, on_done: Callable[[Unsaved | Exception], None]) -> None:
        """A conversation with all its messages, what is not saved yet included."""

        self._put(lambda: self._unsaved.whole(self._opened_store, conversation_id), on_done)

    def rows(self, query: str, on_done: Callable[[tuple[ConversationRow, ...] | Exception], None]) -> None:
        """The conversations as lists show them, what is not saved yet included."""

        def work() -> tuple[ConversationRow, ...]:
            try:
                stored = self._opened_store().conversations(query)
            except StoreError:
                if not self._unsaved:
                    raise
                stored = ()
            return self._unsaved.rows(stored, query)

        self._put(work, on_done)

    def close(self, timeout_s: float = 10.0) -> bool:
        """Finish what was handed in, close the file and end the thread; False if that took longer than ``timeout_s``."""
        if not self._is_closed:
            self._is_closed = True
            self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- on the thread -------------------------------------------------------------------------------------------

    def _put(self, work: Callable[[], Any], on_done: _Told) -> None:
        def job() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 (whatever a job raises belongs to who asked for it)
                _tell(on_done, error)
            else:
                _tell(on_done, result)

        if self._is_closed:
            _tell(on_done, StoreError("The conversations are closed already."))
        else:
            self._jobs.put(job)

    def _run(self) -> None:
        for path, change in rescue.read(self._rescue_folders):
            self._rescued[change.conversation.id] = path
            self._unsaved.add(change.conversation, change.messages)
        self._n_rescued = len(self._rescued)
        self._open()
        if self._unsaved:
            self._write()
        while (job := self._next_job()) is not None:
            job()
        self._end()

    def _next_job(self) -> Callable[[], None] | None:
        """The next job, waiting for it; trying again what is due meanwhile."""
        while True:
            try:
                if self._retry_at is None:
                    return self._jobs.get()
                return self._jobs.get(timeout=max(0.0, self._retry_at - time.monotonic()))
            except queue.Empty:
                self._write()

    def _open(self) -> None:
        try:
            self._store = ConversationStore(self._path)
        except Exception as error:  # noqa: BLE001 (else nobody would be answered, and what waits for it never start)
            known = isinstance(error, StoreError)
            problem = error if known else StoreError(f"The conversations in {self._path} cannot be opened.")
            if str(problem) != str(self._problem):  # once, however often it is tried
                _log.warning("no conversations", exc_info=error)
            self._problem = problem

    def _opened_store(self) -> ConversationStore:
        if self._store is None:
            raise self._problem
        return self._store

    def _write(self) -> str:
        """Store what waits; why something still does, "" when nothing does."""
        if self._store is None:
            self._open()
        problem = self._unsaved.write(self._store) if self._store else str(self._problem)
        waiting = {change.conversation.id for change in self._unsaved}
        for conversation_id in [one for one in self._rescued if one not in waiting]:
            rescue.remove(self._rescued.pop(conversation_id))
        if problem:
            self._retry_at = time.monotonic() + self._retry_s
            self._retry_s = min(LONGEST_RETRY_S, 2 * self._retry_s)
        else:
            self._retry_at, self._retry_s = None, self._first_retry_s
        since_s = None if not problem else self._state.since_s or time.time()
        state = SaveState(since_s, problem)
        if state != self._state:
            self._state = state
            _tell(self._on_state, state)
        return problem

    def _end(self) -> None:
        if self._unsaved and (problem := self._write()):
            _log.error("%d conversations are not saved: %s", len(self._unsaved), problem)
            for change in self._unsaved:
                whole = self._unsaved.whole(self._opened_store, change.conversation.id)
                rescue.write(self._rescue_folders, whole)
        if self._store:
            self._store.close()


def _tell(on_done: Callable[[Any], None] | None, result: object) -> None:
    if on_done is None:
        if isinstance(result, Exception):
            _log.error("a store job failed", exc_info=result)
        return
    try:
        on_done(result)
    except Exception:  # noqa: BLE001 (a listener's bug must not take the store down with it)
        _log.exception("a listener of the store failed")
