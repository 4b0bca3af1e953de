"""What a search over conversations means: all words, in a title or in one message, in any case, also inside words.

Part of store.py. Messages are read through, not indexed: 40,000 of them (41 MB) take 0.1 s, whereas FTS5's trigram
index made the database 3.7 times as large and took 0.1 s for each save of a 26 kB reply while it was being written.
"""

from __future__ import annotations

import sqlite3

EXCERPT_LENGTH = 90


def words_of(query: str) -> list[str]:
    """The words of a search, folded."""
    return query.replace("\0", " ").casefold().split()


def holds_all(text: str, words: list[str]) -> bool:
    """True if ``text`` holds every one of ``words`` (folded)."""
    folded = text.casefold()
    return all(word in folded for word in words)


def prepare(connection: sqlite3.Connection) -> None:
    """Teach ``connection`` the function that ``condition`` may use."""
    connection.create_function("holds", 2, _holds, deterministic=True)


def condition(column: str, words: list[str]) -> tuple[str, list[str]]:
    """SQL for "``column`` holds all ``words``" and its parameters.

    SQLite's LIKE folds ASCII only, but runs outside Python's lock: it takes the words that it gets right.
    """
    parts: list[str] = []
    values: list[str] = []
    for word in words:
        if word.isascii():
            escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            parts.append(f"{column} LIKE ? ESCAPE '\\'")
            values.append(f"%{escaped}%")
        else:
            parts.append(f"holds({column}, ?)")
            values.append(word)
    return " AND ".join(parts), values


def excerpt(content: str, words: list[str]) -> str:
    """A line of ``content`` around the first of ``words`` in it."""
    flat = " ".join(content.split())
    folded = flat.casefold()
    first = min((at for word in words if (at := folded.find(word)) >= 0), default=0)
    start = max(0, first - EXCERPT_LENGTH // 3)
    if start > 0 and (space := flat.find(" ", start, first)) >= 0:
        start = space + 1
    end = start + EXCERPT_LENGTH
    return ("…" if start else "") + flat[start:end].strip() + ("…" if end < len(flat) else "")


def _holds(text: str, word: str) -> bool:
    return word in text.casefold()
