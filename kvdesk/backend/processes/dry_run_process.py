"""The dry-run helper process: prices configurations of one model with llama.cpp itself, allocating nothing. No Qt.

Answers questions off a pipe, one by one; ends when the pipe does. It may die of a hostile file or setting (llama.cpp
aborts): dry_run.py sees that and goes on without it.
"""

from __future__ import annotations

import os
import signal
from collections import OrderedDict
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from kvdesk.backend.gguf.header import Tensor
from kvdesk.backend.processes.output import print_to
from kvdesk.backend.protocol.footprint import DESCRIBED_DEVICE, Footprint
from kvdesk.backend.settings import EngineSettings, ModelSettings
from kvdesk.errors import KvdeskError, PlanError, SettingsError

if TYPE_CHECKING:
    from kvdesk.backend.llama.sizing.no_alloc_model import PlannedModel

_HIDDEN_BY = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR")
"""Variables that hide this machine's own devices from llama.cpp's backends when they are empty."""
_KEPT_MODELS = 4
"""Opened variants of the model (GPU layers, repacking) kept at once; each is some megabytes."""


@dataclass(frozen=True)
class Subject:
    """The model to be priced: what the helper must know of its header. ``n_vocab`` counts rows of the embedding where
    the file has no vocabulary; ``loadable`` when all its tensors' data is there."""

    part_paths: tuple[Path, ...]
    architecture: str
    n_vocab: int
    tensors: tuple[Tensor, ...]
    loadable: bool


@dataclass(frozen=True)
class TryRepacking:
    """Asks the helper to compute with the CPU's repacked weights, which kills it where that does not work."""


@dataclass(frozen=True)
class Answer:
    """One is set: the price, why llama.cpp refuses the settings, or why it cannot plan at all. None is: the helper lives."""

    footprint: Footprint | None = None
    refusal: str = ""
    failure: str = ""


def helper_main(
    connection: Connection, log_path: str, subject: Subject, folder: str, rpc_servers: tuple[str, ...]
) -> None:
    """Entry of the helper process: one Answer to every EngineSettings or TryRepacking.

    ``folder`` takes the header copies and is the parent's to remove; ``rpc_servers`` become devices for the life of
    the process (ggml cannot forget one).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print_to(log_path)
    helper = _Helper(subject, Path(folder), rpc_servers)
    while True:
        try:
            question: EngineSettings | TryRepacking = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(helper.answer(question))


class _Helper:
    """One model's headers, opened once for every variant of model settings asked about."""

    def __init__(self, subject: Subject, folder: Path, rpc_servers: tuple[str, ...]) -> None:
        self._subject = subject
        self._folder = folder
        self._rpc_servers = rpc_servers
        self._copy: Path | None = None
        self._models: OrderedDict[ModelSettings, PlannedModel] = OrderedDict()
        self._stand_ins: dict[str, str] = {}
        self._described: dict[str, str] = {}
        self._connected = False

    def answer(self, question: EngineSettings | TryRepacking) -> Answer:
        """What ``question`` asks for, or why not."""
        try:
            if isinstance(question, TryRepacking):
                from kvdesk.backend.llama.sizing.repack_probe import try_extra_buffer_types

                try_extra_buffer_types()
                return Answer()
            return Answer(self._footprint(question))
        except SettingsError as error:
            return Answer(refusal=str(error))
        except KvdeskError as error:
            return Answer(failure=str(error))

    def _footprint(self, settings: EngineSettings) -> Footprint:
        from kvdesk.backend.llama.sizing.local_rpc_server import as_described, renamed

        self._connect()
        footprint = self._model(settings.model).footprint(settings.context)
        return renamed(as_described(footprint, self._described), self._stand_ins)

    def _connect(self) -> None:
        """Make every network worker a device of this process; one that is busy is replaced by a server in here, as is a
        device that is only described."""
        from kvdesk.backend.llama import library
        from kvdesk.backend.llama.sizing import local_rpc_server

        if self._connected:
            return
        if any(endpoint.startswith(DESCRIBED_DEVICE) for endpoint in self._rpc_servers):
            os.environ.update(dict.fromkeys(_HIDDEN_BY, ""))  # another machine is planned for: not with this one's GPUs
        library.start()
        for endpoint in self._rpc_servers:
            if endpoint.startswith(DESCRIBED_DEVICE):
                address = local_rpc_server.start()
                self._described[address] = endpoint.removeprefix(DESCRIBED_DEVICE)
            elif local_rpc_server.is_busy(endpoint):
                address = local_rpc_server.start()
                self._stand_ins[address] = endpoint
            else:
                address = endpoint
            library.add_rpc_server(address)
        self._connected = True

    def _model(self, settings: ModelSettings) -> PlannedModel:
        model = self._models.get(settings)
        if model is None:
            if len(self._models) >= _KEPT_MODELS:
                self._models.popitem(last=False)[1].close()
            model = self._models[settings] = self._open(settings)
        self._models.move_to_end(settings)
        return model

    def _open(self, settings: ModelSettings) -> PlannedModel:
        from kvdesk.backend.llama.sizing.header_only_copy import write_header_copies
        from kvdesk.backend.llama.sizing.no_alloc_model import PlannedModel

        subject = self._subject
        try:
            if self._copy is None:
                self._copy = write_header_copies(
                    subject.part_paths, self._folder, subject.architecture, subject.n_vocab
                )
            return PlannedModel(self._copy, settings, subject.tensors)
        except PlanError:
            if not subject.loadable:
                raise
        # an architecture that wants more of the vocabulary than its size
        return PlannedModel(subject.part_paths[0], settings, subject.tensors)
