"""What the model library tells while it works. Pure values; ``DownloadState`` is one too."""

from __future__ import annotations

from dataclasses import dataclass

from kvdesk.backend.library.first_models import FirstModel
from kvdesk.backend.library.hub.download_state import DownloadState
from kvdesk.backend.library.hub.repository import RemoteModel, Repository
from kvdesk.backend.library.models import ModelListEntry
from kvdesk.backend.planning.fit import Fit


@dataclass(frozen=True)
class EntriesRead:
    """Some more models of this machine. ``is_first``: a new scan begins, what was listed before is stale."""

    entries: tuple[ModelListEntry, ...]
    is_first: bool


@dataclass(frozen=True)
class ScanEnded:
    """All ``count`` models are listed; their badges follow."""

    count: int


@dataclass(frozen=True)
class Priced:
    """The badge of the model in the file ``path``."""

    path: str
    fit: Fit


@dataclass(frozen=True)
class Found:
    """The answer to a search."""

    words: str
    repositories: tuple[Repository, ...]


@dataclass(frozen=True)
class Opened:
    """A repository with its files; the badges of its models follow. ``chosen`` is the name of the model that was asked
    for, "" for none."""

    repository: Repository
    chosen: str = ""


@dataclass(frozen=True)
class RemotePriced:
    """The badge of one model of a repository."""

    repo_id: str
    name: str
    fit: Fit


@dataclass(frozen=True)
class BestFound:
    """All models of a repository have badges; ``name`` is the best for this machine, "" when none fits."""

    repo_id: str
    name: str
    why: str


@dataclass(frozen=True)
class HubFailed:
    """The hub could not answer; ``sentence`` says what a person can do."""

    sentence: str


@dataclass(frozen=True)
class FirstModelsRead:
    """What a newcomer is offered on this machine. ``line_bytes`` is its OOM line in RAM, None where that is unknown."""

    models: tuple[FirstModel, ...]
    line_bytes: int | None
    has_starter: bool


@dataclass(frozen=True)
class TooLarge:
    """A model that was to be downloaded does not fit; it was not. ``sentence`` is the plan's."""

    model: RemoteModel
    sentence: str


LibraryEvent = (
    FirstModelsRead
    | TooLarge
    | EntriesRead
    | ScanEnded
    | Priced
    | Found
    | Opened
    | RemotePriced
    | BestFound
    | HubFailed
    | DownloadState
)
