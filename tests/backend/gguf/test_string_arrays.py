"""A vocabulary that was walked through before is stepped over in another file, and only if it is the same to the byte."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kvdesk.backend.gguf import header
from kvdesk.backend.gguf.header import read_header
from kvdesk.backend.gguf.string_arrays import LEAST_STRINGS, StringArrays
from kvdesk.errors import ModelFileError


def gguf(*, word: bytes = b"word", count: int = LEAST_STRINGS, last: bytes | None = None) -> bytes:
    strings = [word] * (count - 1) + [word if last is None else last]
    key = b"tokenizer.ggml.tokens"
    array = b"".join(struct.pack("<Q", len(string)) + string for string in strings)
    return (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 2)
        + struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", 9, 8, count) + array
        + struct.pack("<Q", 5) + b"after" + struct.pack("<IB", 0, 7)
    )  # fmt: skip


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> StringArrays:
    arrays = StringArrays()
    monkeypatch.setattr(header, "_STRING_ARRAYS", arrays)
    return arrays


def test_the_second_file_is_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: StringArrays) -> None:
    found: list[int | None] = []
    real = fresh.find
    monkeypatch.setattr(fresh, "find", lambda *arguments: found.append(answer := real(*arguments)) or answer)
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(gguf())
        assert read_header(tmp_path / name).metadata["after"] == 7
    assert found == [None, 12 * LEAST_STRINGS]


def test_another_vocabulary_of_the_same_beginning_is_walked_through(tmp_path: Path) -> None:
    for name, last in (("a.gguf", None), ("b.gguf", b"longer word"), ("c.gguf", b"w")):
        (tmp_path / name).write_bytes(gguf(last=last))
        assert read_header(tmp_path / name).metadata["after"] == 7


def test_a_file_that_ends_within_a_known_vocabulary_is_cut_short(tmp_path: Path) -> None:
    whole = gguf()
    (tmp_path / "a.gguf").write_bytes(whole)
    read_header(tmp_path / "a.gguf")
    (tmp_path / "b.gguf").write_bytes(whole[: len(whole) - 100])
    with pytest.raises(header.HeaderCutShort):
        read_header(tmp_path / "b.gguf")


@pytest.mark.parametrize("end", [0, 3, 10, 40, 60, 500])
def test_every_beginning_of_a_header_is_cut_short_and_not_damaged(tmp_path: Path, end: int) -> None:
    (tmp_path / "a.gguf").write_bytes(gguf(count=100)[:end])
    with pytest.raises(header.HeaderCutShort if end != 3 else ModelFileError):
        read_header(tmp_path / "a.gguf")
