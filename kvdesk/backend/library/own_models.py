"""Deleting models, of kvdesk's own folder only: what another program keeps is that program's. Any thread."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from kvdesk import paths
from kvdesk.backend.gguf.model_file import SPLIT_NAME, first_part
from kvdesk.backend.library.find import find_models, is_projector
from kvdesk.backend.library.places import Place
from kvdesk.errors import ModelFileError


def is_own(path: Path) -> bool:
    """Whether ``path`` is a file in kvdesk's own folder (a link there counts, wherever it leads)."""
    return paths.models_dir().resolve() in path.parent.resolve().parents


def files_of(path: Path) -> tuple[Path, ...]:
    """The files of the model ``path``: all its parts that are there, and its projector if no other model uses it."""
    path = first_part(path)
    split = SPLIT_NAME.fullmatch(path.name)
    names = sorted(os.listdir(path.parent)) if split else [path.name]
    parts = [path.with_name(name) for name in names if not split or _is_part(name, split["prefix"], split["count"])]
    beside = [model for model in find_models([Place("", path.parent)]) if model.path.parent == path.parent]
    projectors = [model.projector for model in beside if model.path == path and model.projector]
    shared = {model.projector for model in beside if model.path != path}
    return (*parts, *(projector for projector in projectors if projector not in shared))


def delete_model(path: Path) -> int:
    """Delete the model ``path``, all its parts and its projector; returns the bytes that were freed.

    Raises ModelFileError when it is not in kvdesk's own folder or cannot be deleted.
    """
    if not is_own(path):
        raise ModelFileError(
            f"{path} is not in kvdesk's own folder ({paths.models_dir()}), so kvdesk does not delete it. "
            "Delete it in the program it belongs to.",
            path,
        )
    if not (path.is_file() or path.is_symlink()) or is_projector(path.name):
        raise ModelFileError(f"There is no model {path}.", path)
    freed = 0
    try:
        for file in reversed(files_of(path)):  # the first part last: without it the rest is no model in any list
            freed += 0 if file.is_symlink() else file.stat().st_size
            file.unlink()
    except OSError as error:
        raise ModelFileError(f"{path.name} could not be deleted: {error.strerror or error}.", path) from error
    for folder in (path.parent, path.parent.parent):
        if folder.resolve() != paths.models_dir().resolve():
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
    return freed


def _is_part(name: str, prefix: str, count: str) -> bool:
    part = SPLIT_NAME.fullmatch(name)
    return part is not None and (part["prefix"], part["count"]) == (prefix, count)
