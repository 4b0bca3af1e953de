"""Models found in place: by name, split files as one, projectors beside, in other programs' folders as they lay them out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kvdesk.backend.library.find import FoundModel, find_models, projector_for
from kvdesk.backend.library.places import Place, all_places, other_programs


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def names(found: list[FoundModel]) -> list[str]:
    return [model.path.name for model in found]


def test_models_are_found_by_name(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in (
        "b.gguf", "sub/deep/A.GGUF", "big-00001-of-00002.gguf", "big-00002-of-00002.gguf",
        "mmproj-b.gguf", "notes.txt", ".hidden/c.gguf", ".half.gguf", "1/2/3/4/5/6/7/too-deep.gguf",
    )))  # fmt: skip
    places = [Place("folder", folder) for folder in (tmp_path, tmp_path / "sub", tmp_path / "nowhere")]
    found = find_models(places)
    assert [model.path for model in found] == [
        tmp_path / "sub/deep/A.GGUF", tmp_path / "b.gguf", tmp_path / "big-00001-of-00002.gguf",
    ]  # fmt: skip


def test_a_file_in_two_places_belongs_to_the_first(tmp_path: Path) -> None:
    touch(tmp_path / "hub" / "blobs" / "abc", tmp_path / "plain" / "model.gguf")
    for revision in ("r1", "r2"):
        snapshot = tmp_path / "hub" / "snapshots" / revision
        snapshot.mkdir(parents=True)
        os.symlink("../../blobs/abc", snapshot / "model.gguf")
    os.symlink(tmp_path / "plain" / "model.gguf", tmp_path / "hub" / "snapshots" / "r1" / "linked.gguf")
    found = find_models([Place("Hugging Face", tmp_path / "hub"), Place("folder", tmp_path / "plain")])
    assert [(model.source, model.path.name) for model in found] == [
        ("Hugging Face", "linked.gguf"), ("Hugging Face", "model.gguf"),
    ]  # fmt: skip


def test_a_link_to_itself_is_no_trouble(tmp_path: Path) -> None:
    os.symlink(tmp_path / "loop.gguf", tmp_path / "loop.gguf")
    assert names(find_models([Place("folder", tmp_path)])) == ["loop.gguf"]


@pytest.mark.parametrize(
    ("model", "projectors", "expected"),
    [
        ("gemma-3-4b-it-Q4_K_M", ["mmproj-F16.gguf"], "mmproj-F16.gguf"),
        ("gemma-3-4b-it-Q4_K_M", ["mmproj-model-f16.gguf"], "mmproj-model-f16.gguf"),
        ("gemma-3-4b-it-Q4_K_M", ["mmproj-gemma-3-4b-it-f16.gguf"], "mmproj-gemma-3-4b-it-f16.gguf"),
        ("gemma-3-4b-it-Q4_K_M", ["gemma-3-4b-it.mmproj-Q8_0.gguf"], "gemma-3-4b-it.mmproj-Q8_0.gguf"),
        ("llama-3.2-3b", ["mmproj-gemma-3-4b-it-f16.gguf"], None),
        ("llama-3.2-3b", [], None),
    ],
)
def test_projectors_are_told_by_their_names(model: str, projectors: list[str], expected: str | None) -> None:
    found = projector_for(model, [Path(name) for name in projectors])
    assert (found and found.name) == expected


def _ollama(folder: Path, reference: str, layers: list[dict[str, str]]) -> None:
    manifest = folder / "manifests" / "registry.ollama.ai" / reference
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))


def test_ollamas_blobs_are_found_by_their_manifests(tmp_path: Path) -> None:
    digest, vision = "a" * 64, "b" * 64
    touch(*(tmp_path / "blobs" / f"sha256-{hexadecimal}" for hexadecimal in (digest, vision)))
    model = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    projector = {"mediaType": "application/vnd.ollama.image.projector", "digest": f"sha256:{vision}"}
    template = {"mediaType": "application/vnd.ollama.image.template", "digest": f"sha256:{vision}"}
    _ollama(tmp_path, "library/gemma3/4b", [model, projector, template])
    _ollama(tmp_path, "somebody/gone/latest", [model | {"digest": f"sha256:{'c' * 64}"}])
    _ollama(tmp_path, "somebody/outside/latest", [model | {"digest": "sha256:../../../etc/passwd"}])
    (tmp_path / "manifests" / "damaged").write_text("[" * 100_000)
    [found] = find_models([Place("Ollama", tmp_path)])
    assert (found.path, found.name) == (tmp_path / "blobs" / f"sha256-{digest}", "gemma3:4b")
    assert found.projector == tmp_path / "blobs" / f"sha256-{vision}"


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_every_program_has_a_place_on_every_system(platform: str) -> None:
    places = other_programs(Path("/home/p"), {}, platform)
    assert {place.source for place in places} == {
        "Hugging Face", "LM Studio", "Jan", "Ollama", "GPT4All", "text-generation-webui", "llama.cpp",
    }  # fmt: skip


def test_variables_move_the_places() -> None:
    moved = {"HF_HOME": "/m/hf", "OLLAMA_MODELS": "/m/ollama", "LLAMA_CACHE": "/m/llama", "XDG_DATA_HOME": "/m/data"}
    folders = {str(place.folder) for place in other_programs(Path("/home/p"), moved, "linux")}
    assert folders >= {"/m/hf/hub", "/m/ollama", "/m/llama", "/m/data/nomic.ai/GPT4All"}
    assert "/elsewhere" in {
        str(place.folder) for place in other_programs(Path("/home/p"), moved | {"HF_HUB_CACHE": "/elsewhere"}, "linux")
    }


def test_folders_that_were_added_come_before_other_programs(home: Path) -> None:
    sources = [place.source for place in all_places(["~/models"])]
    assert sources[:4] == ["kvdesk", "starter", "folder", "Hugging Face"]
    assert all_places(["~/models"])[2].folder == Path.home() / "models"
