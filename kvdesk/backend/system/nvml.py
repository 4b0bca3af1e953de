"""NVIDIA devices through NVML (module ``pynvml`` of nvidia-ml-py): memory per device and per process.

Whatever NVML refuses is None; nothing here raises. Loaded at the first reading, so a window without a GPU pays nothing.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GpuReading:
    """One NVIDIA device. ``index`` is NVML's (PCI order), not CUDA's.

    ``bus_id`` is the PCI address as ggml writes it ("0000:c1:00.0"). ``process_bytes`` maps the process ids that NVML
    sees to what they hold; None where the system does not tell (Windows' WDDM, WSL2), and a process in another
    namespace goes by a number that we do not know.
    """

    index: int
    description: str
    bus_id: str
    total_bytes: int | None
    free_bytes: int | None
    process_bytes: Mapping[int, int] | None


class Nvml:
    """This machine's NVIDIA driver. ``load`` returns the binding (module ``pynvml``); tests hand in one of their own."""

    def __init__(self, load: Callable[[], Any] | None = None) -> None:
        self._load = load or _load_pynvml
        self._binding: Any = None
        self._handles: tuple[Any, ...] | None = None
        self._why = ""
        self._reported: set[str] = set()

    @property
    def why(self) -> str:
        """Why there are no readings, as a sentence; "" when there are. Known after the first ``read``."""
        return self._why

    def read(self) -> tuple[GpuReading, ...]:
        """All devices now; empty where there is no driver or no device."""
        if self._handles is None:
            self._handles = self._open()
        return tuple(self._read_one(index, handle) for index, handle in enumerate(self._handles))

    def _open(self) -> tuple[Any, ...]:
        try:
            self._binding = self._load()
        except ImportError:
            self._why = "NVIDIA's binding (nvidia-ml-py) is not installed, so NVIDIA GPUs are not read."
            return ()
        except OSError:
            self._why = "There is no NVIDIA driver on this machine."
            return ()
        try:
            self._binding.nvmlInit()
            count = int(self._binding.nvmlDeviceGetCount())
        except Exception as error:  # noqa: BLE001  NVML's errors are made at run time and a broken driver raises others
            self._why = f"No NVIDIA driver answers on this machine ({error})."
            return ()
        handles = [self._ask("nvmlDeviceGetHandleByIndex", index) for index in range(count)]
        self._why = "" if count else "The NVIDIA driver knows no GPU."
        return tuple(handles)

    def _read_one(self, index: int, handle: Any) -> GpuReading:
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        pci = self._ask("nvmlDeviceGetPciInfo", handle)
        return GpuReading(
            index,
            _text(self._ask("nvmlDeviceGetName", handle)),
            pci_address(_text(getattr(pci, "busId", ""))),
            None if memory is None else int(memory.total),
            None if memory is None else int(memory.free),
            self._processes(handle),
        )

    def _processes(self, handle: Any) -> dict[int, int] | None:
        """What each process holds; one that computes and draws is in both lists with the same figure."""
        answers = [
            self._ask(call, handle)
            for call in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")
        ]
        if all(answer is None for answer in answers):
            return None
        held: dict[int, int] = {}
        for process in [process for answer in answers for process in answer or ()]:
            if process.usedGpuMemory is not None:
                held[int(process.pid)] = max(held.get(int(process.pid), 0), int(process.usedGpuMemory))
        return held

    def _ask(self, call: str, argument: Any) -> Any:
        """The binding's answer, or None for any failure; each call's first failure is logged."""
        if argument is None:
            return None
        try:
            return getattr(self._binding, call)(argument)
        except Exception as error:  # noqa: BLE001  as above; a lost GPU must not end the monitor
            if call not in self._reported:
                self._reported.add(call)
                log.info("%s: %s", call, error)
            return None


def _load_pynvml() -> Any:
    """The binding; OSError where the driver's library is missing, found out before the binding takes its megabytes."""
    if sys.platform == "linux":
        ctypes.CDLL("libnvidia-ml.so.1")
    return importlib.import_module("pynvml")


def pci_address(text: str) -> str:
    """A PCI address as ggml writes it: "00000000:C1:00.0" becomes "0000:c1:00.0"; "" for what is none."""
    match = re.fullmatch(r"([0-9a-f]{4,8}):([0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])", text.strip().lower())
    return f"{int(match[1], 16):04x}:{match[2]}" if match else ""


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
