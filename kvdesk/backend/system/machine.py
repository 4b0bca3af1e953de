"""This machine's memory domains and what the engine holds in each: RAM, NVIDIA devices, every other ggml device.

Reads only; keeps nothing but what a device held before the engine came. Called from the monitor's thread, and from any
other through its own ``Machine``. A value that cannot be read is None.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvdesk.backend.protocol.facts import Buffer, Device
from kvdesk.backend.system.cgroup import MemoryGroup, memory_groups
from kvdesk.backend.system.drm_clients import held_on_card
from kvdesk.backend.system.graphics_cards import graphics_cards
from kvdesk.backend.system.nvml import GpuReading, Nvml
from kvdesk.backend.system.process_memory import ProcessMemory, descendants, family_memory
from kvdesk.backend.system.procfs import kib_fields, read_text
from kvdesk.backend.system.samples import DomainReading, MachineReading

NO_ENGINE = "no engine"
PER_PROCESS = "NVML, per process"
FDINFO = "the card's driver, per process"
USED_MINUS_BEFORE = "device used minus before load"
OWN_BUFFERS = "llama.cpp's buffers"
NOT_USED = "not among the engine's devices"
UNKNOWN = "unknown"

_SAME_TOTAL = 0.05
"""CUDA calls a little less than NVML's total a device's own; two devices further apart than this are not the same."""


@dataclass(frozen=True)
class Ram:
    """The machine's RAM and swap. ``groups`` are the control groups that bind the engine, innermost first."""

    capacity_bytes: int | None
    available_bytes: int | None
    swap_total_bytes: int | None
    swap_used_bytes: int | None


