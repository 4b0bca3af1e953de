"""What to do about a model in pieces: a file cut by size (``.part1of6``, ``.gguf-split-a``, ``.001``), or the parts of
a split model joined with cat. Names and four bytes only; headers are header.py's. Any thread or process.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from kvdesk.backend.gguf.header import GGUF_DEFAULT_ALIGNMENT, GgufHeader
from kvdesk.shown_text import shown_line

_PIECE = re.compile(
    r"(?P<whole>.+?)(?P<mark>[.-](?:part|split)[._-]?)(?P<no>\d{1,4}|[a-z]|a[a-z])(?:[._-]?of[._-]?(?P<count>\d{1,4}))?"
    r"|(?P<bare_whole>.+\.gguf)(?P<bare_mark>\.)(?P<bare_no>\d{2,4}|a[a-z])",
    re.IGNORECASE | re.ASCII,
)
_LISTED = 3
"""So many names are written out in a command; more are a pattern."""
_NAMES_READ = 10_000


@dataclass(frozen=True)
class Piece:
    """One file of a model that was cut by size. ``number`` counts as the names do (from 0 or from 1), ``count`` is 0 where
    the name does not say it; ``before`` and ``after`` are what stands around the number in the name."""

    path: Path
    whole: str
    before: str
    label: str
    after: str
    count: int

    @property
    def number(self) -> int:
        """a is 1, and so are 1, 01 and 001."""
        return _number(self.label)


def piece_of(path: Path) -> Piece | None:
    """What the name of ``path`` says of the file it was cut from; None for a name that says nothing."""
    match = _PIECE.fullmatch(path.name)
    if match is None:
        return None
    whole = match["whole"] or match["bare_whole"]
    before = whole + (match["mark"] or match["bare_mark"])
    label = match["no"] or match["bare_no"]
    after = path.name[len(before) + len(label) :]
    named = whole if whole.lower().endswith(".gguf") else f"{whole}.gguf"
    return Piece(path, named, before, label, after, int(match["count"] or 0))


def joining_words(path: Path) -> str:
    """What to do with ``path``, in sentences, when its name says that it is one piece of a file; else ""."""
    piece = piece_of(path)
    if piece is None:
        return ""
    count = f" of {piece.count}" if piece.count else ""
    words = f"{_shown(path.name)} is piece {piece.label}{count} of {_shown(piece.whole)}, which was cut by size"
    if os.path.exists(path.with_name(piece.whole)):
        return f"{words}; {_shown(piece.whole)} lies beside it: open that."
    here = _beside(piece)
    labels = _all_labels(piece, here)
    missing = [f"{piece.before}{label}{piece.after}" for number, label in labels.items() if number not in here]
    if missing:
        names = ", ".join(_shown(name) for name in missing[:_LISTED])
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        words += f"; {names}{more} {'are' if len(missing) > 1 else 'is'} not beside it"
    return f"{words}. Join all pieces in their order and open the result: {_command(piece, list(labels.values()))}"


def joined_words(header: GgufHeader, n_parts: int) -> str:
    """What to do with a file that holds several parts of a split model one after another, in sentences; "" for others."""
    if n_parts < 2 or not _another_follows(header):
        return ""
    first = f"NAME-00001-of-{n_parts:05}.gguf"
    return (
        f"{_shown(header.path.name)} is a model in {n_parts} parts that were joined into one file, as with cat; llama.cpp "
        f"reads only the first of them there. Take the parts as they were ({first} and so on), keep them in one folder "
        f"and open the first; or have llama.cpp's own tool merge them: llama-gguf-split --merge {first} NAME.gguf"
    )


def _another_follows(header: GgufHeader) -> bool:
    """Whether another GGUF file begins where this one's data ends (gguf-split pads the end to the alignment)."""
    alignment = header.metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
    end = header.needed_bytes
    padding = -end % alignment if isinstance(alignment, int) and alignment > 0 else 0
    try:
        with open(header.path, "rb", buffering=0) as file:
            for start in {end, end + padding}:
                file.seek(start)
                if file.read(4) == b"GGUF":
                    return True
    except (OSError, OverflowError):
        pass  # it is gone or cut meanwhile: nothing follows
    return False


def _beside(piece: Piece) -> dict[int, str]:
    """Number -> label of the pieces of the same file in its folder."""
    found = {piece.number: piece.label}
    try:
        with os.scandir(piece.path.parent) as entries:
            names = [entry.name for entry, _ in zip(entries, range(_NAMES_READ), strict=False)]
    except OSError:
        names = []
    for name in names:
        other = piece_of(Path(name))
        if other and _kind(other) == _kind(piece):
            found.setdefault(other.number, other.label)
    return found


def _kind(piece: Piece) -> tuple[str, str, bool]:
    """What pieces of one file have in common."""
    return piece.before, piece.after, piece.label.isdigit()


def _all_labels(piece: Piece, here: dict[int, str]) -> dict[int, str]:
    """Number -> label of all pieces that there should be: as many as the name counts, else up to the last one here."""
    first = 0 if 0 in here else 1
    last = max(piece.count - 1 + first, *here) if piece.count else max(here)
    width = max((len(label) for label in here.values() if label[0] == "0" or len(label) > 2), default=0)
    return {number: here.get(number) or _label(number, piece, width) for number in range(first, last + 1)}


def _command(piece: Piece, labels: list[str]) -> str:
    """The command that joins the pieces, as this system has it."""
    names = [f"{piece.before}{label}{piece.after}" for label in labels[:_LISTED]]
    if sys.platform == "win32":
        listed = "+".join(f'"{name}"' for name in names) + ("+..." if len(labels) > _LISTED else "")
        return _shown(f'copy /b {listed} "{piece.whole}"', 500)
    if len(labels) <= _LISTED:
        listed = shlex.join(names)
    else:
        between = f"{{{labels[0]}..{labels[-1]}}}" if labels[0].isdigit() or len(labels[0]) == 1 else "*"
        listed = f"{shlex.quote(piece.before)}{between}{shlex.quote(piece.after) if piece.after else ''}"
    return _shown(f"cat {listed} > {shlex.quote(piece.whole)}", 500)


def _number(label: str) -> int:
    if label.isdigit():
        return int(label)
    letters = label.lower()
    return ord(letters) - 96 if len(letters) == 1 else (ord(letters[0]) - 97) * 26 + ord(letters[1]) - 96


def _label(number: int, piece: Piece, width: int) -> str:
    """The number as the names of these pieces have it."""
    if piece.label.isdigit():
        return f"{number:0{width}}"
    if len(piece.label) == 1:
        return chr(number + 96)
    return chr((number - 1) // 26 + 97) + chr((number - 1) % 26 + 97)


def _shown(text: str, longest: int = 120) -> str:
    return shown_line(text, longest)
