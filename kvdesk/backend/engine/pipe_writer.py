"""Writes commands to the engine's pipe on a thread of its own: an engine that does not read makes nobody wait."""

from __future__ import annotations

import collections
import threading
from multiprocessing.connection import Connection

from kvdesk.backend.protocol import messages as m


class PipeWriter:
    """One for each engine process. ``send`` never waits; order is kept. ``close`` after the process has ended."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: collections.deque[m.Command] = collections.deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine writer", daemon=True)
        self._thread.start()

    def send(self, command: m.Command) -> None:
        """Write ``command`` as soon as the pipe takes it. Nothing is told when the process is gone: its death is seen
        elsewhere."""
        with self._changed:
            if isinstance(command, m.CountTokens):
                for old in [one for one in self._queue if isinstance(one, m.CountTokens)]:
                    if old.is_plain == command.is_plain:  # whoever asks again wants the newest
                        self._queue.remove(old)
            self._queue.append(command)
            self._changed.notify()

    def close(self, timeout_s: float = 2.0) -> bool:
        """Drop what waits and end the thread; the process must be gone, so that a write under way fails. Whether the
        connection may be closed now: not while a write still has its descriptor."""
        with self._changed:
            self._closing = True
            self._queue.clear()
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if self._closing:
                    return
                command = self._queue.popleft()
            try:
                self._connection.send(command)
            except (OSError, ValueError):
                return  # the other end is gone
