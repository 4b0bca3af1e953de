"""What processes hold on a graphics card, as Linux's drivers tell it (/proc/PID/fdinfo). Any thread; None where they do not.

The format is the kernel's own: Documentation/gpu/drm-usage-stats.rst. amdgpu, i915 and xe write it; NVIDIA's driver does
not (nvml.py asks that one).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from kvdesk.backend.system.procfs import read_text

_AMOUNT = re.compile(r"(\d+)(?: (KiB|MiB))?$")
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}
_KEYS = ("drm-resident-", "drm-memory-", "drm-total-")
"""What lies in a region of memory now; its older name; what was asked for. The first that a driver writes counts."""
_ON_THE_CARD = ("vram", "local")
"""How names of regions on the card begin; the others ("gtt", "system", "stolen", "cpu") are RAM."""


def held_on_card(pids: Iterable[int], address: str, root: Path = Path("/")) -> int | None:
    """Bytes that ``pids`` hold in the card's own memory; ``address`` is its PCI address. None where no driver tells."""
    clients: dict[str, int] = {}
    for pid in pids:
        for fields in _descriptors(root / "proc" / str(pid) / "fdinfo"):
            held = _bytes_on_card(fields)
            if fields.get("drm-pdev") == address and held is not None:
                clients[fields.get("drm-client-id", "")] = held  # a client with several descriptors is one
    return sum(clients.values()) if clients else None


def _descriptors(folder: Path) -> Iterable[Mapping[str, str]]:
    """The fields of each of a process's open cards."""
    try:
        files = list(folder.iterdir())
    except OSError:
        return
    for file in files:
        text = read_text(file) or ""
        if "drm-pdev" in text:
            pairs = (line.partition(":") for line in text.splitlines())
            yield {name.strip(): value.strip() for name, _, value in pairs}


def _bytes_on_card(fields: Mapping[str, str]) -> int | None:
    for key in _KEYS:
        amounts = [
            _AMOUNT.match(value)
            for name, value in fields.items()
            if name.startswith(key) and name.removeprefix(key).startswith(_ON_THE_CARD)
        ]
        known = [int(amount[1]) * _UNITS[amount[2] or ""] for amount in amounts if amount]
        if known:
            return sum(known)
    return None
