"""The one place where other threads meet Qt: what they call becomes a signal and arrives on the UI thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from PySide6.QtCore import QObject, Qt, Signal

from kvdesk.backend.planning.headroom_watch import RoomChanged
from kvdesk.backend.session.session_event import Change
from kvdesk.backend.session_log.recording import Row
from kvdesk.backend.system.samples import Sample

T = TypeVar("T")
log = logging.getLogger(__name__)


class Bridge(QObject):
    """``here(signal.emit)`` of these signals is what session, recording and monitor get as their callbacks: all arrive on
    the UI thread in the order in which they were called, and none after ``close``."""

    changed = Signal(Change)
    sample_taken = Signal(Sample)
    row_written = Signal(Row)
    room_changed = Signal(RoomChanged)
    _arrived = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._arrived.connect(self._on_arrived, Qt.ConnectionType.QueuedConnection)
        self._is_closed = False
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="background")

    def here(self, function: Callable[[Any], None]) -> Callable[[Any], None]:
        """``function`` as a callback for other threads: it runs on the UI thread, soon after it is called."""
        return lambda result: self._arrived.emit(lambda: function(result))

    def in_background(self, work: Callable[[], T], on_done: Callable[[T | Exception], None]) -> None:
        """Do ``work`` (files, headers) on a thread, then ``on_done`` with its result or exception on the UI thread."""

        def finish(future: Future[T]) -> None:
            error = future.exception()
            self._arrived.emit(lambda: on_done(error if isinstance(error, Exception) else future.result()))

        self._pool.submit(work).add_done_callback(finish)

    def close(self) -> None:
        """Let what is under way finish; nobody hears of it any more, for their widgets go next."""
        self._is_closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _on_arrived(self, function: Callable[[], None]) -> None:
        if not self._is_closed:
            function()
