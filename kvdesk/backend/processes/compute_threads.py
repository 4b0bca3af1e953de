"""How the threads that compute in a process of ours wait for each other. Environment only, before the libraries are loaded."""

from __future__ import annotations

import os

SPIN_COUNT = 1000
"""Turns that a thread of llama.cpp spins at a barrier before it sleeps: about 50 µs. libgomp's own 300,000 are 4 to 15 ms,
in which it keeps the processor from the very thread it waits for whenever anything else runs (the window, with as many
threads as cores), a few hundred times a token. docs/FIGURES.md has what that costs."""


def share_processors() -> None:
    """Set what the person's environment does not set itself."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy converts cells; more threads only wait for memory
