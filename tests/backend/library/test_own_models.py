"""Deleting: all parts and the projector, and never what is not kvdesk's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvdesk import paths
from kvdesk.backend.library.own_models import delete_model, is_own
from kvdesk.errors import ModelFileError


def _own(home: Path, *names: str) -> list[Path]:
    folder = paths.models_dir() / "owner" / "repo"
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"12345")
    return [folder / name for name in names]


def test_all_parts_and_the_projector_go(home: Path) -> None:
    files = _own(home, "m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "mmproj-F16.gguf")
    assert delete_model(files[0]) == 15
    assert list(paths.models_dir().rglob("*")) == []


def test_what_another_model_needs_stays(home: Path) -> None:
    files = _own(home, "a.gguf", "b.gguf", "mmproj-F16.gguf", "a-00002-of-00003.gguf")
    assert delete_model(files[0]) == 5
    assert [file.exists() for file in files] == [False, True, True, True]


@pytest.mark.parametrize("how", ["plain", "dots", "link to the folder"])
def test_other_programs_models_are_never_deleted(home: Path, tmp_path: Path, how: str) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "m.gguf").write_bytes(b"12345")
    path = theirs / "m.gguf"
    if how == "dots":
        path = paths.models_dir() / ".." / ".." / ".." / "theirs" / "m.gguf"
    if how == "link to the folder":
        os.symlink(theirs, paths.models_dir() / "theirs")
        path = paths.models_dir() / "theirs" / "m.gguf"
    with pytest.raises(ModelFileError, match="not in kvdesk's own folder"):
        delete_model(path)
    assert (theirs / "m.gguf").exists()


def test_a_link_in_the_own_folder_goes_and_its_target_stays(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    target.write_bytes(b"12345")
    folder = paths.models_dir() / "owner" / "repo"
    folder.mkdir(parents=True)
    os.symlink(target, folder / "m.gguf")
    assert is_own(folder / "m.gguf")
    assert delete_model(folder / "m.gguf") == 0
    assert target.exists()
    assert not folder.exists()


def test_what_is_not_there_is_said(home: Path) -> None:
    with pytest.raises(ModelFileError, match="There is no model"):
        delete_model(paths.models_dir() / "o" / "r" / "m.gguf")
