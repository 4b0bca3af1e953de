"""What only a first load can tell, learned per machine and model, and how well every prediction was met.

One JSON file; a damaged one is started anew. Only the constants that MEMORY.md names are learned: what a process holds
beside llama.cpp's buffers in RAM, and a GPU's context. Used from one thread at a time.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from kvdesk.backend.atomic_file import write_file
from kvdesk.backend.gguf.header import ArraySummary
from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.planning.device_plan import RAM, Overhead, domain_name
from kvdesk.backend.planning.plan import MemoryPlan
from kvdesk.backend.protocol.facts import Buffer, BufferKind, Device
from kvdesk.backend.protocol.footprint import Footprint
from kvdesk.sizes import MIB

log = logging.getLogger(__name__)

HISTORY_KEPT = 200

PROCESS_BYTES = 52 * MIB
"""An engine process without a model: Python, our code, llama.cpp's libraries (Linux: 49 MiB before, 52 after a two-layer
model answered)."""
TOKEN_BYTES = 150
"""llama.cpp's vocabulary per token (150 with 32,000 tokens, 160 with the starter's 262,144, 170 with 131,072)."""
MERGE_BYTES = 130
"""llama.cpp's table of BPE merges, per merge (measured with 50,000, 151,387 and 280,147)."""
TENSOR_BYTES = 9 * 1024
"""Tensor metadata, worst-case graphs and schedules, per weight tensor (measured with 80 layers against 2)."""
CELL_BYTES = 52
"""Bookkeeping of a KV cell (llama-kv-cells.h): position, shift, 2D position, one bit for each of 256 sequences."""
CUDA_CONTEXT_BYTES = 620 * MIB
"""What CUDA takes of a card beside llama.cpp's buffers: context, kernels, cuBLAS (H100, driver 580: 588 MiB after the load,
618 after a reply; smaller cards take less). Without it the longest context that "fits" did not."""
CUDA_RAM_BYTES = 390 * MIB
"""What CUDA takes of RAM (the same H100 less a machine without a card, one chat on each: 225 MiB of its own and 163 MiB of its
libraries' pages)."""
CUDA = "CUDA"
"""What ggml's names of CUDA devices begin with."""


@dataclass(frozen=True)
class ComparisonRow:
    """One component of one domain. ``actual_bytes`` None: not measured."""

    domain: str
    component: str
    predicted_bytes: int | None
    actual_bytes: int | None

    @property
    def error_bytes(self) -> int | None:
        """Bytes by which the measured size is larger than the predicted one."""
        if self.actual_bytes is None or self.predicted_bytes is None:
            return None
        return self.actual_bytes - self.predicted_bytes


@dataclass(frozen=True)
class Comparison:
    """A plan and what a load made of it. ``time_s`` is Unix time, ``source`` the plan's."""

    time_s: float
    model: str
    n_ctx: int
    type_k: str
    type_v: str
    source: str
    rows: tuple[ComparisonRow, ...]

    def row(self, domain: str, component: str) -> ComparisonRow | None:
        """The row of that component in that domain."""
        return next((r for r in self.rows if (r.domain, r.component) == (domain, component)), None)


def compare(
    plan: MemoryPlan,
    model: ModelFile,
    buffers: Sequence[Buffer],
    held: Mapping[str, int | None],
    checkpoints_bytes: int = 0,
) -> Comparison:
    """Predicted against actual after a load: ``buffers`` as llama.cpp reported them, ``held`` what the engine holds in
    each domain by the system's account (DomainReading.engine_bytes; RAM: resident), None where it cannot be told.

    The actual overhead is what is held beyond the buffers and ``checkpoints_bytes``, what the engine's checkpoints hold now;
    compute buffers count as far as the plan calls them resident.
    """
    rows: list[ComparisonRow] = []
    for device in plan.devices:
        here = [b for b in buffers if domain_name(b.device) == device.name]
        actual = {kind: sum(b.size_bytes for b in here if b.kind is kind) for kind in BufferKind}
        predicted = {
            BufferKind.WEIGHTS: device.weights_bytes,
            BufferKind.KV: device.kv_bytes,
            BufferKind.RECURRENT: device.recurrent_bytes,
            BufferKind.COMPUTE: device.compute_bytes,
            BufferKind.OUTPUT: device.output_bytes,
        }
        rows += [ComparisonRow(device.name, kind.value, predicted[kind], actual[kind]) for kind in BufferKind]
        total = held.get(device.name)
        untouched = device.total_bytes - device.resident_bytes - device.checkpoints_bytes
        kept = checkpoints_bytes if device.name == RAM else 0
        beside = None if total is None else total - (sum(actual.values()) - untouched) - kept
        rows.append(ComparisonRow(device.name, "overhead", device.overhead_bytes, beside))
        expected = min(kept, device.checkpoints_bytes)
        if kept:
            rows.append(ComparisonRow(device.name, "checkpoints", expected, kept))
        rows.append(ComparisonRow(device.name, "total", device.resident_bytes + expected, total))
    context = plan.settings.context
    return Comparison(
        time.time(), model_key(model), plan.n_ctx, context.type_k, context.type_v, plan.source, tuple(rows)
    )


