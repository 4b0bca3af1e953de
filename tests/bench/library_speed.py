"""What the model library costs: 500 models with the vocabulary of the starter (262,144 tokens), headers cold and cached, and
the plan behind one fit badge. Prints a table.

    python -m tests.bench.library_speed [--models 500]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from kvdesk.backend.gguf.header import read_header
from kvdesk.backend.gguf.model_file import read_model_file
from kvdesk.backend.library.models import ModelList, starter_model
from kvdesk.backend.library.places import Place
from kvdesk.backend.planning.calibration import Calibration
from kvdesk.backend.planning.fit import fit_of
from kvdesk.backend.planning.pricer import Pricer
from kvdesk.backend.settings import EngineSettings
from kvdesk.backend.system.machine import read_domains


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=500)
    n_models = parser.parse_args().models
    starter = starter_model()
    assert starter is not None, "the starter package is part of the locked requirements"
    with tempfile.TemporaryDirectory() as folder:
        place, cache = Place("folder", Path(folder, "models")), Path(folder, "list.json")
        write_headers(starter, place.folder, n_models)
        for name in ("headers cold", "headers cached"):
            begun = time.perf_counter()
            walk = ModelList(cache).entries([place])
            next(walk)
            first = time.perf_counter() - begun
            count = 1 + sum(1 for _ in walk)
            print(
                f"{name:16} {count} models in {time.perf_counter() - begun:6.2f} s, the first after {first * 1000:4.0f} ms"
            )
        begun = time.perf_counter()
        with Pricer(read_model_file(starter), Calibration(Path(folder, "none.json"))) as pricer:
            fit_of(pricer, EngineSettings(), lambda devices: read_domains(devices=devices))
        print(f"{'fit badge':16} {(time.perf_counter() - begun) * 1000:.0f} ms a model")


def write_headers(starter: Path, folder: Path, n_models: int) -> None:
    """Sparse files as large as the starter, with its header and nothing else, dropped from the page cache."""
    header = starter.read_bytes()[: read_header(starter).data_offset]
    for number in range(n_models):
        path = folder / f"owner{number % 20}" / f"model-{number}.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(header)
            file.truncate(starter.stat().st_size)
            file.flush()
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
