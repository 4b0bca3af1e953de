"""What a process of ours prints, llama.cpp's words and a fault's stack included, goes into a log file. At its start."""

from __future__ import annotations

import faulthandler
import os
import sys


def print_to(log_path: str, *, append: bool = False) -> None:
    """Send standard output and error to ``log_path`` (0600), which is begun anew unless ``append``."""
    file = os.open(log_path, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC), 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    faulthandler.enable(file=2, all_threads=True)
