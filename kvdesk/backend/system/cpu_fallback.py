"""What this machine could not do: remembered so that the next start does not crash its way to it again. Any process.

One JSON file in the data folder: CPU and llama.cpp version -> true where the warm-up died with repacked weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import re
from dataclasses import replace
from pathlib import Path

from kvdesk.backend.atomic_file import write_file
from kvdesk.backend.settings import ModelSettings
from kvdesk.backend.system.procfs import read_text


def machine_key() -> str:
    """This CPU (model and features) with this llama-cpp-python; another build or machine gets a new chance."""
    import importlib.metadata  # slow, and not needed before a model is opened

    text = read_text("/proc/cpuinfo") or ""
    facts = re.findall(r"^(?:model name|flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)[:2]
    named = facts or [platform.processor(), platform.machine()]
    digest = hashlib.sha256("|".join(named).encode()).hexdigest()[:16]
    return f"{digest} {importlib.metadata.version('llama-cpp-python')}"


def _read(path: Path) -> dict[str, bool]:
    with contextlib.suppress(OSError, ValueError):
        values = json.loads(path.read_text("utf-8"))
        if isinstance(values, dict):
            return {str(k): bool(v) for k, v in values.items()}  # type: ignore[reportUnknownVariableType]
    return {}


def remembered(settings: ModelSettings, path: Path) -> ModelSettings:
    """``settings`` without repacked weights where they are known to kill the engine on this machine."""
    return replace(settings, use_extra_bufts=False) if _read(path).get(machine_key()) else settings


def remember(path: Path) -> None:
    """The engine died in its warm-up with repacked weights, here, and works without them. A file that cannot be written is not worth an error."""
    values = {**_read(path), machine_key(): True}
    with contextlib.suppress(OSError):
        write_file(path, json.dumps(values, indent=1))


def forget(path: Path) -> bool:
    """Give repacked weights another chance on this machine; whether something had been remembered. Raises OSError."""
    values = _read(path)
    if machine_key() not in values:
        return False
    del values[machine_key()]
    write_file(path, json.dumps(values, indent=1))
    return True
