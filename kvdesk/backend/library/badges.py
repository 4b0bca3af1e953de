"""Fit badges: the plan of models on this disk, and of models on the hub by their headers alone. Blocking, one thread.

Joins headers, prices and the machine's memory for lists of models; what a badge means is planning/fit.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kvdesk import paths
from kvdesk.backend.gguf.model_file import ModelFile, read_model_file
from kvdesk.backend.library.hub.hub import Hub
from kvdesk.backend.library.hub.remote_header import fetch_headers
from kvdesk.backend.library.hub.repository import RemoteModel
from kvdesk.backend.planning.calibration import Calibration
from kvdesk.backend.planning.described_machine import DescribedMachine
from kvdesk.backend.planning.fit import UNKNOWN, Fit, fit_of
from kvdesk.backend.planning.pricer import Pricer
from kvdesk.backend.protocol.facts import Device
from kvdesk.backend.settings import AUTOMATIC_MARGIN, EngineSettings
from kvdesk.backend.system.cpu_fallback import remembered
from kvdesk.backend.system.machine import read_domains
from kvdesk.backend.system.samples import DomainReading
from kvdesk.backend.system.temporary_folder import temporary_folder
from kvdesk.errors import HubError, ModelFileError

DEFAULT_SETTINGS = EngineSettings()


class Badges:
    """Prices models with ``settings``, keeping ``margin_bytes`` free."""

    def __init__(
        self,
        settings: EngineSettings = DEFAULT_SETTINGS,
        margin_bytes: int = AUTOMATIC_MARGIN,
        machine: DescribedMachine | None = None,
    ) -> None:
        """``machine`` is another one to price for; None is this."""
        settings = replace(settings, model=remembered(settings.model, paths.fallback_file()))
        self._settings = machine.applied_to(settings) if machine else settings
        self._margin_bytes = margin_bytes
        self._machine = machine

    def of_file(self, path: Path) -> Fit:
        """How the model in ``path`` fits; a file that is no model (any more) is unknown, and the sentence says why."""
        try:
            return self._of(read_model_file(path))
        except ModelFileError as error:
            return Fit(UNKNOWN, str(error))

    def of_remote(self, hub: Hub, model: RemoteModel) -> Fit:
        """How ``model`` would fit, by its header alone: nothing else of it is fetched."""
        with temporary_folder("header") as folder:
            try:
                return self._of(fetch_headers(hub, model, Path(folder)))
            except (HubError, ModelFileError) as error:
                return Fit(UNKNOWN, str(error))

    def ram_line_bytes(self) -> int | None:
        """This machine's OOM line in RAM now; None where it cannot be told."""
        ram = next((domain for domain in read_domains() if domain.kind == "ram"), None)
        return ram.oom_line(self._margin_bytes) if ram else None

    def _of(self, model: ModelFile) -> Fit:
        with Pricer(model, Calibration(paths.calibration_file()), self._margin_bytes) as pricer:
            return fit_of(pricer, self._settings, self._read)

    def _read(self, devices: Sequence[Device]) -> Sequence[DomainReading]:
        return self._machine.readings if self._machine else read_domains(devices=devices)
