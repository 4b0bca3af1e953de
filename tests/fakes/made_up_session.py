"""Samples made up by number, and sessions of them recorded by the real recorder. Cheap to import: child processes do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvdesk.backend.protocol.facts import KvState
from kvdesk.backend.session_log.recorder import Recorder
from kvdesk.backend.system.samples import DomainReading, MachineReading, Sample

KIB, GIB = 1024, 1024**3


def sample(i: int, *, gpu: bool = True, state: str = "ready") -> Sample:
    ram = DomainReading("RAM", "ram", 16 * GIB, 9 * GIB - i * KIB, GIB + i * KIB, i * KIB, GIB, "kernel counters")
    card = DomainReading("CUDA0", "gpu", 8 * GIB, 4 * GIB, 3 * GIB + i * KIB, engine_source="NVML, per process")
    return Sample(
        1.7e9 + i / 2,
        1000.0 + i / 2,
        MachineReading((ram, card) if gpu else (ram,), 2 * GIB, 0, 0, GIB + i * KIB, 5 * GIB),
        4711,
        KvState(i, 8192, i * 1000, 8_192_000),
        20.5 if i % 3 else None,
        state,
        (("RAM", 2 * GIB), ("CUDA0", 4 * GIB)),
    )


@contextmanager
def recording(folder: Path, app: str = "window", **more: object) -> Iterator[Recorder]:
    recorder = Recorder(folder, app, "0.1.0", **more)
    try:
        yield recorder
    finally:
        recorder.close()


def recorded(folder: Path, n: int, app: str = "window") -> Path:
    """A session of ``n`` samples, closed in order."""
    with recording(folder, app, details={"llama-cpp-python": "0.3.36"}) as recorder:
        recorder.event("load", "Loading gemma", {"model": "gemma", "settings": {"context": {"n_ctx": 8192}}})
        for i in range(n):
            recorder.sample(sample(i))
            if i == n // 2:
                recorder.event("grow", "Grew to 4,096", {"from_cells": 2048, "to_cells": 4096})
    return recorder.path
