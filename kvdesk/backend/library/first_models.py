"""The models that a newcomer is offered: a list of our own (resources/first_models.json), and which of it suit a machine.

Each is pinned to a commit and a checksum. What they need is known about, without asking the network; the plan says it
exactly once the header is there. Pure, but for reading the list.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kvdesk.backend.library.hub.repository import RemoteFile, RemoteModel
from kvdesk.sizes import MIB

FILE_NAME = "first_models.json"
SHOWN = 3
N_CTX = 8192
"""The context that they are priced for: what a model is opened with."""
_PROCESS_BYTES = 150 * MIB
"""An engine process beside llama.cpp's buffers, vocabulary included (calibration.py)."""
_COMPUTE_BYTES_PER_TOKEN = 4 * 512
"""Logits of one physical batch of 512 tokens, for each token of the vocabulary: most of a small model's compute buffer."""


@dataclass(frozen=True)
class FirstModel:
    """One offer. ``kv_bytes_per_token`` with f16 caches; ``why`` is what it is good at, in a sentence."""

    name: str
    repo_id: str
    revision: str
    file: str
    size_bytes: int
    sha256: str
    quantization: str
    license: str
    kv_bytes_per_token: int
    n_vocab: int
    why: str

    @property
    def about_bytes(self) -> int:
        """What it takes with N_CTX tokens, about."""
        return (
            self.size_bytes + self.kv_bytes_per_token * N_CTX + _COMPUTE_BYTES_PER_TOKEN * self.n_vocab + _PROCESS_BYTES
        )

    @property
    def remote(self) -> RemoteModel:
        """What is to be downloaded."""
        file = RemoteFile(self.repo_id, self.revision, self.file, self.size_bytes, self.sha256)
        return RemoteModel(self.file.removesuffix(".gguf"), self.quantization, (file,))


def read_first_models(folder: Path) -> tuple[FirstModel, ...]:
    """The list in ``folder``, the smallest first."""
    read = json.loads((folder / FILE_NAME).read_text("utf-8"))
    return tuple(sorted((FirstModel(**values) for values in read), key=lambda model: model.size_bytes))


def suiting(models: Sequence[FirstModel], line_bytes: int | None) -> tuple[FirstModel, ...]:
    """At most SHOWN of ``models`` for a machine with so much memory under its OOM line: the largest that fit, the smallest
    first; the smallest alone where none does or nothing is known."""
    fitting = [model for model in models if line_bytes is not None and model.about_bytes <= line_bytes]
    return tuple((fitting or models[:1])[-SHOWN:])
