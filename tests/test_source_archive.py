"""The source archive that `make setup` keeps is there, is the locked version, and has what tests take from it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.source_archive import FOLDER, llama_cpp_source, open_member

LOCK = Path(__file__).parents[1] / "requirements" / "llama.txt"


def test_the_archive_is_the_one_that_is_locked() -> None:
    (archive,) = FOLDER.glob("llama_cpp_python-*.tar.gz")
    assert f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}" in LOCK.read_text("utf-8")


def test_it_has_templates_vocabularies_and_tests() -> None:
    with open_member("tests/test-chat.cpp") as file:
        assert b"common_chat" in file.read()
    with open_member("models/ggml-vocab-llama-spm.gguf") as file:
        assert file.read(4) == b"GGUF"
    assert len(list((llama_cpp_source() / "models" / "templates").glob("*.jinja"))) > 50


def test_a_file_that_is_not_in_it_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        open_member("models/templates/none.jinja")
