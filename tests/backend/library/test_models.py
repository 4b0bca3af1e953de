"""Models on disk: what is found, what is remembered, and the starter put together once and whole."""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from kvdesk import paths
from kvdesk.backend.library import models
from kvdesk.backend.library.models import ModelList, ModelListEntry, starter_model
from kvdesk.backend.library.places import Place
from kvdesk.errors import ModelFileError
from tests.tiny_models import replace_alike, write_tiny


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KVDESK_HOME", str(tmp_path / "home"))
    return tmp_path


def listed(folder: Path, cache_file: Path | None = None) -> list[ModelListEntry]:
    return list(ModelList(cache_file).entries([Place("folder", folder)]))


@pytest.fixture
def starter_package(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], list[Path]]:
    """Installs a stand-in for the starter's package, a small one with the same functions; ``assembled`` counts."""

    def install(damage: bytes = b"") -> list[Path]:
        pieces = [home / "piece0", home / "piece1"]
        pieces[0].write_bytes(b"GGUF" * 1000)
        pieces[1].write_bytes(b"more")
        assembled: list[Path] = []

        def assemble(output: str, overwrite: bool) -> Path:
            assembled.append(Path(output))
            Path(output).write_bytes(b"".join(piece.read_bytes() for piece in pieces) + damage)
            if damage:
                raise ValueError("Assembled file sha256 did not match expected value")
            return Path(output)

        package = types.ModuleType("stand_in_starter")
        vars(package).update(MODEL_NAME="starter.gguf", chunk_paths=lambda: pieces, assemble=assemble)
        package.__spec__ = types.SimpleNamespace(name="stand_in_starter")  # type: ignore[assignment]
        monkeypatch.setitem(sys.modules, "stand_in_starter", package)
        monkeypatch.setattr(models, "STARTER_PACKAGE", "stand_in_starter")
        return assembled

    return install


def test_starter_is_assembled_once(starter_package: Callable[[bytes], list[Path]]) -> None:
    assembled = starter_package(b"")
    target = starter_model()
    assert target == paths.cache_dir() / "starter.gguf"
    assert target.stat().st_size == 4004
    assert starter_model() == target
    assert len(assembled) == 1
    assert list(target.parent.glob("*.tmp")) == []


def test_starter_cut_short_is_assembled_anew(starter_package: Callable[[bytes], list[Path]]) -> None:
    assembled = starter_package(b"")
    (paths.cache_dir() / "starter.gguf").write_bytes(b"GGUF")
    target = starter_model()
    assert target is not None
    assert target.stat().st_size == 4004
    assert len(assembled) == 1


def test_damaged_starter_leaves_nothing_behind(starter_package: Callable[[bytes], list[Path]]) -> None:
    starter_package(b"!")
    with pytest.raises(ModelFileError, match="sha256"):
        starter_model()
    assert list(paths.cache_dir().iterdir()) == []


def test_without_its_package_there_is_no_starter(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "STARTER_PACKAGE", "no_such_package_at_all")
    assert starter_model() is None


@pytest.mark.starter
def test_the_real_starter_is_the_model_it_says(home: Path) -> None:
    pytest.importorskip(models.STARTER_PACKAGE)
    path = starter_model()
    assert path is not None
    entry = ModelList().entry(path)
    assert entry is not None
    assert (entry.architecture, entry.quantization, entry.n_layer) == ("gemma3", "Q4_K_M", 18)
    assert (entry.attention, entry.is_complete, entry.error) == (("MQA", "SWA"), True, "")
    assert 260_000_000 < entry.n_params < 280_000_000


