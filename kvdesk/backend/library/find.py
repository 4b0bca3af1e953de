"""Finds model files in places, by names alone: split files as one, the projector beside its model, Ollama's blobs by
their manifests. Opens no model; any thread."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from kvdesk.backend.gguf.model_file import SPLIT_NAME
from kvdesk.backend.library.places import OLLAMA, Place
from kvdesk.shown_text import shown_line

MAX_DEPTH = 6
"""How deep find_models goes: deep enough for publisher/repository/snapshot/revision, not for a whole disk."""
MAX_MANIFEST_BYTES = 1024 * 1024
_MODEL_LAYER = "application/vnd.ollama.image.model"
_PROJECTOR_LAYER = "application/vnd.ollama.image.projector"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_PROJECTOR_WORDS = re.compile(r"mmproj|model|(?<![a-z0-9])(?:bf16|f16|f32|q8_0)(?![a-z0-9])|[^a-z0-9]+")


@dataclass(frozen=True)
class FoundModel:
    """A model's file (of a split one the first part). ``name`` is what its program calls it, "" where the header tells;
    ``projector`` is the file that turns images into tokens for it."""

    path: Path
    source: str
    name: str = ""
    projector: Path | None = None


def is_projector(name: str) -> bool:
    """Whether a file of that name is a projector and no language model (llama.cpp's convention)."""
    return "mmproj" in name.lower()


def find_models(places: Iterable[Place]) -> list[FoundModel]:
    """The models in ``places``, sorted by file name.

    Folders that are missing or unreadable are passed over. A file that is reached twice (links, a folder within
    another) is listed once, under the first place.
    """
    found: dict[Path, FoundModel] = {}
    for place in places:
        models = _ollama_models(place) if place.source == OLLAMA else _models_below(place)
        for model in models:
            found.setdefault(_real(model.path), model)
    return sorted(found.values(), key=lambda model: (model.path.name.lower(), str(model.path)))


def projector_for(model_name: str, projectors: Iterable[Path]) -> Path | None:
    """Which of the ``projectors`` in a model's folder is the model's: one without a name of its own (``mmproj-F16.gguf``)
    serves all models there, one with a name those whose name holds it. None where no one is."""
    plain = re.sub(r"[^a-z0-9]+", "", model_name.lower())
    for projector in sorted(projectors):
        own = _PROJECTOR_WORDS.sub("", projector.stem.lower())
        if own in plain:
            return projector
    return None


def _models_below(place: Place) -> Iterator[FoundModel]:
    top = place.folder
    for here, below, names in os.walk(top, followlinks=False):
        folder = Path(here)
        if len(folder.relative_to(top).parts) >= MAX_DEPTH:
            below.clear()
        below[:] = sorted(name for name in below if not name.startswith("."))
        files = [name for name in names if name.lower().endswith(".gguf") and not name.startswith(".")]
        projectors = [folder / name for name in files if is_projector(name)]
        for name in files:
            split = SPLIT_NAME.fullmatch(name)
            if is_projector(name) or (split and split["no"] != "00001"):
                continue
            yield FoundModel(folder / name, place.source, projector=projector_for(name, projectors))


def _ollama_models(place: Place) -> Iterator[FoundModel]:
    """What the manifests name: ``manifests/HOST/OWNER/NAME/TAG`` lists layers, which are files in ``blobs``."""
    manifests = place.folder / "manifests"
    for here, below, names in os.walk(manifests):
        below.sort()
        for tag in sorted(names):
            path = Path(here, tag)
            layers = _layers(path)
            model = _blob(place.folder, layers.get(_MODEL_LAYER))
            if model is None:
                continue
            owner, name = path.parts[-3:-1]
            shown = f"{name}:{tag}" if owner == "library" else f"{owner}/{name}:{tag}"
            yield FoundModel(model, OLLAMA, shown_line(shown, 200), _blob(place.folder, layers.get(_PROJECTOR_LAYER)))


def _layers(manifest: Path) -> dict[str, str]:
    """Media type -> digest of a manifest's layers; {} for a file that is none."""
    try:
        if manifest.stat().st_size > MAX_MANIFEST_BYTES:
            return {}
        read: Any = json.loads(manifest.read_bytes())
        layers = cast("list[dict[str, Any]]", read["layers"])
        return {str(layer["mediaType"]): str(layer["digest"]) for layer in layers}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}


def _blob(folder: Path, digest: str | None) -> Path | None:
    match = _DIGEST.fullmatch(digest or "")
    path = folder / "blobs" / f"sha256-{match[1]}" if match else None
    return path if path and path.is_file() else None


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a link that leads to itself
        return path
