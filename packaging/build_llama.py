"""Builds llama.cpp for every PC: one library per kind of CPU and per backend, each loaded only where it can run.

Prints the wheel's path. Kept in build/llama under a hash of all that goes in, so that it is compiled once (about eight
minutes on two cores, fifteen with Vulkan). ``make setup`` builds the quick native one instead.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bundle_contents import ROOT

BUILDS = ROOT / "build" / "llama"
INPUTS = (
    "requirements/llama.txt",
    "packaging/llama_cpp_build.cmake",
    "packaging/llama_shim",
    "packaging/build_llama.py",
)
OPTIONS = {
    "GGML_NATIVE": "OFF",
    "GGML_BACKEND_DL": "ON",
    "GGML_CPU_ALL_VARIANTS": "ON",
    "GGML_RPC": "ON",
    "BUILD_SHARED_LIBS": "ON",
    "LLAVA_BUILD": "OFF",
    "CMAKE_PROJECT_INCLUDE": str(ROOT / "packaging" / "llama_cpp_build.cmake"),
    # backends are targets that llama-cpp-python's own install rules do not know
    "CMAKE_INSTALL_BINDIR": "llama_cpp/lib",
    "CMAKE_INSTALL_LIBDIR": "llama_cpp/lib",
}
VULKAN_MISSING = """\
Vulkan is left out: --vulkan-sdk names no folder with include/vulkan/vulkan_core.h (1.4.309 or newer) and bin/glslc
(2025.2 or newer). Debian 12's own are too old; docs/RELEASE.md says how to unpack Debian 13's.
"""


def main() -> int:
    """Build where needed; 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="the source archive of llama-cpp-python")
    parser.add_argument("--vulkan-sdk", type=Path, help="Vulkan's headers and glslc")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    options = {**OPTIONS, **vulkan_options(arguments.vulkan_sdk)}
    folder = BUILDS / fingerprint(options, arguments.source)
    if not list(folder.glob("*.whl")):
        if "GGML_VULKAN" not in options:
            print(VULKAN_MISSING, file=sys.stderr)
        _build(arguments.source, options, folder, arguments.jobs)
    print(next(folder.glob("*.whl")))
    return 0


def vulkan_options(sdk: Path | None) -> dict[str, str]:
    """CMake's options for the Vulkan backend; empty where ``sdk`` does not hold what it needs."""
    if sdk is None or not (sdk / "include/vulkan/vulkan_core.h").is_file() or not (sdk / "bin/glslc").is_file():
        return {}
    return {
        "GGML_VULKAN": "ON",
        "Vulkan_INCLUDE_DIR": str(sdk / "include"),
        "Vulkan_GLSLC_EXECUTABLE": str(sdk / "bin/glslc"),
    }


def fingerprint(options: dict[str, str], source: Path) -> str:
    """A name for what these inputs build: files, options (less where this checkout lies), compiler."""
    digest = hashlib.sha256(source.name.encode())
    for name in INPUTS:
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            digest.update(file.name.encode() + file.read_bytes())
    digest.update(repr(sorted(options.items())).replace(str(ROOT), "").encode())
    compiler = subprocess.run([os.environ.get("CXX", "c++"), "--version"], capture_output=True, check=True)
    digest.update(compiler.stdout)
    return digest.hexdigest()[:16]


def _build(source: Path, options: dict[str, str], folder: Path, jobs: int) -> None:
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    environment = {
        **os.environ,
        "CMAKE_ARGS": " ".join(f"-D{name}={value}" for name, value in options.items()),
        "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs),
    }
    subprocess.run(
        [
            sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "wheel", "--no-cache-dir", "--no-deps",
            "-w", str(part), str(source),
        ],
        env=environment, stdout=sys.stderr, check=True,
    )  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


if __name__ == "__main__":
    sys.exit(main())
