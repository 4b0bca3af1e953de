"""The one table of ggml's types."""

from __future__ import annotations

import subprocess
import sys

from kvdesk.backend.ggml_types import BY_ID, BY_NAME
from kvdesk.backend.settings import BITS_PER_VALUE, CACHE_TYPES, QUANTIZED_CACHE_TYPES


def test_names_and_sizes_are_those_of_this_llama_cpp() -> None:
    script = (
        "import ctypes, llama_cpp.llama_cpp as llama\n"
        "lib = llama._lib\n"
        "lib.ggml_type_name.restype, lib.ggml_type_size.restype = ctypes.c_char_p, ctypes.c_size_t\n"
        "lib.ggml_blck_size.restype = ctypes.c_int64\n"
        "for t in range(43):\n"
        "    print(t, lib.ggml_type_name(t).decode(), lib.ggml_blck_size(t), lib.ggml_type_size(t), sep='|')\n"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout
    rows = [line.split("|") for line in told.splitlines()]
    sizes = {int(number): (name, int(block), int(size)) for number, name, block, size in rows if int(block)}
    assert sizes == {one.id: (one.name, one.block_values, one.block_bytes) for one in BY_ID.values()}


def test_what_settings_say_of_cache_types_comes_from_it() -> None:
    assert {name: BITS_PER_VALUE[name] for name in ("f32", "f16", "bf16", "q8_0", "q5_1", "q4_0")} == {
        "f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q5_1": 6, "q4_0": 4.5,
    }  # fmt: skip
    assert set(CACHE_TYPES) - QUANTIZED_CACHE_TYPES == {"f32", "f16", "bf16"}
    assert BY_NAME["q8_0"].row_bytes(64) == 68