class Machine:
    """Reads all domains. ``root`` stands for "/" and ``nvml`` for the driver in tests."""

    def __init__(self, root: Path = Path("/"), nvml: Nvml | None = None) -> None:
        self._root = root
        self._nvml = nvml if nvml is not None else Nvml()
        self._groups: tuple[MemoryGroup, ...] = ()
        self._groups_of: int | None = -1  # no process has this id: the first reading looks
        self._used_before: dict[str, int] = {}

    @property
    def gpu_why(self) -> str:
        """Why no NVIDIA device is read, as a sentence; "" when one is. Known after the first reading."""
        return self._nvml.why

    def read(
        self, engine_pid: int | None = None, devices: Sequence[Device] = (), buffers: Sequence[Buffer] = ()
    ) -> MachineReading:
        """Every domain in one pass.

        ``devices`` is the engine's own list (messages.Started), ``buffers`` what llama.cpp says it allocated
        (messages.ContextFacts): the last resort where a system tells no process's share of a device.
        """
        self._find_groups(engine_pid)
        ram = read_ram(self._root, self._groups)
        holders = () if engine_pid is None else (engine_pid, *descendants(engine_pid, self._root))
        memory = family_memory(holders, self._root)
        return MachineReading(
            (_ram_domain(ram, engine_pid, memory), *self._device_domains(holders, devices, buffers)),
            ram.swap_total_bytes,
            ram.swap_used_bytes,
            memory.swap_bytes if memory else None,
            memory.peak_bytes if memory else None,
            next((peak for peak in (group.peak_bytes() for group in self._groups) if peak is not None), None),
        )

    def _find_groups(self, engine_pid: int | None) -> None:
        if engine_pid != self._groups_of:
            self._groups = memory_groups(engine_pid, self._root) or memory_groups(None, self._root)
            self._groups_of = engine_pid

    def _device_domains(
        self, holders: tuple[int, ...], devices: Sequence[Device], buffers: Sequence[Buffer]
    ) -> Iterable[DomainReading]:
        gpus = self._nvml.read()
        known = [device for device in devices if device.kind in ("gpu", "igpu", "rpc")]
        matched = {gpu.index: device for device, gpu in match_devices(gpus, known)}
        for gpu in gpus:
            device = matched.get(gpu.index)
            name = device.name if device else f"GPU{gpu.index}" if devices else f"CUDA{gpu.index}"
            own, source = self._nvidia_share(gpu, holders, _buffer_bytes(buffers, name))
            if holders and devices and device is None:
                own, source = 0, NOT_USED
            kind = device.kind if device else "gpu"
            yield DomainReading(name, kind, gpu.total_bytes, gpu.free_bytes, own, engine_source=source)
        shown = {device.name for device in matched.values()}
        rest = [device for device in known if device.name not in shown]
        cards = self._cards_with_memory() if any(device.kind == "gpu" for device in rest) else {}
        for device in rest:
            in_buffers, card = _buffer_bytes(buffers, device.name), cards.get(device.device_id)
            if card is not None and device.kind == "gpu":
                yield self._card_domain(device, card, holders, in_buffers)
            else:
                yield self._listed_domain(device, holders, in_buffers)

    def _cards_with_memory(self) -> dict[str, tuple[int, int]]:
        """PCI address -> (used, total) of each card whose driver tells its memory at any time (amdgpu)."""
        return {card.address: card.vram for card in graphics_cards(self._root) if card.vram}

    def _card_domain(
        self, device: Device, vram: tuple[int, int], holders: tuple[int, ...], in_buffers: int | None
    ) -> DomainReading:
        """A card whose memory Linux tells, by the system's own figures: ggml's list is as old as the last load."""
        used, total = vram
        own, source = in_buffers, OWN_BUFFERS if in_buffers is not None else UNKNOWN
        held = held_on_card(holders, device.device_id, self._root)
        if not holders:
            self._used_before[device.device_id] = used
            own, source = 0, NO_ENGINE
        elif held is not None:
            own, source = held, FDINFO
        elif device.device_id in self._used_before:
            own, source = max(0, used - self._used_before[device.device_id]), USED_MINUS_BEFORE
        return DomainReading(device.name, device.kind, total, max(0, total - used), own, engine_source=source)

    def _nvidia_share(
        self, gpu: GpuReading, holders: tuple[int, ...], in_buffers: int | None
    ) -> tuple[int | None, str]:
        """The engine's bytes on an NVIDIA device, by the best source that this system has."""
        used, key = _difference(gpu.total_bytes, gpu.free_bytes), f"NVML {gpu.index}"
        if not holders:
            if used is not None:
                self._used_before[key] = used
            return 0, NO_ENGINE
        held = [gpu.process_bytes[pid] for pid in holders if gpu.process_bytes and pid in gpu.process_bytes]
        if held:
            return sum(held), PER_PROCESS
        before = self._used_before.get(key)
        if used is not None and before is not None:
            return max(0, used - before), USED_MINUS_BEFORE
        return in_buffers, OWN_BUFFERS if in_buffers is not None else UNKNOWN

    def _listed_domain(self, device: Device, holders: tuple[int, ...], in_buffers: int | None) -> DomainReading:
        """A device that only ggml's list knows: AMD, Intel, Apple, a worker on the network.

        The list may be older than the load, and ggml calls all memory of a worker without a GPU free; so where
        llama.cpp's own buffers are more than what the list shows as taken, they count and come off the free memory.
        """
        total, free = device.total_bytes, device.free_bytes
        own, source, late = None, UNKNOWN, 0
        if not holders:
            own, source = 0, NO_ENGINE
        elif total is not None and free is not None and free < total:
            own = max(0, total - free - self._used_before.setdefault(f"{holders[0]} {device.name}", total - free))
            source = USED_MINUS_BEFORE
        if holders and in_buffers is not None and in_buffers > (own or 0):
            late = in_buffers - (own or 0)
            own, source = in_buffers, OWN_BUFFERS
        return DomainReading(device.name, device.kind, total, _difference(free, late), own, engine_source=source)


@functools.cache
def _this_machine() -> Machine:
    return Machine()


def read_domains(
    engine_pid: int | None = None, devices: Sequence[Device] = (), buffers: Sequence[Buffer] = ()
) -> tuple[DomainReading, ...]:
    """This machine's domains now; ``Machine.read`` has the parameters and the rest of the figures."""
    return _this_machine().read(engine_pid, devices, buffers).domains


