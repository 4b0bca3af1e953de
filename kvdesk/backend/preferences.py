"""What the user chose for the whole app, and where the window stood: two JSON files in the config folder. Any process.

A damaged file is set aside and said, never a reason not to start. What a machine cannot do is in system/cpu_fallback.py.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from kvdesk.backend.atomic_file import write_file
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import AUTOMATIC_MARGIN, MARGIN_HELP, OVERFLOWS, EngineSettings, Values
from kvdesk.errors import StoreError
from kvdesk.sizes import MB, MIB

THEMES: tuple[str, ...] = ("system", "light", "dark")
ZOOM_PERCENT = (50, 200, 10)
"""Least, most, and a step."""
FILE_NAME = "preferences.json"
WINDOW_FILE_NAME = "window.json"
DEFAULT_ENGINE = EngineSettings()
DEFAULT_SAMPLING = SamplingSettings()
V = TypeVar("V", bound=Values)


def _size(label: str, help_text: str, unit: str, unit_bytes: int, minimum: int, step: int) -> dict[str, Any]:
    """Metadata of a size kept in bytes and shown in ``unit``."""
    bounds = {"minimum": minimum * unit_bytes, "step": step * unit_bytes}
    return {"label": label, "help": help_text, "shown_unit": unit, "shown_scale": unit_bytes, **bounds}


@dataclass(frozen=True)
class Preferences(Values):
    """The preferences. ``engine``, ``sampling``, ``system_prompt`` and ``overflow`` are for models and conversations that
    have none of their own yet."""

    theme: str = field(
        default="system", metadata={"label": "Theme", "help": "Light, dark, or the system's.", "choices": THEMES}
    )
    zoom_percent: int = field(
        default=100,
        metadata={
            "label": "Zoom",
            "help": "Size of all text, against the desktop's own.",
            "shown_unit": "%",
            **dict(zip(("minimum", "maximum", "step"), ZOOM_PERCENT, strict=True)),
        },
    )
    margin_bytes: int = field(
        default=AUTOMATIC_MARGIN,
        metadata={
            **_size("Memory Margin", MARGIN_HELP, "MiB", MIB, AUTOMATIC_MARGIN // MIB, 128),
            "minimum_means": "automatic",
        },
    )
    snapshot_budget_bytes: int = field(
        default=4000 * MB,
        metadata=_size("KV Snapshots", "Disk space for the caches of conversations; 0 keeps none.", "MB", MB, 0, 500),
    )
    log_budget_bytes: int = field(
        default=200 * MB, metadata=_size("Memory Logs", "Disk space for session memory logs.", "MB", MB, 10, 50)
    )
    rpc_servers: tuple[str, ...] = field(
        default=(),
        metadata={"label": "Network Workers", "help": "Known llama.cpp RPC workers as host:port, parted by commas."},
    )
    model_folders: tuple[str, ...] = field(
        default=(),
        metadata={"label": "Model Folders", "help": "Folders that the model library looks into, parted by commas."},
    )
    confirm_delete: bool = field(
        default=False, metadata={"label": "Ask before deleting a conversation", "help": "It can be undone either way."}
    )
    confirm_quit: bool = field(
        default=True,
        metadata={
            "label": "Ask before quitting while a reply is written",
            "help": "What is written is kept either way.",
        },
    )
    system_prompt: str = field(default="", metadata={"label": "System Prompt", "help": "For new conversations."})
    overflow: str = field(
        default="ask",
        metadata={"label": "Context Overflow", "help": "What happens at the context's end.", "choices": OVERFLOWS},
    )
    engine: EngineSettings = DEFAULT_ENGINE
    sampling: SamplingSettings = DEFAULT_SAMPLING


@dataclass(frozen=True)
class WindowState(Values):
    """Where the window stood and what it showed. ``geometry`` and ``layout`` are Qt's own bytes in base64."""

    geometry: str = ""
    layout: str = ""
    conversation_id: str = ""


def zoomed(percent: int, direction: int) -> int:
    """The zoom a step larger (``direction`` 1) or smaller (-1) than ``percent``, within the bounds; 0: 100."""
    least, most, step = ZOOM_PERCENT
    return max(least, min(most, percent + direction * step)) if direction else 100


def load_preferences(path: Path) -> tuple[Preferences, str]:
    """The preferences in ``path`` and a sentence for the user, "" when there is nothing to say.

    A file that is no JSON object is renamed to ``<name>.damaged``; entries that are impossible take their defaults.
    """
    return _load(path, Preferences())


def load_window_state(path: Path) -> WindowState:
    """The window's state in ``path``; defaults when there is none or it is damaged."""
    return _load(path, WindowState())[0]


def save_values(values: Values, path: Path) -> None:
    """Write ``values`` to ``path`` whole or not at all. Raises StoreError, and then the old file is still there."""
    try:
        write_file(path, json.dumps(values.to_dict(), indent=2))
    except OSError as error:
        raise StoreError(f"{path} could not be saved: {error.strerror or error}.") from error


def _load(path: Path, defaults: V) -> tuple[V, str]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return defaults, ""
    except OSError as error:
        return defaults, f"{path} could not be read ({error.strerror or error}); defaults are used."
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        values = None
    if isinstance(values, dict):
        return type(defaults).from_dict(cast("dict[str, Any]", values)), ""
    aside = path.with_name(f"{path.name}.damaged")
    try:
        os.replace(path, aside)
    except OSError as error:
        return defaults, f"{path} is damaged and could not be moved ({error.strerror or error}); defaults are used."
    return defaults, f"{path} was damaged; it is kept as {aside.name}, and defaults are used."
