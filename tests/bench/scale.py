"""Growing and converting a cache like an 8B model's: 32 layers, 8 KV heads of 128, 128 KiB a token. Weights are tiny.

python -m tests.bench.scale [--tokens 8192] [--rounds 3]

Runs the engine's own code in this process, once with the C library's small pages and once with huge ones, as the engine has
them. The cells are made by repeating a few read ones, since reading so many takes minutes.
"""

from __future__ import annotations

import argparse
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.bench.engine_speed import load_words, show
from tests.tiny_models import write_tiny

READ = 512
"""Tokens that are really read."""
TYPES = ("q8_0", "q4_0", "f16")


def model_file(folder: Path) -> Path:
    sizes = {"n_layer": 32, "n_embd": 256, "n_head": 8, "n_head_kv": 8, "n_ff": 256, "n_ctx_train": 65_536}
    return write_tiny("llama", folder, **sizes, attention__key_length=128, attention__value_length=128)


def repeated(state: memoryview, times: int) -> bytearray:
    """A saved state of READ cells, ``times`` over, at positions that go on."""
    from kvdesk.backend.llama.kv.state import cell_records, describe_state

    block = describe_state(state).blocks[0]
    longer = bytearray(state[: block.meta[0] - 4]) + struct.pack("<I", times * READ)
    records = np.tile(cell_records(state, block), (times, 1))
    records[:, 0] = np.arange(times * READ)
    longer += records.tobytes()
    at = block.meta[1]
    for tensor in (*block.keys, *block.values):
        end = tensor.start + tensor.cell_bytes * READ
        longer += state[at : tensor.start]
        longer += bytes(state[tensor.start : end]) * times
        at = end
    return longer + state[at:]


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """(seconds, GiB of the process at its peak) of ``work``."""
    Path("/proc/self/clear_refs").write_text("5")
    begun = time.perf_counter()
    work()
    seconds = time.perf_counter() - begun
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert peak
    return seconds, int(peak[1]) / 2**20


def child(path: str, n_tokens: int, rounds: int) -> None:
    """Grow to twice as many cells and convert through TYPES; a line each."""
    from kvdesk.backend.gguf.model_file import read_model_file
    from kvdesk.backend.llama import library
    from kvdesk.backend.llama.abort_flag import AbortFlag
    from kvdesk.backend.llama.kv.conversation_cells import ConversationCells
    from kvdesk.backend.llama.kv.growth_question import always_grow
    from kvdesk.backend.llama.kv.transfer import restore_sequence, save_sequence
    from kvdesk.backend.llama.model import Model
    from kvdesk.backend.settings import ContextSettings, ModelSettings

    library.start()
    model = Model(path, ModelSettings(use_extra_bufts=False), positions=read_model_file(Path(path)).positions)
    small = n_tokens + 256
    cells = ConversationCells(model, ContextSettings(n_ctx=65_536, initial_ctx=small), AbortFlag())
    read = [300 + i % 100 for i in range(READ)]
    cells.feed(read, always_grow)
    assert restore_sequence(cells.context.ptr, repeated(save_sequence(cells.context.ptr), n_tokens // READ))
    cells.tokens = read * (n_tokens // READ)
    gib = cells.kv().bytes_used / 2**30
    for number in range(rounds):
        seconds, peak = timed(lambda: cells.resize(2 * n_tokens))
        first = " (the first: a virtual machine's host may hand the memory over only now)" if not number else ""
        show(f"grow to twice {n_tokens:,} tokens", f"{seconds / gib:.2f} s/GiB", f"peak {peak:.2f} GiB{first}")
        cells.resize(small)
    for name in TYPES * min(rounds, 2):
        before = cells.settings.type_k
        seconds, peak = timed(lambda name=name: cells.change(replace(cells.settings, type_k=name, type_v=name)))
        show(f"convert {before} to {name}, a GiB as f16", f"{seconds / gib:.2f} s/GiB", f"peak {peak:.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.model:
        child(options.model, options.tokens, options.rounds)
        return
    print(load_words())
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "tests.bench.scale", "--model", str(model_file(Path(name)))]
        command += ["--tokens", str(options.tokens), "--rounds", str(options.rounds)]
        for pages, tunable in (("small pages", 0), ("huge pages", 1)) * 2:
            print(pages, flush=True)
            tunables = {"GLIBC_TUNABLES": f"glibc.malloc.hugetlb={tunable}", "OPENBLAS_NUM_THREADS": "1"}
            subprocess.run(command, env={**os.environ, **tunables}, stderr=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