class Calibration:
    """The learned constants and the history, kept in ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._constants: dict[str, int] = {}
        self._history: list[Comparison] = []
        self._load()

    @property
    def history(self) -> tuple[Comparison, ...]:
        """Every load compared, oldest first."""
        return tuple(self._history)

    @property
    def constants(self) -> Mapping[str, int]:
        """What was learned: "RAM MODEL" or a device's name -> bytes, for showing."""
        return dict(self._constants)

    def overheads(self, model: ModelFile, footprint: Footprint) -> dict[str, Overhead]:
        """What each domain of ``footprint`` holds beside llama.cpp's buffers. For a CUDA card never loaded on it is what
        CUDA took elsewhere; of other backends nothing is known."""
        cells = _cell_bytes(footprint)
        learned = self._constants.get(_ram_key(model, footprint.devices))
        usual = typical_bytes(model) + (CUDA_RAM_BYTES if any(map(_is_cuda, footprint.devices)) else 0)
        base = usual if learned is None else learned
        found = {RAM: Overhead(base + cells, learned is not None)}
        for device in footprint.devices:
            if device.kind in ("gpu", "igpu"):
                constant = self._constants.get(_device_key(device.name, device.description))
                context = CUDA_CONTEXT_BYTES if _is_cuda(device) else None
                found[device.name] = Overhead(context if constant is None else constant, constant is not None)
            elif device.kind == "rpc":
                found[device.name] = Overhead(0)  # the worker's own process is not the model's
        return found

    def learn(self, plan: MemoryPlan, model: ModelFile, comparison: Comparison, *, is_fresh: bool = True) -> None:
        """Keep ``comparison``, and of a fresh load take the overheads as this machine's constants. Writes the file."""
        self._history = [*self._history, comparison][-HISTORY_KEPT:]
        for device in plan.devices if is_fresh else ():
            row = comparison.row(device.name, "overhead")
            if row is None or row.actual_bytes is None or row.actual_bytes < 0:
                continue
            if device.name == RAM and plan.footprint:
                self._constants[_ram_key(model, plan.footprint.devices)] = max(
                    0, row.actual_bytes - _cell_bytes(plan.footprint)
                )
            elif device.kind in ("gpu", "igpu"):
                self._constants[_device_key(device.name, device.description)] = row.actual_bytes
        self._save()

    def _load(self) -> None:
        try:
            stored: Any = json.loads(self._path.read_text(encoding="utf-8"))
            self._constants = {str(k): int(v) for k, v in stored["constants"].items()}
            self._history = [_comparison(item) for item in stored["history"]]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("calibration starts anew, %s cannot be used: %s", self._path, error)
            self._constants, self._history = {}, []

    def _save(self) -> None:
        stored = {"constants": self._constants, "history": [asdict(item) for item in self._history]}
        try:
            write_file(self._path, json.dumps(stored))
        except OSError as error:
            log.warning("calibration cannot be kept in %s: %s", self._path, error)


def model_key(model: ModelFile) -> str:
    """What a model is remembered by: its file's name and size, wherever it lies."""
    return f"{model.path.name} ({model.size_bytes} bytes)"


def typical_bytes(model: ModelFile) -> int:
    """The RAM overhead of a model that was never loaded here, KV cells apart."""
    merges = model.metadata.get("tokenizer.ggml.merges")
    n_merges = merges.count if isinstance(merges, ArraySummary) else 0
    return PROCESS_BYTES + TOKEN_BYTES * model.n_vocab + MERGE_BYTES * n_merges + TENSOR_BYTES * len(model.tensors)


def _cell_bytes(footprint: Footprint) -> int:
    streams = footprint.n_ctx // footprint.n_ctx_seq if footprint.n_ctx_seq else 1
    return CELL_BYTES * streams * sum(cache.cells for cache in footprint.caches)


def _ram_key(model: ModelFile, devices: Sequence[Device]) -> str:
    """A card's driver takes RAM, too: what was learned without it says nothing of a load with it."""
    cards = [f"with {_device_key(d.name, d.description)}" for d in devices if d.kind in ("gpu", "igpu")]
    return " ".join((RAM, model_key(model), *cards))


def _is_cuda(device: Device) -> bool:
    return device.kind == "gpu" and device.name.startswith(CUDA)


def _device_key(name: str, description: str) -> str:
    return f"{name} {description}".strip()


def _comparison(item: dict[str, Any]) -> Comparison:
    rows = cast("list[dict[str, Any]]", item["rows"])
    values: dict[str, Any] = {**item, "rows": tuple(ComparisonRow(**row) for row in rows)}
    return Comparison(**values)
