"""ggml's backends: loading them from our own folder and nowhere else, and what became of each. Engine and helpers only.

A build for everybody has each backend, and each kind of CPU, in a library of its own. llama.cpp by itself would look for
them beside the interpreter and in the current directory, where anybody could have put one.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvdesk.backend.protocol.facts import Backend

_LOADED = re.compile(r"load_backend: loaded (\S+) backend from (.+)$")
_LIBRARY = re.compile(r"(?:lib)?ggml-([a-z0-9]+)(?:-([a-z0-9_]+))?\.(?:so|dll|dylib)$")
_NO_BACKENDS = {"base", "cpu"}
"""Libraries named like backends: the base that all share, and the CPU's, of which the log names the one that was taken."""
_NAMES = {
    "cuda": "CUDA",
    "hip": "ROCm",
    "vulkan": "Vulkan",
    "metal": "Metal",
    "sycl": "SYCL",
    "rpc": "RPC",
    "blas": "BLAS",
}


def folder_of(ggml: Any) -> Path:
    """Where llama.cpp's libraries lie, ours alone. ``ggml`` is the ctypes handle of libllama."""
    return Path(ggml._name).parent


def load(ggml: Any) -> None:
    """Load every backend from our folder, unless they are linked in. To be called before anything else of llama.cpp."""
    ggml.ggml_backend_reg_count.restype = ctypes.c_size_t
    if not ggml.ggml_backend_reg_count():
        ggml.ggml_backend_load_all_from_path.argtypes = [ctypes.c_char_p]
        ggml.ggml_backend_load_all_from_path.restype = None
        ggml.ggml_backend_load_all_from_path(os.fsencode(folder_of(ggml)))


def found(registered: Sequence[str], folder: Path, log_lines: Sequence[str]) -> tuple[Backend, ...]:
    """What is in use and what is there but is not, and why. ``registered`` are ggml's names, ``log_lines`` what it said
    while it loaded them."""
    files = {name: Path(file).name for name, file in (m.groups() for m in map(_LOADED.search, log_lines) if m)}
    in_use = [Backend(name, files.get(name, ""), _variant(files.get(name, ""))) for name in registered]
    taken = {backend.file for backend in in_use} | {_file_of(name, folder) for name in registered}
    return (*in_use, *(_unused(path) for path in _optional(folder) if path.name not in taken))


def first_of_each_card(cards: Sequence[str]) -> list[int]:
    """Which devices llama.cpp uses, by index: of those with the same PCI address the first, whose backend registered first
    and is the faster (llama.cpp, llama_prepare_model_devices). ``cards`` are the addresses, "" for what is no card."""
    return [index for index, card in enumerate(cards) if not card or card not in cards[:index]]


def _optional(folder: Path) -> list[Path]:
    """The libraries in ``folder`` that hold a backend other than a CPU's, each once."""
    named = [(path, _LIBRARY.match(path.name)) for path in sorted(folder.glob("*ggml-*"))]
    return [path for path, name in named if name and name[1] not in _NO_BACKENDS]


def _file_of(registered: str, folder: Path) -> str:
    """The library of a backend that is linked in, where it is one."""
    return next((path.name for path in _optional(folder) if _name(path).casefold() == registered.casefold()), "")


def _name(path: Path) -> str:
    matched = _LIBRARY.match(path.name)
    return _NAMES.get(matched[1], matched[1]) if matched else path.name


def _variant(file: str) -> str:
    """ "haswell" of libggml-cpu-haswell.so: the kind of CPU that it was compiled for."""
    matched = _LIBRARY.match(file)
    return (matched[2] or "") if matched else ""


def _unused(path: Path) -> Backend:
    """llama.cpp does not say why a library did not load: ask the system's loader."""
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        return Backend(_name(path), path.name, why=str(error).removeprefix(f"{path}: "))
    return Backend(_name(path), path.name, why="it found no device that it can use")