def match_devices(gpus: Sequence[GpuReading], devices: Sequence[Device]) -> list[tuple[Device, GpuReading]]:
    """Which of ggml's devices is which of NVML's.

    The PCI address decides. Where ggml gives none, name and size do, if they leave one candidate: CUDA numbers devices by
    speed and hides some, NVML by PCI slot, so of two equal cards either could be meant and neither is taken.
    """
    by_address = {gpu.bus_id: gpu for gpu in gpus if gpu.bus_id}
    matched = [
        (device, by_address[device.device_id])
        for device in devices
        if device.device_id and device.device_id in by_address
    ]
    for device in devices:
        if device.device_id or device.kind == "rpc":
            continue
        alike = [gpu for gpu in gpus if gpu.description == device.description and _same_size(gpu, device)]
        twins = [other for other in devices if other is not device and other.description == device.description]
        if len(alike) == 1 and not twins:
            matched.append((device, alike[0]))
    return matched


def read_ram(root: Path = Path("/"), groups: Sequence[MemoryGroup] = ()) -> Ram:
    """RAM as the engine may use it: the machine's, cut down to the tightest control group."""
    if sys.platform == "win32":
        total, available, swap_total, swap_free = _windows_ram()
    elif sys.platform == "linux":
        fields = kib_fields(read_text(root / "proc/meminfo") or "")
        total, available = fields.get("MemTotal"), fields.get("MemAvailable")
        swap_total, swap_free = fields.get("SwapTotal"), fields.get("SwapFree")
    else:
        total, available, swap_total, swap_free = _other_ram()
    return Ram(
        _least([total, *(group.limit_bytes() for group in groups)]),
        _least([available, *(group.available_bytes() for group in groups)]),
        swap_total,
        _difference(swap_total, swap_free),
    )


def _ram_domain(ram: Ram, engine_pid: int | None, memory: ProcessMemory | None) -> DomainReading:
    if engine_pid is None:
        return DomainReading("RAM", "ram", ram.capacity_bytes, ram.available_bytes, 0, 0, 0, NO_ENGINE)
    if memory is None:
        return DomainReading("RAM", "ram", ram.capacity_bytes, ram.available_bytes, engine_source=UNKNOWN)
    return DomainReading(
        "RAM",
        "ram",
        ram.capacity_bytes,
        ram.available_bytes,
        memory.resident_bytes,
        memory.anonymous_bytes,
        memory.file_bytes,
        memory.source,
    )


def _buffer_bytes(buffers: Sequence[Buffer], name: str) -> int | None:
    """What llama.cpp allocated on a device; None while it has said nothing at all."""
    return sum(buffer.size_bytes for buffer in buffers if buffer.device == name) if buffers else None


def _same_size(gpu: GpuReading, device: Device) -> bool:
    if gpu.total_bytes is None or device.total_bytes is None:
        return True
    return abs(gpu.total_bytes - device.total_bytes) <= _SAME_TOTAL * gpu.total_bytes


def _least(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _difference(whole: int | None, part: int | None) -> int | None:
    return None if whole is None or part is None else max(0, whole - part)


class _MemoryStatusEx(ctypes.Structure):
    """``MEMORYSTATUSEX`` of Windows <sysinfoapi.h>."""

    _fields_ = (
        ("dwLength", ctypes.c_uint32),
        ("dwMemoryLoad", ctypes.c_uint32),
        *((f"ull{name}", ctypes.c_uint64) for name in ("TotalPhys", "AvailPhys", "TotalPageFile", "AvailPageFile")),
        *((f"ull{name}", ctypes.c_uint64) for name in ("TotalVirtual", "AvailVirtual", "AvailExtendedVirtual")),
    )


def _windows_ram() -> tuple[int | None, int | None, int | None, int | None]:
    """Never run. Windows promises every committed byte, so what is left of the commit limit binds like free RAM does."""
    if sys.platform != "win32":
        return None, None, None, None
    status = _MemoryStatusEx()
    status.dwLength = ctypes.sizeof(status)
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None, None, None, None
    page_file = max(0, status.ullTotalPageFile - status.ullTotalPhys)
    left = status.ullAvailPageFile
    return status.ullTotalPhys, min(status.ullAvailPhys, left), page_file, min(page_file, left)


def _other_ram() -> tuple[int | None, int | None, int | None, int | None]:
    """macOS, never run: inactive and free pages count as available; swap grows by itself and is shown apart."""
    import psutil

    try:
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    except (OSError, psutil.Error):
        return None, None, None, None
    return memory.total, memory.available, swap.total, swap.free
