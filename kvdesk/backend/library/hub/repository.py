"""What a hub says of a repository, and the models in it: split files as one, the projector beside. Pure values.

Everything here was written by strangers: names are checked before they become paths, texts are cut to one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kvdesk.backend.gguf.model_file import SPLIT_NAME
from kvdesk.errors import HubError

REPOSITORY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
"""owner/name, as the hub allows them."""
_QUANTIZATION = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:I?Q[1-8](?:_[A-Z0-9]+)*|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|F16|F32))(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_MAX_NAME_BYTES = 200
_DEVICE_NAMES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for itself."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository at ``revision`` (a commit). ``sha256`` is "" for a small file, which has ``blob_id`` (git's
    SHA-1) alone."""

    repo_id: str
    revision: str
    name: str
    size_bytes: int
    sha256: str = ""
    blob_id: str = ""


@dataclass(frozen=True)
class RemoteModel:
    """A model that can be downloaded: one file or all parts. ``quantization`` is what its name says ("" when nothing)."""

    name: str
    quantization: str
    files: tuple[RemoteFile, ...]
    projector: RemoteFile | None = None

    @property
    def size_bytes(self) -> int:
        """All parts, the projector not counted."""
        return sum(file.size_bytes for file in self.files)

    @property
    def repo_id(self) -> str:
        """The repository it is in."""
        return self.files[0].repo_id


@dataclass(frozen=True)
class Repository:
    """A repository as the hub describes it. ``files`` is empty in search results; ``updated`` is an ISO date."""

    repo_id: str
    revision: str = ""
    downloads: int = 0
    likes: int = 0
    license: str = ""
    updated: str = ""
    is_gated: bool = False
    is_private: bool = False
    files: tuple[RemoteFile, ...] = ()

    @property
    def models(self) -> tuple[RemoteModel, ...]:
        """The language models in it, the smallest first."""
        return models_in(self.files)


def models_in(files: Iterable[RemoteFile]) -> tuple[RemoteModel, ...]:
    """The models among ``files``, the smallest first. A split model with a part missing is left out."""
    gguf = [file for file in files if file.name.lower().endswith(".gguf")]
    projectors = sorted((file for file in gguf if "mmproj" in file.name.lower()), key=lambda file: file.size_bytes)
    plain = {file.name: file for file in gguf if file not in projectors}
    found: list[RemoteModel] = []
    for name, file in plain.items():
        split = SPLIT_NAME.fullmatch(name)
        if split is None:
            found.append(RemoteModel(_stem(name), quantization_in(name), (file,), _projector(name, projectors)))
        elif split["no"] == "00001":
            names = [f"{split['prefix']}-{no:05}-of-{split['count']}.gguf" for no in range(1, int(split["count"]) + 1)]
            parts = tuple(plain[part] for part in names if part in plain)
            if len(parts) == len(names):
                prefix = split["prefix"]
                found.append(RemoteModel(_stem(prefix), quantization_in(prefix), parts, _projector(name, projectors)))
    return tuple(sorted(found, key=lambda model: (model.size_bytes, model.name)))


def quantization_in(name: str) -> str:
    """The quantization that a file's name ends in, in capitals: "Q4_K_M"; "" where it names none."""
    found = _QUANTIZATION.findall(PurePosixPath(name).name) or _QUANTIZATION.findall(name)
    return found[-1].upper() if found else ""


def target_path(models_dir: Path, file: RemoteFile) -> Path:
    """Where ``file`` goes: ``models_dir``/owner/repository/name. Raises HubError for a name that would lead elsewhere or
    that a file system or terminal could trip over."""
    if not REPOSITORY_NAME.fullmatch(file.repo_id):
        raise HubError("The repository's name is none that the hub allows, so nothing is downloaded.")
    parts = [*file.repo_id.split("/"), *file.name.split("/")]
    if not all(_is_safe(part) for part in parts):
        raise HubError(
            f"A file in {file.repo_id} has a name that is not safe to write to a disk, so it is not downloaded."
        )
    return models_dir.joinpath(*parts)


def _is_safe(part: str) -> bool:
    return (
        bool(part)
        and not part.startswith((".", " "))
        and not part.endswith((".", " "))
        and len(part.encode()) <= _MAX_NAME_BYTES
        and part.isprintable()
        and not set(part) & set('\\:*?"<>|')
        and not _DEVICE_NAMES.fullmatch(part)
    )


def _projector(model_name: str, projectors: list[RemoteFile]) -> RemoteFile | None:
    """The projector for a model of the repository: F16 rather than larger, in the same folder rather than elsewhere."""
    folder = PurePosixPath(model_name).parent
    beside = [file for file in projectors if PurePosixPath(file.name).parent == folder] or projectors
    half = [file for file in beside if quantization_in(file.name) == "F16"]
    return next(iter(half or beside), None)


def _stem(name: str) -> str:
    plain = PurePosixPath(name).name
    return plain[: -len(".gguf")] if plain.lower().endswith(".gguf") else plain
