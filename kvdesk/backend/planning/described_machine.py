"""A machine described by hand, "24 GiB VRAM, 64 GiB RAM", to plan for it: what would a bigger GPU give? Pure.

llama.cpp's own dry run splits the model over devices of those names (DESCRIBED_DEVICE); the memory is all taken for free.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from kvdesk.backend.planning.device_plan import RAM
from kvdesk.backend.protocol.footprint import DESCRIBED_DEVICE
from kvdesk.backend.settings import EngineSettings
from kvdesk.backend.system.samples import DomainReading
from kvdesk.errors import UsageError
from kvdesk.sizes import GIB, MIB

MOST_GPUS = 16
_PART = re.compile(
    r"(?:(?P<count>\d{1,2})\s*[x×*]\s*)?(?P<size>\d+(?:\.\d+)?)\s*(?P<unit>GiB|GB|G|MiB|MB|M)\s*(?P<kind>VRAM|RAM)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class DescribedMachine:
    """``ram_bytes`` of RAM, and for each GPU its memory."""

    ram_bytes: int
    vram_bytes: tuple[int, ...] = ()

    @property
    def readings(self) -> tuple[DomainReading, ...]:
        """Its memory domains, with nothing else running there."""
        gpus = [DomainReading(_gpu(n), "gpu", size, size, 0) for n, size in enumerate(self.vram_bytes)]
        return (DomainReading(RAM, "ram", self.ram_bytes, self.ram_bytes, 0, 0, 0), *gpus)

    def applied_to(self, settings: EngineSettings) -> EngineSettings:
        """``settings`` as a dry run for this machine wants them."""
        devices = tuple(DESCRIBED_DEVICE + _gpu(n) for n in range(len(self.vram_bytes)))
        return replace(settings, model=replace(settings.model, rpc_servers=devices))


def read_description(text: str) -> DescribedMachine:
    """The machine that ``text`` describes: sizes of VRAM (one for each GPU, or "2x 16 GiB VRAM") and of RAM, in any order.

    Memory comes in powers of 1024, so GB means GiB here. Raises UsageError, with an example, for anything else.
    """
    parts = list(_PART.finditer(text))
    left = re.sub(r"[\s,;+&]|\band\b", "", _PART.sub("", text))
    ram = 0
    vram: list[int] = []
    for part in parts:
        size = round(float(part["size"]) * (GIB if part["unit"][0] in "gG" else MIB))
        count = int(part["count"] or 1)
        if part["kind"].upper() == "RAM":
            ram += size * count
        else:
            vram += [size] * count
    if left or not ram or 0 in vram or len(vram) > MOST_GPUS:
        raise UsageError(f'"{text[:80]}" describes no machine; write it like "24 GiB VRAM, 64 GiB RAM".')
    return DescribedMachine(ram, tuple(vram))


def _gpu(number: int) -> str:
    return f"GPU{number}"
