"""Where models lie on this machine: kvdesk's own folder, and those of other programs, found in place. No Qt, any thread.

Only names of folders are made here, from the system, the environment and the home folder; find.py looks into them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kvdesk import paths

OWN = "kvdesk"
STARTER = "starter"
ADDED = "folder"
OLLAMA = "Ollama"


@dataclass(frozen=True)
class Place:
    """A folder that may hold models. ``source`` is the program it belongs to: OWN, STARTER (comes with kvdesk), ADDED (by
    the person) or its name."""

    source: str
    folder: Path


def own_place() -> Place:
    """Where kvdesk's downloads go; the one place that models are deleted from."""
    return Place(OWN, paths.models_dir())


def all_places(added: Iterable[str] = ()) -> tuple[Place, ...]:
    """Every place of this machine: kvdesk's own, the starter's, the folders that the person ``added``, then other programs' folders."""
    return (
        own_place(),
        Place(STARTER, paths.cache_dir()),
        *(Place(ADDED, Path(folder).expanduser()) for folder in added),
        *other_programs(Path.home(), os.environ, sys.platform),
    )


def other_programs(home: Path, environment: Mapping[str, str], platform: str) -> tuple[Place, ...]:
    """The folders that other programs keep models in, whether they exist or not. ``platform`` is sys.platform's.

    Sources: each program's documentation of its default folder and of the variable that moves it. The rows for Windows
    and macOS were never run there.
    """
    cache, data = _system_folders(home, environment, platform)

    def moved(variable: str, otherwise: Path) -> Path:
        return Path(environment[variable]).expanduser() if environment.get(variable) else otherwise

    hugging_face = moved("HF_HOME", moved("XDG_CACHE_HOME", home / ".cache") / "huggingface")
    ollama = [moved("OLLAMA_MODELS", home / ".ollama" / "models")]
    if platform.startswith("linux"):
        ollama.append(Path("/usr/share/ollama/.ollama/models"))  # where the system's service keeps them
    folders = (
        ("Hugging Face", (moved("HF_HUB_CACHE", hugging_face / "hub"),)),
        ("LM Studio", (home / ".lmstudio" / "models", home / ".cache" / "lm-studio" / "models")),
        (
            "Jan",
            (data / "Jan" / "data" / "llamacpp" / "models", data / "Jan" / "data" / "models", home / "jan" / "models"),
        ),
        (OLLAMA, tuple(ollama)),
        ("GPT4All", (data / "nomic.ai" / "GPT4All",)),
        (
            "text-generation-webui",
            tuple(home / "text-generation-webui" / below for below in ("user_data/models", "models")),
        ),
        ("llama.cpp", (moved("LLAMA_CACHE", cache / "llama.cpp"),)),
    )
    return tuple(Place(source, folder) for source, several in folders for folder in several)


def _system_folders(home: Path, environment: Mapping[str, str], platform: str) -> tuple[Path, Path]:
    """The user's folders for caches and for programs' data."""
    if platform == "win32":
        local = Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local")
        return local, Path(environment.get("APPDATA") or home / "AppData" / "Roaming")
    if platform == "darwin":
        return home / "Library" / "Caches", home / "Library" / "Application Support"
    return (
        Path(environment.get("XDG_CACHE_HOME") or home / ".cache"),
        Path(environment.get("XDG_DATA_HOME") or home / ".local" / "share"),
    )
