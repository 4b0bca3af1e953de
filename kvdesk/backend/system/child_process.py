"""A process of our own: spawned with one end of a pipe, watched, and ended in steps. Any thread, one at a time.

Every entry (backend/processes) gets its end of the pipe as its first argument and leaves when the pipe ends, so that none
outlives a parent that was killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping
from multiprocessing.connection import Connection
from typing import Any

from kvdesk.errors import EngineError

KILL_S = 5.0
"""Until a killed process is gone: the kernel frees its memory first."""


_starting = threading.Lock()
"""Held while a process is started: what it inherits is this process's environment."""


@contextlib.contextmanager
def _environment(more: Mapping[str, str]) -> Generator[None]:
    with _starting:
        before = {name: os.environ.get(name) for name in more}
        os.environ.update(more)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


class ChildProcess:
    """One process from its start on; ``connection`` is our end of the pipe to it."""

    def __init__(
        self,
        entry: Callable[..., None],
        name: str,
        *arguments: Any,
        daemon: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start ``entry`` with the other end of the pipe and ``arguments`` in a fresh interpreter. ``environment`` is there
        from its first instruction on, for what the C library reads before Python runs.

        Raises EngineError where the system has no process or no descriptor left for it.
        """
        context = multiprocessing.get_context("spawn")
        try:
            self.connection, theirs = context.Pipe()
        except OSError as error:
            raise _no_start(name, error) from error
        self._process = context.Process(target=entry, args=(theirs, *arguments), name=name, daemon=daemon)
        try:
            with _environment(environment or {}):
                self._process.start()
        except OSError as error:
            self.connection.close()
            raise _no_start(name, error) from error
        finally:
            theirs.close()
        self._exit_code: int | None = None

    connection: Connection

    @property
    def pid(self) -> int | None:
        """Its process id; None once it is released."""
        with contextlib.suppress(ValueError):
            return self._process.pid
        return None

    @property
    def sentinel(self) -> int:
        """For multiprocessing.connection.wait: ready when the process has ended."""
        return self._process.sentinel

    @property
    def is_alive(self) -> bool:
        """Whether the process is running."""
        with contextlib.suppress(ValueError):
            return self._process.is_alive()
        return False

    @property
    def exit_code(self) -> int | None:
        """What it ended with, negative for a signal; None while it runs or where that could not be had."""
        with contextlib.suppress(ValueError):
            self._exit_code = self._process.exitcode
        return self._exit_code

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has an exit code; whether it has. Its sentinel closes first, while the kernel still frees its memory,
        and ``join`` returns then with nothing known; so ask again until it is."""
        until = time.monotonic() + timeout_s
        while self.exit_code is None and time.monotonic() < until:
            with contextlib.suppress(ValueError):
                self._process.join(0.005)
            time.sleep(0.005)
        return self.exit_code is not None

    def terminate(self) -> None:
        """Ask it to end, by a signal."""
        with contextlib.suppress(ValueError):
            self._process.terminate()

    def kill(self) -> None:
        """End it, whatever it does."""
        with contextlib.suppress(ValueError):
            self._process.kill()

    def end(self, patience_s: float) -> None:
        """Close the pipe, with which it should leave within ``patience_s``; kill it otherwise. Returns when it is gone, or
        after KILL_S where the kernel holds it."""
        self.connection.close()
        if not self.wait(patience_s):
            self.kill()
            self.wait(KILL_S)
        self.release()

    def release(self) -> None:
        """Give back what this process knows of one that has ended."""
        _ = self.exit_code
        with contextlib.suppress(ValueError):  # the kernel may still be freeing the memory of a killed process
            self._process.close()


def signal_name(exit_code: int | None) -> str | None:
    """The signal that ended a process with this exit code; None where none did."""
    if exit_code is None or exit_code >= 0:
        return None
    try:
        return signal.Signals(-exit_code).name
    except ValueError:  # real-time signals have no name
        return f"signal {-exit_code}"


def _no_start(name: str, error: OSError) -> EngineError:
    reason = error.strerror or "the system gives no reason"
    return EngineError(f"The process {name!r} could not be started ({reason}). Close other programs, then try again.")
