"""What every backend of ggml says when memory is refused, held against the sources of the llama.cpp that is locked."""

from __future__ import annotations

import pytest

from kvdesk.backend.ggml_log import failed_allocation
from kvdesk.sizes import GIB
from tests.source_archive import llama_cpp_source

SAID = [
    ("ggml/src/ggml-cuda/ggml-cuda.cu", "%s: allocating %.2f MiB on device %d: cudaMalloc failed: %s", "CUDA0"),
    ("ggml/src/ggml-cann/ggml-cann.cpp", "%s: allocating %.2f MiB on device %d: aclrtMalloc failed: %s", ""),
    ("ggml/src/ggml-alloc.c", "%s: failed to allocate %s buffer of size %zu", "CUDA0"),
    ("ggml/src/ggml-backend.cpp", "%s: failed to allocate buffer of size %zu", ""),
    ("ggml/src/ggml-cpu/hbm.cpp", "failed to allocate HBM buffer of size %zu", "HBM"),
    ("ggml/src/ggml-metal/ggml-metal-device.m", "%s: error: failed to allocate buffer, size = %8.2f MiB", ""),
    ("ggml/src/ggml.c", "%s: %s (attempted to allocate %6.2f MB)", ""),
    ("src/llama-context.cpp", "%s: failed to allocate output buffer of size %.2f MiB", ""),
    ("ggml/src/ggml-vulkan/ggml-vulkan-buffers.cpp", "Device memory allocation of size ", ""),
]


@pytest.mark.parametrize(("file", "words", "device"), SAID, ids=lambda value: str(value)[:60])
def test_size_and_device_are_read_from_what_the_source_prints(file: str, words: str, device: str) -> None:
    assert words in (llama_cpp_source() / file).read_text("utf-8")
    texts = iter(["function", device if "%s buffer" in words else "out of memory"])
    values = {"%s": lambda: next(texts), "%zu": lambda: str(GIB), "%d": lambda: "0"}
    line = words if "%" in words else f"{words}{GIB} failed."
    for mark in ("%8.2f", "%6.2f", "%.2f"):
        line = line.replace(mark, "1024.00")
    for mark, value in values.items():
        while mark in line:
            line = line.replace(mark, value(), 1)
    assert failed_allocation([line]) == (GIB, device)


def test_the_last_one_counts() -> None:
    lines = [
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 1: cudaMalloc failed: out of memory",
        "alloc_tensor_range: failed to allocate CUDA1 buffer of size 4294967296",
        "llama_model_load: error loading model",
    ]
    assert failed_allocation(lines) == (4 * GIB, "CUDA1")


def test_a_log_without_one_says_so() -> None:
    assert (
        failed_allocation(["llama_kv_cache: size = 18.00 MiB", "failed to find a memory slot for batch of size 512"])
        is None
    )
