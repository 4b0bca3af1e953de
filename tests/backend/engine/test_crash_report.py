"""What a dead engine is said to have died of, from logs as llama.cpp writes them."""

from __future__ import annotations

import pytest

from kvdesk.backend.engine.crash_report import asked_and_free_bytes, crash_values, explain

GIB, MIB = 1024**3, 1024**2

LOADED = """\
llama_model_loader: loaded meta data with 41 key-value pairs and 236 tensors from /models/m.gguf (version GGUF V3 (latest))
llama_model_load_from_file_impl: using device CUDA0 (NVIDIA GeForce RTX 3060) (0000:01:00.0) - 11469 MiB free
load_tensors:        CUDA0 model buffer size =  4096.00 MiB
llama_context: constructing llama_context
llama_kv_cache:      CUDA0 KV buffer size =  1024.00 MiB
sched_reserve:      CUDA0 compute buffer size =   256.00 MiB
"""
OUT_OF_CUDA = """\
llama_context: constructing llama_context
ggml_backend_cuda_buffer_type_alloc_buffer: allocating 36864.00 MiB on device 0: cudaMalloc failed: out of memory
alloc_tensor_range: failed to allocate CUDA0 buffer of size 38654705664
"""
ABORTED = """\
/tmp/build-env-x/llama.cpp/ggml/src/ggml.c:3151: GGML_ASSERT(a->ne[2] == b->ne[0]) failed
/usr/lib/libggml-base.so.0(+0x1a2b3)[0x7f0000000000]
Fatal Python error: Aborted

Current thread 0x00007f0000000000 (most recent call first):
  File "processes/engine_process.py", line 1 in run
"""
RPC_LOADED = """\
llama_model_load_from_file_impl: using device RPC0 (192.0.2.7:50052) (unknown id) - 24048 MiB free
llama_context: constructing llama_context
"""
RPC_LOST = "/src/ggml/src/ggml-rpc/ggml-rpc.cpp:566: Remote RPC server crashed or returned malformed response\n"


def sentence(exit_code: int | None, log: str = "", **more: bool) -> str:
    return str(explain(exit_code, log, "writing a reply", **more))


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [
        (-11, "The engine crashed (segmentation fault) while writing a reply."),
        (-4, "The engine met an instruction that this CPU does not have while writing a reply."),
        (-6, "The engine gave up while writing a reply."),
        (-15, "The engine was ended by SIGTERM while writing a reply."),
        (-64, "The engine was ended by SIGRTMAX while writing a reply."),
        (-99, "The engine was ended by signal 99 while writing a reply."),
        (7, "The engine ended unexpectedly (exit code 7) while writing a reply."),
        (None, "The engine ended unexpectedly while writing a reply."),
        (0xC0000005, "The engine crashed (access violation) while writing a reply."),
        (0xC0000409, "The engine gave up while writing a reply."),
        (0xC0000017, "The engine ran out of memory while writing a reply."),
    ],
)
def test_an_exit_code_without_a_log(exit_code: int | None, words: str) -> None:
    assert sentence(exit_code) == words


def test_the_out_of_memory_killer_is_told_from_another_kill() -> None:
    assert "killed by the system because memory ran out" in sentence(-9, LOADED, oom_killed=True)
    by_hand = sentence(-9, LOADED)
    assert "killed from outside (SIGKILL)" in by_hand
    assert "because" not in by_hand


def test_another_programs_out_of_memory_kill_is_not_blamed_for_a_crash() -> None:
    assert sentence(-11, LOADED, oom_killed=True) == "The engine crashed (segmentation fault) while writing a reply."


def test_a_failed_allocation_says_what_it_asked_for_and_what_was_free() -> None:
    log = (
        "llama_model_load_from_file_impl: using device CUDA0 (NVIDIA GeForce RTX 3060) (0000:01:00.0) - 11469 MiB free\n"
        + OUT_OF_CUDA
    )
    error = explain(-6, log, "changing the context")
    assert str(error) == (
        "The engine ran out of memory while changing the context: it asked for 36.0 GiB, 11.2 GiB was free."
    )
    assert (error.asked_bytes, error.free_bytes) == (36 * GIB, 11469 * MIB)


def test_what_was_free_counts_the_weights_but_not_the_context_that_was_let_go() -> None:
    assert asked_and_free_bytes(LOADED + OUT_OF_CUDA) == (36 * GIB, (11469 - 4096) * MIB)


