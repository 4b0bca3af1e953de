"""Text files dropped on the window."""

from __future__ import annotations

import pytest

from kvdesk.backend.text_file import LARGEST_BYTES, quoted, read_text
from kvdesk.errors import UsageError


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", ""),
        (b"plain\r\nlines\rold", "plain\nlines\nold"),
        ("Zwölf ☁".encode(), "Zwölf ☁"),
        ("Zwölf".encode("utf-8-sig"), "Zwölf"),
        ("Zwölf ☁".encode("utf-16"), "Zwölf ☁"),
        ("Zwölf".encode("latin-1"), "Zwölf"),
    ],
)
def test_text_is_read_whatever_wrote_it(tmp_path, content, text):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    assert read_text(path) == text


def test_what_is_no_text_is_refused_in_words(tmp_path):
    picture, large = tmp_path / "picture.png", tmp_path / "large.log"
    picture.write_bytes(b"\x89PNG\0\0")
    with large.open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)
    for path, words in (
        (picture, "picture.png is no text file"),
        (large, "larger than 4 MB"),
        (tmp_path, "is a folder"),
        (tmp_path / "gone", "could not be read: No such file"),
    ):
        with pytest.raises(UsageError, match=words):
            read_text(path)


def test_a_quoted_text_cannot_end_its_own_quotation():
    assert quoted("a.txt", "x\n") == "a.txt:\n```\nx\n```\n"
    assert quoted("a.md", "````\ncode\n````") == "a.md:\n`````\n````\ncode\n````\n`````\n"
