"""The graphics cards of this machine as Linux lists them: driver, PCI address, memory. Any thread; empty on other systems.

amdgpu tells its memory in /sys; Intel's drivers and nouveau do not. Whatever cannot be read is None.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from kvdesk.backend.system.procfs import read_count, read_text

VENDORS = {0x1002: "AMD", 0x10DE: "NVIDIA", 0x8086: "Intel"}
_CARD = re.compile(r"card\d+$")


@dataclass(frozen=True)
class GraphicsCard:
    """One card. ``address`` is its PCI address ("0000:c1:00.0"), ``driver`` the kernel's ("amdgpu"), "" where none is bound.

    ``vram`` is the card's own memory and ``gtt`` the part of RAM that it may use, both (used, total) in bytes as its
    driver tells them (/sys/class/drm/card*/device/mem_info_*), None where it does not.
    """

    name: str
    vendor: str
    address: str
    driver: str
    vram: tuple[int, int] | None = None
    gtt: tuple[int, int] | None = None


def graphics_cards(root: Path = Path("/")) -> tuple[GraphicsCard, ...]:
    """The graphics cards that the kernel knows now."""
    try:
        folders = sorted(p for p in (root / "sys/class/drm").iterdir() if _CARD.match(p.name))
    except OSError:
        return ()
    return tuple(_card(folder) for folder in folders)


def _card(folder: Path) -> GraphicsCard:
    device = folder / "device"
    number = (read_text(device / "vendor") or "").strip()
    vendor = VENDORS.get(int(number, 16), number) if re.fullmatch(r"0x[0-9a-f]+", number) else ""
    driver = os.path.basename(os.path.realpath(device / "driver")) if (device / "driver").exists() else ""
    address = os.path.basename(os.path.realpath(device))
    return GraphicsCard(folder.name, vendor, address, driver, _memory(device, "vram"), _memory(device, "gtt"))


def _memory(device: Path, kind: str) -> tuple[int, int] | None:
    used, total = (read_count(device / f"mem_info_{kind}_{what}") for what in ("used", "total"))
    return None if used is None or total is None else (used, total)
