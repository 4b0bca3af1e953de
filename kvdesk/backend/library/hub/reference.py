"""What a person types or pastes to name a model on the hub: a link, owner/name, owner/name:Q4_K_M. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from kvdesk.backend.library.hub.repository import REPOSITORY_NAME, RemoteModel, Repository
from kvdesk.errors import HubError

HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})


@dataclass(frozen=True)
class Reference:
    """A repository, and where they were named its revision, file or quantization."""

    repo_id: str
    revision: str = ""
    file_name: str = ""
    quantization: str = ""


def read_reference(text: str) -> Reference | None:
    """What ``text`` names; None for what is no name of a repository (words to search for, for instance).

    Read are ``owner/name``, ``owner/name:QUANTIZATION``, ``owner/name/file.gguf``, and links to these on the hub
    (``https://huggingface.co/...``, ``hf.co/...``, with ``/resolve/REVISION/`` or ``/blob/REVISION/``).
    """
    text = text.strip()
    if any(sign.isspace() for sign in text) or len(text) > 1000:
        return None
    bare = text.removeprefix("hf://")
    host, _, rest = bare.partition("/")
    if "://" in bare:
        try:
            link = urlsplit(bare)
        except ValueError:
            return None
        if link.scheme not in ("https", "http") or link.hostname not in HOSTS:
            return None
        rest = unquote(link.path).strip("/")
    elif host not in HOSTS:
        rest = bare
    path, _, quantization = rest.partition(":")
    parts = path.strip("/").split("/")
    repo_id = "/".join(parts[:2])
    if len(parts) < 2 or not REPOSITORY_NAME.fullmatch(repo_id):
        return None
    below = parts[2:]
    revision = ""
    if below and below[0] in ("resolve", "blob", "tree", "raw"):
        revision, below = (below[1] if len(below) > 1 else ""), below[2:]
    file_name = "/".join(below)
    if file_name and not file_name.lower().endswith(".gguf"):
        file_name = ""
    return Reference(repo_id, revision, file_name, quantization.upper())


def chosen_model(repository: Repository, reference: Reference) -> RemoteModel | None:
    """The model of ``repository`` that ``reference`` names; None when it names none, and the person is to choose.

    Raises HubError when it names one that is not there.
    """
    models = repository.models
    if not models:
        raise HubError(f"{repository.repo_id} has no GGUF model. Search for its name and GGUF.")
    if reference.file_name:
        matches = [model for model in models if reference.file_name in {file.name for file in model.files}]
    elif reference.quantization:
        matches = [model for model in models if model.quantization == reference.quantization]
    else:
        return models[0] if len(models) == 1 else None
    if not matches:
        known = ", ".join(dict.fromkeys(model.quantization or model.name for model in models))
        asked = reference.file_name or reference.quantization
        raise HubError(f"{repository.repo_id} has no {asked}. It has: {known}.")
    return matches[0]
