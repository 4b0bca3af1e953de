"""Files as long as they should be whose weights were never written: noticed, and refused when little else is there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from kvdesk.backend.gguf.holes import hollow_bytes
from kvdesk.backend.gguf.model_file import ModelFile, read_model_file
from kvdesk.errors import ModelFileError
from tests.backend.gguf.test_model_file import gguf, tensor
from tests.tiny_models import write_sparse_header, write_tiny

BLOCK = 64 * 1024


def knows_holes(folder: Path) -> bool:
    probe = folder / "probe"
    with probe.open("wb") as file:
        file.truncate(BLOCK)
    descriptor = os.open(probe, os.O_RDONLY)
    try:
        return hasattr(os, "SEEK_HOLE") and os.lseek(descriptor, 0, os.SEEK_HOLE) == 0
    finally:
        os.close(descriptor)


@pytest.fixture(autouse=True)
def _sparse(tmp_path: Path) -> None:
    if not knows_holes(tmp_path):
        pytest.skip("this file system keeps no holes")


def with_holes(folder: Path, n_blocks: int, holes: set[int]) -> ModelFile:
    """A model of one-block tensors of which ``holes`` were never written."""
    tensors = [tensor(f"t{number}", (BLOCK // 4,), number * BLOCK) for number in range(n_blocks)]
    head = gguf(tensors=tensors, data=b"")
    path = folder / "model.gguf"
    with path.open("wb") as file:
        file.write(head)
        for number in sorted(set(range(n_blocks)) - holes):
            file.seek(len(head) + number * BLOCK)
            file.write(b"\1" * BLOCK)
        file.truncate(len(head) + n_blocks * BLOCK)
    return read_model_file(path)


def test_bytes_in_holes_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(b"x" * BLOCK)
        file.seek(3 * BLOCK)
        file.write(b"x" * BLOCK)
        file.truncate(8 * BLOCK)
    assert hollow_bytes(path, [(0, 8 * BLOCK)]) == 6 * BLOCK
    assert hollow_bytes(path, [(0, BLOCK), (3 * BLOCK, BLOCK)]) == 0
    assert hollow_bytes(path, [(0, 2 * BLOCK), (2 * BLOCK + 10, 90), (7 * BLOCK, 100 * BLOCK)]) == 2 * BLOCK + 90
    assert hollow_bytes(path, [(2**62, 2**62)]) == 0
    assert hollow_bytes(path, []) == hollow_bytes(tmp_path / "missing", [(0, 1)]) == 0


def test_a_model_that_was_written_has_no_holes(tmp_path: Path) -> None:
    model = read_model_file(write_tiny("llama", tmp_path))
    assert (model.hollow_bytes, model.lacking) == (0, "")


def test_half_a_download_in_its_reserved_place_is_refused(tmp_path: Path) -> None:
    whole = write_tiny("llama", tmp_path)
    model = read_model_file(write_sparse_header(whole, tmp_path / "sparse.gguf", full_size=True))
    assert model.is_complete
    with pytest.raises(ModelFileError, match=r"sparse\.gguf is as long as it should be, but .* never written"):
        model.check_loadable()


def test_some_holes_are_noticed_and_few_are_the_models_own(tmp_path: Path) -> None:
    some = with_holes(tmp_path, 10, {3, 4})
    some.check_loadable()
    assert re.search(r"1[23]\d kB of its 655 kB of weights were never written", some.lacking)
    assert with_holes(tmp_path, 200, {7}).lacking == ""


def test_terabytes_that_no_disk_holds_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "huge.gguf"
    head = gguf(tensors=[tensor("t", (2**40,), 0)], data=b"")
    path.write_bytes(head)
    try:
        os.truncate(path, len(head) + 2**42)
    except OSError:
        pytest.skip("this file system takes no file of 4 TiB")
    with pytest.raises(ModelFileError, match=r"4\.4 TB of its 4\.4 TB of weights were never written"):
        read_model_file(path).check_loadable()
