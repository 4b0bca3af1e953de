"""How kvdesk prints: nothing from outside is obeyed by a terminal, and what it cannot print is replaced. Main thread.

Only this module writes to standard output and standard error; tests/test_architecture.py checks it.
"""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO

from kvdesk.shown_text import shown_text


def say(text: str = "", *, end: str = "\n") -> None:
    """Print ``text`` on standard output at once."""
    _write(sys.stdout, shown_text(text) + end)


def say_beside(text: str, *, end: str = "\n") -> None:
    """Print ``text`` on standard error: what is no part of the answer."""
    _write(sys.stderr, shown_text(text) + end)


def say_json(value: Any, indent: int | None = None) -> None:
    """Print ``value`` as JSON, in ASCII: it holds every character, and no terminal obeys it."""
    _write(sys.stdout, json.dumps(value, indent=indent) + "\n")


def say_progress(text: str) -> None:
    """Show ``text`` instead of the last progress, on standard error if that is a terminal; "" takes it away."""
    if sys.stderr.isatty():
        _write(sys.stderr, f"\r\x1b[K{shown_text(text)}")


def _write(stream: TextIO, text: str) -> None:
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding, "replace"))
    stream.flush()