def test_entries_tell_facts_and_faults(home: Path) -> None:
    folder = home / "models"
    folder.mkdir()
    write_tiny("llama", folder, n_ctx_train=8192)
    write_tiny("llama", folder, file_name="mute.gguf", vocab=False)
    (folder / "broken.gguf").write_bytes(b"not a model")
    entries = {Path(entry.path).name: entry for entry in listed(folder)}
    tiny = entries["tiny-llama.gguf"]
    assert (tiny.name, tiny.architecture, tiny.n_ctx_train, tiny.attention) == ("Tiny llama", "llama", 8192, ("GQA",))
    assert (tiny.error, tiny.is_complete, tiny.size_bytes) == ("", True, (folder / "tiny-llama.gguf").stat().st_size)
    assert "not a GGUF file" in entries["broken.gguf"].error
    assert "no vocabulary" in entries["mute.gguf"].error


def test_projectors_are_left_out_whatever_their_name(home: Path) -> None:
    folder = home / "models"
    folder.mkdir()
    path = write_tiny("llama", folder, file_name="vision.gguf", vocab=False)
    path.write_bytes(path.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x04\0\0\0\0\0\0\0clip", 1))
    assert listed(folder) == []


def test_the_list_says_where_a_model_is_from_and_what_reads_its_images(home: Path) -> None:
    folder = home / "models"
    folder.mkdir()
    write_tiny("llama", folder)
    (folder / "mmproj-F16.gguf").write_bytes(b"")
    [entry] = ModelList().entries([Place("LM Studio", folder)])
    assert (entry.source, entry.projector) == ("LM Studio", str(folder / "mmproj-F16.gguf"))


def test_experts_count_as_far_as_they_are_used(home: Path) -> None:
    entry = ModelList().entry(write_tiny("qwen3moe", home))
    assert entry is not None
    assert 0 < entry.n_params_active < entry.n_params
    dense = ModelList().entry(write_tiny("llama", home))
    assert dense is not None
    assert dense.n_params_active == dense.n_params


def test_copies_of_one_file_have_one_fingerprint(home: Path) -> None:
    folder = home / "models"
    folder.mkdir()
    shutil.copy(write_tiny("llama", folder), folder / "copy.gguf")
    write_tiny("llama", folder, file_name="other.gguf", seed=2)
    copy, other, first = listed(folder)
    assert copy.fingerprint == first.fingerprint
    assert other.fingerprint != first.fingerprint


def test_a_list_that_is_left_early_keeps_what_was_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home / "models"
    folder.mkdir()
    write_tiny("llama", folder, file_name="a.gguf")
    write_tiny("llama", folder, file_name="b.gguf")
    walk = ModelList().entries([Place("folder", folder)])
    first = next(walk)
    walk.close()
    monkeypatch.setattr(models, "read_model_file", lambda path: pytest.fail("read again"))
    assert ModelList().entry(Path(first.path)) is not None


def test_facts_are_remembered_until_the_file_changes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home / "models"
    folder.mkdir()
    path = write_tiny("llama", folder)
    entries = listed(folder)
    reads: list[Path] = []
    real = models.read_model_file
    monkeypatch.setattr(models, "read_model_file", lambda path: reads.append(path) or real(path))
    assert listed(folder) == entries
    assert reads == []
    write_tiny("llama", folder, n_layer=3)
    assert [entry.n_layer for entry in listed(folder)] == [3]
    assert reads == [path]


def test_another_file_of_the_same_size_and_time_is_read_anew(home: Path) -> None:
    folder = home / "models"
    folder.mkdir()
    path = write_tiny("llama", folder)
    (before,) = listed(folder)
    replace_alike(path, b"Tiny llama", b"Tiny koala")
    (after,) = listed(folder)
    assert (before.name, after.name) == ("Tiny llama", "Tiny koala")


@pytest.mark.parametrize("content", ["", "{", '{"version": 1}', '{"version": 1, "models": {"a": [1]}}', "[]"])
def test_damaged_cache_is_ignored(home: Path, content: str) -> None:
    cache_file = home / "list.json"
    cache_file.write_text(content)
    folder = home / "models"
    folder.mkdir()
    write_tiny("llama", folder)
    assert len(listed(folder, cache_file)) == 1
    assert len(listed(folder, cache_file)) == 1
