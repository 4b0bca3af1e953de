"""Logging, faulthandler and the hooks for what nobody caught; the same file format in every process."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import logging.handlers
import os
import sys
import threading
import traceback
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import TextIO

from kvdesk.shown_text import shown_text
from kvdesk.terminal import say_beside

_fault_file: TextIO | None = None
_hear_of_uncaught: Callable[[], None] | None = None


def start(folder: Path) -> None:
    """Log to ``folder``/kvdesk.log (rotated) and standard error; faults go to ``folder``/faults.log."""
    global _fault_file
    handler = _PrivateFile(folder / "kvdesk.log", maxBytes=1_000_000, backupCount=3, encoding="utf-8")
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    _fault_file = open(folder / "faults.log", "a", encoding="utf-8", opener=_private)  # noqa: SIM115 - stays open
    faulthandler.enable(_fault_file)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback)


def tell_of_uncaught(hear: Callable[[], None] | None) -> None:
    """Have ``hear`` called, on whichever thread it was, when an exception that nobody caught is in the log; None: nobody."""
    global _hear_of_uncaught
    _hear_of_uncaught = hear


def _private(path: str, flags: int) -> int:
    """Opens a file that is its owner's alone (0600), whatever the umask is and whoever made it."""
    descriptor = os.open(path, flags, 0o600)
    if os.name == "posix":
        with contextlib.suppress(OSError):  # somebody else's file
            os.fchmod(descriptor, 0o600)
    return descriptor


class _PrivateFile(logging.handlers.RotatingFileHandler):
    def _open(self) -> TextIOWrapper:
        return TextIOWrapper(open(self.baseFilename, "ab", opener=_private), encoding=self.encoding)


class _Formatter(logging.Formatter):
    """Writes what a message quotes in signs that no terminal obeys."""

    def format(self, record: logging.LogRecord) -> str:
        return shown_text(super().format(record))


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An exception that nobody caught: to the log, and to a terminal if there is one."""
    logging.getLogger("kvdesk").error("uncaught", exc_info=(kind, error, trace))
    if _hear_of_uncaught:
        with contextlib.suppress(RuntimeError):  # the window is gone
            _hear_of_uncaught()
    if sys.stderr:
        say_beside("".join(traceback.format_exception(kind, error, trace)), end="")
