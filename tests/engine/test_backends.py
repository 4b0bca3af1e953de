"""Which of ggml's backends are in use, and why the others are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvdesk.backend.llama import backends
from kvdesk.backend.protocol.facts import Backend

LOG = [
    "load_backend: loaded RPC backend from {0}/libggml-rpc.so",
    "load_backend: loaded CPU backend from {0}/libggml-cpu-haswell.so",
]


def test_the_variant_of_the_cpu_is_the_one_whose_library_was_loaded(tmp_path: Path) -> None:
    for name in ("libggml-base.so", "libggml-rpc.so", "libggml-cpu-haswell.so", "libggml-cpu-zen4.so"):
        (tmp_path / name).touch()
    found = backends.found(["RPC", "CPU"], tmp_path, [line.format(tmp_path) for line in LOG])
    assert found == (Backend("RPC", "libggml-rpc.so"), Backend("CPU", "libggml-cpu-haswell.so", "haswell"))


def test_a_library_that_does_not_load_says_why(tmp_path: Path) -> None:
    (tmp_path / "libggml-vulkan.so").write_text("cut short")
    (unused,) = backends.found([], tmp_path, [])
    assert (unused.name, unused.file) == ("Vulkan", "libggml-vulkan.so")
    assert "too short" in unused.why or "invalid" in unused.why


def test_backends_that_are_linked_in_have_no_library_of_their_own(tmp_path: Path) -> None:
    for name in ("libggml-rpc.so", "libggml-rpc.so.0", "libggml-cpu.so"):
        (tmp_path / name).touch()
    assert backends.found(["RPC", "CPU"], tmp_path, []) == (Backend("RPC"), Backend("CPU"))


def test_the_engine_tells_its_backends() -> None:
    from kvdesk.backend.llama import library

    library.start()
    assert {"CPU", "RPC"} <= {backend.name for backend in library.backends() if not backend.why}


def test_a_card_that_two_backends_offer_is_one_device() -> None:
    cuda, vulkan, other, cpu, worker = "0000:01:00.0", "0000:01:00.0", "0000:02:00.0", "", ""
    assert backends.first_of_each_card([worker, cuda, vulkan, other, cpu]) == [0, 1, 3, 4]


PLANTED = '#include <stdio.h>\n__attribute__((constructor)) static void run(void) { fclose(fopen("planted", "w")); }\n'


def test_no_library_is_loaded_from_the_current_folder(tmp_path: Path) -> None:
    """llama.cpp's own search would run one that somebody put there (`make package-test`: a build with dynamic backends)."""
    from kvdesk.backend.llama import library

    library.start()
    if not any(backend.file for backend in library.backends()):
        pytest.skip("this llama.cpp has its backends linked in and looks for none")
    (tmp_path / "planted.c").write_text(PLANTED)
    planted = ["cc", "-shared", "-fPIC", "-o", "libggml-vulkan.so", "planted.c"]
    subprocess.run(planted, cwd=tmp_path, check=True)
    script = "from kvdesk.backend.llama import library; library.start(); print(*[b.name for b in library.backends()])"
    search = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": search}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "CPU" in done.stdout.split()
    assert not (tmp_path / "planted").exists()
