"""Stands in for the module pynvml: real error classes and struct shapes of nvidia-ml-py, GPUs made up by the test."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pynvml


@dataclass
class FakeGpu:
    """One card. ``processes`` maps pid -> bytes (None: the driver does not tell, as on Windows); ``broken`` names calls that fail."""

    name: str = "NVIDIA GeForce RTX 4090"
    bus_id: bytes = b"00000000:01:00.0"
    total: int = 24 << 30
    free: int = 20 << 30
    processes: dict[int, int | None] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)


class FakePynvml:
    """The calls that kvdesk makes, with the driver's manners: everything may raise NVMLError."""

    def __init__(self, *gpus: FakeGpu, driver: bool = True) -> None:
        self.gpus = gpus
        self.driver = driver
        self.inits = 0

    def nvmlInit(self) -> None:
        self.inits += 1
        if not self.driver:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return self._alive(self.gpus[index], "nvmlDeviceGetHandleByIndex")

    def nvmlDeviceGetName(self, handle: FakeGpu) -> str:
        return self._alive(handle, "nvmlDeviceGetName").name

    def nvmlDeviceGetPciInfo(self, handle: FakeGpu) -> pynvml.nvmlPciInfo_t:
        info = pynvml.nvmlPciInfo_t()
        info.busId = self._alive(handle, "nvmlDeviceGetPciInfo").bus_id
        return info

    def nvmlDeviceGetMemoryInfo(self, handle: FakeGpu) -> pynvml.c_nvmlMemory_t:
        gpu = self._alive(handle, "nvmlDeviceGetMemoryInfo")
        return pynvml.c_nvmlMemory_t(total=gpu.total, free=gpu.free, used=gpu.total - gpu.free)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: FakeGpu) -> list[SimpleNamespace]:
        gpu = self._alive(handle, "nvmlDeviceGetComputeRunningProcesses")
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in gpu.processes.items()]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: FakeGpu) -> list[SimpleNamespace]:
        return self.nvmlDeviceGetComputeRunningProcesses(handle)

    @staticmethod
    def _alive(gpu: FakeGpu, call: str) -> FakeGpu:
        if call in gpu.broken:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return gpu
