"""Real loads in a process of their own, and a dry run held against them, byte by byte."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kvdesk.backend.protocol.facts import BufferKind
from kvdesk.backend.protocol.footprint import Footprint
from kvdesk.backend.settings import EngineSettings

REPOSITORY = Path(__file__).parent.parent
_PARTS = {
    BufferKind.WEIGHTS: "model",
    BufferKind.KV: "context",
    BufferKind.RECURRENT: "context",
    BufferKind.COMPUTE: "compute",
}


class RealLoads:
    """A process that loads for real, one model after another; a new one when a model kills it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def load(self, path: Path, settings: EngineSettings, n_tokens: int = 0) -> dict[str, Any]:
        """What real_load.py told; ``error`` in it when llama.cpp refused or the process died."""
        process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        question = {"path": str(path), "settings": settings.to_dict(), "tokens": n_tokens}
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            self.close()
            return {"error": [f"died with {process.returncode}"]}
        return json.loads(answer)

    def close(self) -> None:
        """End the process; its connections to network workers end with it."""
        if self._process and self._process.stdin and self._process.stdout:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait(timeout=30)
            self._process.stdout.close()
        self._process = None

    def _start(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, os.fspath(REPOSITORY / "tests" / "real_load.py")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join([os.fspath(REPOSITORY), *sys.path]), "GGML_NO_BACKTRACE": "1"},
            )  # fmt: skip
        return self._process


def differences(real: dict[str, Any], planned: Footprint) -> list[str]:
    """Where the dry run and the real load disagree: every buffer type to the byte, what only the log tells to its
    precision. Empty when all is equal."""
    found: list[str] = []
    was, said = _by_buffer_type(real, planned)
    found += [
        f"{key}: {was[key]} allocated, {said[key]} planned" for key in sorted(was | said) if was[key] != said[key]
    ]
    for word, kind in (("KV", BufferKind.KV), ("RS", BufferKind.RECURRENT), ("output", BufferKind.OUTPUT)):
        sizes = [
            float(mib) for line in real["lines"] for mib in re.findall(rf" {word} buffer size = *([\d.]+) MiB", line)
        ]
        states = [
            float(mib) for line in real["lines"] for mib in re.findall(r"DSV4 .* state buffer size = *([\d.]+)", line)
        ]
        logged = sum(sizes) + (sum(states) if word == "RS" else 0)
        planned_mib = planned.bytes_of(kind) / 2**20
        if abs(logged - planned_mib) > 0.0051 * max(1, len(sizes) + len(states)):
            found.append(f"{word}: {logged:.2f} MiB in the log, {planned_mib:.4f} planned")
    if real["n_ctx"] != planned.n_ctx:
        found.append(f"n_ctx: {real['n_ctx']} made, {planned.n_ctx} planned")
    return found


def _by_buffer_type(real: dict[str, Any], planned: Footprint) -> tuple[Counter[Any], Counter[Any]]:
    was, said = Counter[Any](), Counter[Any]()
    for name, device, model, context, compute in real["shares"]:
        for part, size in (("model", model), ("context", context), ("compute", compute)):
            was[device, name, part] += size
    for buffer in planned.buffers:
        if buffer.kind in _PARTS:
            said[buffer.device, buffer.name, _PARTS[buffer.kind]] += buffer.span_bytes or buffer.size_bytes
    return was, said
