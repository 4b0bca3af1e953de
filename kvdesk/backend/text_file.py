"""Reads a text file that was dropped on the window, or says why it cannot be put into a message. Any thread; does I/O."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from kvdesk.errors import UsageError
from kvdesk.sizes import format_file_size

LARGEST_BYTES = 4 * 1000 * 1000
"""More than any context holds: about a million tokens."""
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_text(path: Path) -> str:
    """The text of ``path``: UTF-8, or UTF-16 with its mark, or Latin-1 if it is neither. Raises UsageError."""
    try:
        if path.is_dir():
            raise UsageError(f"{path.name} is a folder; drop the files in it.")
        if path.exists() and not path.is_file():  # reading a pipe would wait for ever
            raise UsageError(f"{path.name} is no text file.")
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path.name} could not be read: {error.strerror or error}.") from error
    if len(content) > LARGEST_BYTES:
        raise UsageError(f"{path.name} is larger than {format_file_size(LARGEST_BYTES)}; no context holds that.")
    encoding = next((name for mark, name in _BOMS if content.startswith(mark)), "")
    if not encoding and b"\0" in content:
        raise UsageError(f"{path.name} is no text file.")
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def quoted(name: str, text: str) -> str:
    """``text`` as a part of a message: its name, then the text between fences that it cannot close itself."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{name}:\n{fence}\n{text.rstrip()}\n{fence}\n"