def test_free_is_that_of_the_device_that_failed() -> None:
    log = (
        "x: using device CUDA0 (A) (id) - 8000 MiB free\nx: using device CUDA1 (B) (id) - 2000 MiB free\n"
        "x: allocating 4096.00 MiB on device 1: cudaMalloc failed: out of memory\n"
    )
    assert asked_and_free_bytes(log) == (4 * GIB, 2000 * MIB)


@pytest.mark.parametrize(
    "line",
    [
        "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 1073741824",
        "ggml_gallocr_reserve_n_impl: failed to allocate CPU buffer of size 1073741824",
        "ggml_vulkan: Requested buffer size (1073741824) exceeds device memory allocation limit",
        "ggml_metal_buffer_init: error: failed to allocate buffer, size =  1024.00 MiB",
        "ggml_aligned_malloc: insufficient memory (attempted to allocate 1024.00 MB)",
    ],
)
def test_every_backends_words_for_a_failed_allocation(line: str) -> None:
    assert asked_and_free_bytes(line) == (GIB, None)
    assert "while writing a reply: it asked for 1.0 GiB." in sentence(-6, line)


def test_an_allocation_that_failed_and_was_survived_is_not_the_cause() -> None:
    log = LOADED + OUT_OF_CUDA + "llama_context: constructing llama_context\nsched_reserve: reserving ...\n"
    error = explain(-11, log, "writing a reply")
    assert str(error) == "The engine crashed (segmentation fault) while writing a reply."
    assert error.asked_bytes is None


def test_gpu_memory_that_ran_out_without_a_figure() -> None:
    log = (
        LOADED
        + "ggml_cuda_error: CUDA error: out of memory\n  current device: 0, in function alloc at ggml-cuda.cu:473\n"
    )
    assert sentence(-6, log) == "The engine ran out of GPU memory while writing a reply."


def test_an_abort_is_told_in_llama_cpps_last_words_without_its_build_folder() -> None:
    error = explain(-6, LOADED + ABORTED, "writing a reply")
    words = "ggml.c:3151: GGML_ASSERT(a->ne[2] == b->ne[0]) failed"
    assert str(error) == f"The engine gave up while writing a reply. Its last words: {words}"
    assert error.last_words == words
    assert error.log_tail.endswith("in run")


def test_running_out_of_heap_is_running_out_of_memory() -> None:
    log = LOADED + "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
    assert sentence(-6, log) == "The engine ran out of memory while writing a reply."


def test_a_hang_is_called_a_hang_whatever_the_log_says() -> None:
    assert sentence(-9, LOADED + ABORTED, hung=True) == (
        "The engine did not answer any more and was ended while writing a reply."
    )


def test_a_lost_network_worker_is_named() -> None:
    assert sentence(-6, RPC_LOADED + RPC_LOST) == (
        "The engine lost the network worker 192.0.2.7:50052 while writing a reply. "
        "Start `kvdesk worker` there again, then reload."
    )


def test_a_network_worker_that_cannot_be_reached_is_named_by_the_abort_itself() -> None:
    log = RPC_LOADED + "/src/ggml-rpc.cpp:547: Failed to connect to 198.51.100.2:50053\n\n"
    assert "lost the network worker 198.51.100.2:50053 while" in sentence(-6, log)


def test_of_several_workers_either_may_be_lost() -> None:
    log = "x: using device RPC0 (a:1) (id) - 1 MiB free\nx: using device RPC1 (b:2) (id) - 1 MiB free\n" + RPC_LOST
    assert "lost one of the network workers a:1, b:2 while" in sentence(-6, log)


def test_the_session_log_gets_what_is_known_and_nothing_else() -> None:
    assert crash_values(explain(-11, "", "idle")) == {"exit_code": -11, "signal": "SIGSEGV"}
    assert crash_values(explain(-6, LOADED + OUT_OF_CUDA, "idle")) == {
        "exit_code": -6,
        "signal": "SIGABRT",
        "asked_bytes": 36 * GIB,
        "free_bytes": (11469 - 4096) * MIB,
    }
    assert crash_values(explain(-6, ABORTED, "idle"))["last_words"].startswith("ggml.c:3151: GGML_ASSERT")


def test_a_vocabulary_with_a_token_twice_is_named() -> None:
    log = "llama-vocab.cpp:2544: GGML_ASSERT(id_to_token.size() == token_to_id.size()) failed\n"
    assert "the same token twice" in sentence(-6, log)
