"""The frozen folder's shared libraries on Linux: each once, each finding the others by itself, none that nobody needs.

PyInstaller's programs find their libraries by LD_LIBRARY_PATH alone. The engine runs without it, so that the system's GPU
drivers find the system's libraries; every library gets a run path of its own instead. Uses the tool ``patchelf``.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

PATCHELF = str(Path(sys.executable).with_name("patchelf"))
_GLIBC = re.compile(rb"GLIBC_(\d+)\.(\d+)(?:\.\d+)?\x00")


def is_elf(path: Path) -> bool:
    """Whether ``path`` is a program or library, and no link to one."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def elf_files(folder: Path) -> list[Path]:
    """Every program and library under ``folder``, sorted."""
    return sorted(path for path in folder.rglob("*") if is_elf(path))


def needed(path: Path) -> list[str]:
    """The libraries that ``path`` is linked with (DT_NEEDED), by name."""
    return _patchelf("--print-needed", path).split()


def glibc_floor(paths: list[Path]) -> tuple[int, int]:
    """The oldest glibc that has every symbol version that ``paths`` ask for."""
    return max(
        (int(found[1]), int(found[2])) for path in paths for found in _GLIBC.finditer(path.read_bytes())
    )  # fmt: skip


def asked_of_the_system(bundle: Path) -> set[str]:
    """The libraries that the bundle is linked with and does not hold."""
    files = [bundle / "kvdesk", *elf_files(bundle / "_internal")]
    held = {path.name for path in (bundle / "_internal").rglob("*") if ".so" in path.name}
    return {name for path in files for name in needed(path)} - held


def finish(libraries: Path) -> list[str]:
    """Tidy the folder ``libraries`` (PyInstaller's ``_internal``) in place; returns the names of what was removed."""
    _remove_links_to_libraries(libraries)
    _keep_one_of_each(libraries)
    removed = _remove_unneeded(libraries)
    _set_run_paths(libraries)
    return removed


def _remove_links_to_libraries(libraries: Path) -> None:
    """Links in the top folder: the run paths name the real places."""
    for path in libraries.iterdir():
        if path.is_symlink() and ".so" in path.name:
            path.unlink()


def _keep_one_of_each(libraries: Path) -> None:
    """Equal libraries in one folder (a wheel holds no links, so it holds libx.so, libx.so.0 and libx.so.0.1 alike)
    become one file, under the name that others are linked with, and links to it."""
    alike: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in elf_files(libraries):
        alike[path.parent, hashlib.sha256(path.read_bytes()).hexdigest()].append(path)
    for paths in alike.values():
        soname = _patchelf("--print-soname", paths[0]).strip() if len(paths) > 1 else ""
        kept = next((path for path in paths if path.name == soname), paths[0])
        for path in paths:
            if path != kept:
                path.unlink()
                path.symlink_to(kept.name)


def _by_name(libraries: Path) -> dict[str, Path]:
    """The libraries that another can be linked with. A library that lies with its package is preferred."""
    found: dict[str, Path] = {}
    for path in sorted(elf_files(libraries), key=lambda path: (-len(path.parts), str(path))):
        found.setdefault(path.name, path)
    return found


def _remove_unneeded(libraries: Path) -> list[str]:
    """Remove libraries that only parts that were left out needed."""
    shared = {libraries, libraries / "PySide6" / "Qt" / "lib"}
    all_files, by_name = elf_files(libraries), _by_name(libraries)
    kept: set[Path] = set()
    waiting = [path for path in all_files if path.parent not in shared or path.name.startswith("libpython")]
    while waiting:
        path = waiting.pop()
        if path not in kept:
            kept.add(path)
            waiting.extend(by_name[name] for name in needed(path) if name in by_name)
    unneeded = [path for path in all_files if path not in kept]
    for path in unneeded:
        path.unlink()
    return [path.name for path in unneeded]


def _set_run_paths(libraries: Path) -> None:
    """Let every library find those in the bundle that it is linked with."""
    by_name = _by_name(libraries)
    for path in elf_files(libraries):
        wanted = dict.fromkeys(by_name[name].parent for name in needed(path) if name in by_name)
        run_path = ":".join("$ORIGIN" if here == "." else f"$ORIGIN/{here}" for here in _relative(wanted, path.parent))
        if run_path != _patchelf("--print-rpath", path).strip():
            _patchelf("--set-rpath", path, run_path, "--page-size", "4096")


def _relative(folders: dict[Path, None], start: Path) -> list[str]:
    return [os.path.relpath(folder, start) for folder in folders]


def _patchelf(option: str, path: Path, *values: str) -> str:
    done = subprocess.run(
        [PATCHELF, option, *values, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        raise RuntimeError(f"patchelf {option} {path.name}: {done.stderr.strip()}")
    return done.stdout
