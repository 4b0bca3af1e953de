"""Logging, faulthandler and the hooks for what nobody caught; the same file format in every process."""

from __future__ import annotations

import faulthandler
import logging
import logging.handlers
import sys
import threading
import traceback
from pathlib import Path
from types import TracebackType
from typing import TextIO

from kvdesk.shown_text import shown_text
from kvdesk.terminal import say_beside

_fault_file: TextIO | None = None


def start(folder: Path) -> None:
    """Log to ``folder``/kvdesk.log (rotated) and standard error; faults go to ``folder``/faults.log."""
    global _fault_file
    handler = logging.handlers.RotatingFileHandler(
        folder / "kvdesk.log", maxBytes=1_000_000, backupCount=3, encoding="utf-8"
    )
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    _fault_file = (folder / "faults.log").open("a", encoding="utf-8")
    faulthandler.enable(_fault_file)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback)


class _Formatter(logging.Formatter):
    """Writes what a message quotes in signs that no terminal obeys."""

    def format(self, record: logging.LogRecord) -> str:
        return shown_text(super().format(record))


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An exception that nobody caught: to the log, and to a terminal if there is one."""
    logging.getLogger("kvdesk").error("uncaught", exc_info=(kind, error, trace))
    if sys.stderr:
        say_beside("".join(traceback.format_exception(kind, error, trace)), end="")
