"""How fast the plan is, on the starter: helper, single configurations, a curve, ``kvdesk plan`` cold. Prints a table.

python -m tests.bench.plan_speed
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

TYPES = [("f16", "f16"), ("q8_0", "q8_0"), ("q4_0", "q4_0")]


def main() -> int:
    """Print what was measured beside what is promised; 1 when a promise is missed."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["KVDESK_HOME"] = home
        return measure(Path(home))


def measure(home: Path) -> int:
    """The rows."""
    from kvdesk.backend.gguf.model_file import read_model_file
    from kvdesk.backend.library.models import starter_model
    from kvdesk.backend.planning.calibration import Calibration
    from kvdesk.backend.planning.dry_run import DryRun
    from kvdesk.backend.planning.pricer import Pricer
    from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
    from kvdesk.backend.system.machine import read_domains

    path = starter_model()
    if path is None:
        print("The starter model is not installed.")
        return 1
    settings = EngineSettings(ModelSettings(use_extra_bufts=False), ContextSettings())
    model = read_model_file(path)
    readings = read_domains()
    rows: list[tuple[str, float, float]] = [("header facts", timed(lambda: read_model_file(path)), 150)]

    def opened() -> None:
        with DryRun(model) as dry_run:
            dry_run.ask(settings)

    rows.append(("helper opened, first answer", timed(opened), 1500))
    with DryRun(model) as dry_run:
        dry_run.ask(settings)
        single: list[float] = []
        for n_ctx in range(512, 512 + 64 * 256, 256):
            asked = replace(settings, context=ContextSettings(n_ctx=n_ctx, n_ubatch=256))
            started = time.perf_counter()
            dry_run.ask(asked)
            single.append((time.perf_counter() - started) * 1000)
    rows.append(("one configuration (median of 64)", median(single), 10))
    with Pricer(model, Calibration(home / "calibration.json")) as pricer:
        pricer.footprint(settings)
        rows.append(("curve, 128 points, 3 types", timed(lambda: pricer.curve(settings, TYPES, readings), 1), 2000))
        moves: list[float] = []
        for n_ctx in range(2048, 2048 + 32 * 256, 256):
            asked = replace(settings, context=ContextSettings(n_ctx=n_ctx))
            started = time.perf_counter()
            pricer.plan(asked, readings)
            moves.append((time.perf_counter() - started) * 1000)
        rows.append(("slider move priced (slowest of 32)", max(moves), 50))
    command = [sys.executable, "-m", "kvdesk", "plan", str(path), "--json"]
    rows.append(("kvdesk plan, cold", timed(lambda: subprocess.run(command, check=True, capture_output=True)), 2500))
    for name, ms, promised in rows:
        print(f"{name:36}{ms:>9.1f} ms   promised {promised:>5.0f} ms{'' if ms <= promised else '   MISSED'}")
    return int(any(ms > promised for _, ms, promised in rows))


def timed(work: Callable[[], object], times: int = 3) -> float:
    """The best of ``times`` runs in milliseconds."""
    best = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        work()
        best = min(best, (time.perf_counter() - started) * 1000)
    return best


if __name__ == "__main__":
    sys.exit(main())
