"""``kvdesk models search|info|get``: models on the Hugging Face hub, priced before they are downloaded.

Asks the hub only when it is told to. ``get`` shows a bar on a terminal and prints a JSON line for each step otherwise.
"""

from __future__ import annotations

import argparse
import dataclasses
import queue
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvdesk.commands import model_details
from kvdesk.commands.table import aligned
from kvdesk.errors import HubError, UsageError
from kvdesk.shown_text import shown_line
from kvdesk.sizes import format_file_size
from kvdesk.terminal import say, say_beside, say_json, say_progress

if TYPE_CHECKING:
    from kvdesk.backend.library.badges import Badges
    from kvdesk.backend.library.hub.download_state import DownloadState
    from kvdesk.backend.library.hub.hub import Hub
    from kvdesk.backend.library.hub.repository import RemoteModel, Repository
    from kvdesk.backend.planning.fit import Fit, Offer

SORTS = ("downloads", "likes", "last_modified", "trending_score")


def add_actions(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The actions that ask the hub."""
    search = actions.add_parser("search", help="GGUF repositories on the Hugging Face hub")
    search.add_argument("words", nargs="+", help="what its name holds")
    search.add_argument("--sort", choices=SORTS, default="downloads")
    search.add_argument("--limit", type=int, default=20, metavar="N")
    info = actions.add_parser(
        "info", help="the models of a repository and whether each fits, before any is downloaded; or a file's details"
    )
    info.add_argument("--no-fit", action="store_true", help="do not fetch the headers (a few MB each)")
    add_machine(info)
    get = actions.add_parser("get", help="download a model; what is here already of it is gone on with")
    get.add_argument("--no-projector", action="store_true", help="without the file that reads images for it")
    for one in (info, get):
        one.add_argument("model", help="owner/name, owner/name:QUANTIZATION, owner/name/file.gguf, or a link to these")
    for one in (search, info, get):
        one.add_argument("--json", action="store_true", help="print JSON")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """The flag that prices for another machine."""
    parser.add_argument(
        "--as", dest="machine", metavar="MACHINE", help='fit for another machine: "24 GiB VRAM, 64 GiB RAM"'
    )


def badges(machine: str | None = None) -> Badges:
    """What prices models for this machine, or the one described."""
    from kvdesk.backend.library.badges import Badges
    from kvdesk.backend.planning.described_machine import read_description

    return Badges(machine=read_description(machine) if machine else None)


def search(args: argparse.Namespace) -> int:
    """Print the repositories found."""
    from kvdesk.backend.library.hub.hub import Hub

    found = Hub().search(" ".join(args.words), sort=args.sort, limit=max(1, min(args.limit, 100)))
    if args.json:
        keys = ("repo_id", "downloads", "likes", "license", "updated", "is_gated", "is_private")
        say_json({"repositories": [{key: getattr(one, key) for key in keys} for one in found]})
        return 0
    rows = [["repository", "downloads", "likes", "updated", "license"]]
    rows += [[one.repo_id, f"{one.downloads:,}", f"{one.likes:,}", one.updated, _license(one)] for one in found]
    say("\n".join(aligned(rows, left=(0, 3, 4))) if found else "The hub has no GGUF repository of that name.")
    return 0


def info(args: argparse.Namespace) -> int:
    """Print the models of a repository, or the details of a model that is here."""
    from kvdesk.backend.library.hub.hub import Hub

    if Path(args.model).is_file():
        return model_details.show(args)
    hub = Hub()
    repository = _repository(hub, args.model)
    models = repository.models
    fits: list[Fit | None] = [None] * len(models) if args.no_fit else [*_priced(hub, models, args)]
    best = _best(models, fits)
    if args.json:
        rows = [
            _json_row(model)
            | {"fit": fit.to_json_dict() if fit else None, "is_best": best is not None and best[0] == index}
            for index, (model, fit) in enumerate(zip(models, fits, strict=True))
        ]
        say_json({"repo_id": repository.repo_id, "license": repository.license, "models": rows})
        return 0
    rows = [["", "quantization", "size", "fit", "model"]]
    for index, (model, fit) in enumerate(zip(models, fits, strict=True)):
        mark = "*" if best and best[0] == index else ""
        rows.append(
            [mark, model.quantization, format_file_size(model.size_bytes), fit.sentence if fit else "", _shown(model)]
        )
    say("\n".join(aligned(rows, left=(0, 1, 3, 4))))
    if best:
        say(f"* {best[1]}")
    return 0


def get(args: argparse.Namespace) -> int:
    """Download a model. Raises HubError with the sentence to print."""
    from kvdesk import paths
    from kvdesk.backend.library.hub.download_state import DONE, FAILED
    from kvdesk.backend.library.hub.downloads import Downloads
    from kvdesk.backend.library.hub.hub import Hub

    hub = Hub()
    model = _chosen(hub, args)
    told: queue.SimpleQueue[DownloadState] = queue.SimpleQueue()
    downloads = Downloads(hub, paths.models_dir(), told.put)
    show = _JsonLines() if args.json or not sys.stderr.isatty() else _Bar(model)
    try:
        key = downloads.start(model, with_projector=not args.no_projector)
        while True:
            state = told.get()
            if state.key != key:
                continue
            show.tell(state)
            if state.stage == FAILED:
                raise HubError(state.error)
            if state.stage == DONE:
                break
    finally:
        show.close()
        downloads.close()
    if not args.json:
        say(state.path)
    return 0


def _chosen(hub: Hub, args: argparse.Namespace) -> RemoteModel:
    """The model that the person named, or else the best of the repository for this machine."""
    from kvdesk.backend.library.hub.reference import chosen_model, read_reference
    from kvdesk.backend.planning.fit import best_offer

    repository = _repository(hub, args.model)
    reference = read_reference(args.model)
    assert reference is not None
    model = chosen_model(repository, reference)
    if model is not None:
        return model
    models = repository.models
    offers = _offers_until_comfortable(hub, models)
    best = best_offer(offers)
    if best is None:
        raise HubError(
            f"None of the {len(models)} models in {repository.repo_id} is known to fit this machine. Name one all the same: "
            f"`kvdesk models get {repository.repo_id}:{models[0].quantization or models[0].name}`."
        )
    chosen = next(model for model in models if model.size_bytes == offers[best[0]].size_bytes)
    if not args.json:
        say_beside(f"{chosen.quantization or chosen.name}: {best[1]}")
    return chosen


def _offers_until_comfortable(hub: Hub, models: Sequence[RemoteModel]) -> list[Offer]:
    """Prices from the largest down to the first that fits well, so that few headers are fetched; then what is not
    quantized, if nothing else fits."""
    from kvdesk.backend.planning.fit import Offer

    pricing = badges()
    offers: list[Offer] = []
    order = sorted(
        models, key=lambda model: (model.quantization not in ("F16", "BF16", "F32"), model.size_bytes), reverse=True
    )
    for model in order:
        offers.append(Offer(model.quantization, model.size_bytes, pricing.of_remote(hub, model)))
        if offers[-1].is_comfortable:
            break
    return offers


def _repository(hub: Hub, text: str) -> Repository:
    from kvdesk.backend.library.hub.reference import read_reference

    reference = read_reference(text)
    if reference is None:
        raise UsageError(
            "That names no repository; it is owner/name, or a link to it. `kvdesk models search` finds them."
        )
    repository = hub.repository(reference.repo_id, reference.revision)
    if not repository.models:
        raise HubError(f"{repository.repo_id} has no GGUF model. Search for its name and GGUF.")
    return repository


def _priced(hub: Hub, models: tuple[RemoteModel, ...], args: argparse.Namespace) -> list[Fit]:
    pricing, quiet = badges(args.machine), args.json
    fits: list[Fit] = []
    for index, model in enumerate(models):
        if not quiet:
            say_progress(f"reading headers: {index + 1} of {len(models)}")
        fits.append(pricing.of_remote(hub, model))
    if not quiet:
        say_progress("")
    return fits


def _best(models: tuple[RemoteModel, ...], fits: list[Fit | None] | list[Fit]) -> tuple[int, str] | None:
    from kvdesk.backend.planning.fit import Offer, best_offer

    offers: list[Offer] = [
        Offer(model.quantization, model.size_bytes, fit)
        for model, fit in zip(models, fits, strict=True)
        if fit is not None
    ]
    return best_offer(offers) if len(offers) == len(models) else None


def _json_row(model: RemoteModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "quantization": model.quantization,
        "size_bytes": model.size_bytes,
        "files": [file.name for file in model.files],
        "projector": model.projector.name if model.projector else None,
    }


def _shown(model: RemoteModel) -> str:
    return shown_line(model.name, 120)


def _license(repository: Repository) -> str:
    return repository.license + (" (gated)" if repository.is_gated else "")


class _JsonLines:
    """One line for each state of the download."""

    def tell(self, state: DownloadState) -> None:
        say_json(dataclasses.asdict(state) | {"seconds_left": state.seconds_left})

    def close(self) -> None:
        """Nothing is left to do."""


class _Bar:
    """A bar on standard error."""

    def __init__(self, model: RemoteModel) -> None:
        from tqdm import tqdm

        self._bar = tqdm(desc=_shown(model)[:40], total=model.size_bytes, unit="B", unit_scale=True, unit_divisor=1000)

    def tell(self, state: DownloadState) -> None:
        self._bar.total = state.size_bytes
        if state.stage not in ("loading", "done"):
            self._bar.set_postfix_str(state.stage, refresh=False)
        self._bar.update(state.done_bytes - self._bar.n)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
