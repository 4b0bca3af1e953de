"""``kvdesk models``: the models on this machine, and whether they fit; without Qt. Those on the hub are models_hub.py's.

Finding is backend/library's, the badge is the plan's (backend/planning/fit.py). With ``--json`` one object is printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvdesk.commands import models_hub
from kvdesk.commands.table import aligned
from kvdesk.errors import UsageError
from kvdesk.shown_text import shown_line
from kvdesk.sizes import format_file_size
from kvdesk.terminal import say, say_beside, say_json

if TYPE_CHECKING:
    from kvdesk.backend.library.models import ModelListEntry
    from kvdesk.backend.library.places import Place
    from kvdesk.backend.planning.fit import Fit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions and their flags."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="every model on this machine, other programs' among them")
    scan = actions.add_parser("scan", help="read every header anew, and say where was looked")
    for one in (listing, scan):
        one.add_argument("--no-fit", action="store_true", help="do not ask llama.cpp whether each fits (0.2 s a model)")
        one.add_argument("--folder", action="append", default=[], metavar="FOLDER", help="look there too")
        models_hub.add_machine(one)
        one.add_argument("--json", action="store_true", help="print one JSON object")
    models_hub.add_actions(actions)
    remove = actions.add_parser("rm", help="delete a model that kvdesk downloaded")
    remove.add_argument("model", type=Path, help="its file, as `kvdesk models list` has it")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    remove.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Do the action. Raises KvdeskError with the sentence to print."""
    actions = {"list": _list, "scan": _list, "rm": _remove}
    actions |= {"search": models_hub.search, "info": models_hub.info, "get": models_hub.get}
    return actions[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from kvdesk.backend.library.models import ModelList

    badges = models_hub.badges(args.machine)
    places = _places(args.folder)
    models = ModelList()
    if args.action == "scan":
        models.forget()
    entries = list(models.entries(places))
    fits = {} if args.no_fit else {entry.path: badges.of_file(Path(entry.path)) for entry in entries if entry.n_layer}
    if args.json:
        shown: dict[str, Any] = {"models": _json_rows(entries, fits)}
        if args.action == "scan":
            shown["places"] = _json_places(places, entries)
        say_json(shown)
        return 0
    if args.action == "scan":
        say("\n".join(_place_rows(places, entries)) + "\n")
    say("\n".join(_rows(entries, fits)) if entries else "There are no models on this machine yet.")
    return 0


def _remove(args: argparse.Namespace) -> int:
    from kvdesk.backend.library.own_models import delete_model, files_of, is_own

    path: Path = args.model
    if is_own(path) and path.exists() and not args.yes:
        if not sys.stdin.isatty():
            raise UsageError("Nothing was deleted: say --yes to delete without being asked.")
        names = ", ".join(file.name for file in files_of(path))
        if input(shown_line(f"Delete {names} for good? [y/N] ")).strip().lower() not in ("y", "yes"):
            say("Nothing was deleted.")
            return 1
    freed = delete_model(path)
    if args.json:
        say_json({"deleted": str(path), "freed_bytes": freed})
    else:
        say(f"Deleted; {format_file_size(freed)} are free.")
    return 0


def _places(folders: Sequence[str]) -> tuple[Place, ...]:
    from kvdesk import paths
    from kvdesk.backend.library.places import all_places
    from kvdesk.backend.preferences import FILE_NAME, load_preferences

    missing = [folder for folder in folders if not Path(folder).expanduser().is_dir()]
    if missing:
        raise UsageError(f"There is no folder {missing[0]}.")
    preferences, problem = load_preferences(paths.config_dir() / FILE_NAME)
    if problem:
        say_beside(problem)
    return all_places((*preferences.model_folders, *folders))


def _json_rows(entries: Sequence[ModelListEntry], fits: dict[str, Fit]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    first: dict[str, str] = {}
    for entry in entries:
        twin = first.setdefault(entry.fingerprint or entry.path, entry.path)
        fit = fits.get(entry.path)
        rows.append(
            dataclasses.asdict(entry)
            | {"duplicate_of": None if twin == entry.path else twin, "fit": fit.to_json_dict() if fit else None}
        )
    return rows


def _json_places(places: Sequence[Place], entries: Sequence[ModelListEntry]) -> list[dict[str, Any]]:
    return [
        {"source": place.source, "folder": str(place.folder), "exists": place.folder.is_dir(), "models": count}
        for place, count in _counted(places, entries)
    ]


def _counted(places: Sequence[Place], entries: Sequence[ModelListEntry]) -> list[tuple[Place, int]]:
    return [
        (
            place,
            sum(entry.source == place.source and Path(entry.path).is_relative_to(place.folder) for entry in entries),
        )
        for place in places
    ]


# --- the tables ----------------------------------------------------------------------------------------------------


def _rows(entries: Sequence[ModelListEntry], fits: dict[str, Fit]) -> list[str]:
    rows = [["model", "architecture", "quantization", "parameters", "size", "context", "from", "fit"]]
    for entry in entries:
        fit = fits.get(entry.path)
        rows.append(
            [
                entry.name,
                entry.architecture,
                entry.quantization,
                _count(entry.n_params),
                format_file_size(entry.size_bytes),
                f"{entry.n_ctx_train:,}" if entry.n_ctx_train else "-",
                entry.source,
                entry.error or (fit.sentence if fit else ""),
            ]
        )
    lines = aligned(rows, left=(0, 1, 2, 6, 7))
    return [
        lines[0],
        *(
            line
            for entry, text in zip(entries, lines[1:], strict=True)
            for line in (text, f"  {shown_line(entry.path, 4096)}")
        ),
    ]


def _place_rows(places: Sequence[Place], entries: Sequence[ModelListEntry]) -> list[str]:
    rows = [["looked in", "models", "folder"]]
    for place, count in _counted(places, entries):
        rows.append([place.source, str(count) if place.folder.is_dir() else "-", str(place.folder)])
    return aligned(rows, left=(0, 2))


def _count(n_params: int) -> str:
    """Parameters in short: 270M, 7.6B."""
    if not n_params:
        return "-"
    return f"{n_params / 1e9:.1f}B" if n_params >= 1e9 else f"{n_params / 1e6:.0f}M"
