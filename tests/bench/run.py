"""Every benchmark, one after the other, each in a process of its own: `make bench`, or ``run.py NAME...`` for some of them.

Figures, never assertions; a benchmark that breaks is said at the end and makes the exit code 1.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = (
    "start_up",
    "engine_speed",
    "window_speed",
    "busy_machine",
    "growth",
    "scale",
    "kv_convert",
    "plan_accuracy",
    "plan_speed",
    "oom_line",
    "resident",
    "monitor_cost",
    "library_speed",
    "download_cost",
    "transcript_cost",
    "table_cost",
    "markdown_speed",
    "chart_cost",
    "at_random",
)
PATIENCE_S = 1200


def main(names: list[str]) -> int:
    """Run ``names``, all when there are none."""
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    broken: list[str] = []
    for name in names or BENCHMARKS:
        print(f"\n== {name}", flush=True)
        begun = time.monotonic()
        try:
            code = subprocess.run(
                [sys.executable, "-m", f"tests.bench.{name}"],
                cwd=ROOT,
                env=environment,
                timeout=PATIENCE_S,
                stderr=subprocess.DEVNULL if name in ("plan_accuracy", "kv_convert") else None,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
        print(f"-- {name}: {time.monotonic() - begun:.0f} s", flush=True)
        if code:
            broken.append(name)
    if broken:
        print(f"\nbroken: {', '.join(broken)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
