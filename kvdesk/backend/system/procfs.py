"""Reading the kernel's small text files. A file that cannot be read is None, never an exception. Any thread."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path | str) -> str | None:
    """The file's text, or None where it is absent, not ours to read, or its process is gone."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError:
        return None


def read_count(path: Path | str) -> int | None:
    """The file's one number; None where there is none ("max" included)."""
    text = (read_text(path) or "").strip()
    return int(text) if text.isdecimal() else None


def kib_fields(text: str) -> dict[str, int]:
    """``Name:   12 kB`` lines (meminfo, status, smaps_rollup) as name -> bytes; other lines are left out."""
    fields: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "kB" and words[1].isdecimal():
            fields[words[0].rstrip(":")] = int(words[1]) * 1024
    return fields
