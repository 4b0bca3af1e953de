"""llama.cpp driven by the barest possible loop: what the engine's speed is held against. A process of its own.

The same libraries and parameters as the engine's, greedy, no text, no events, nothing of kvdesk imported in the process.
``Barest`` runs it from a benchmark: one line of JSON down, one up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Speed:
    """One prompt and its reply, in tokens and tokens a second; ``processor_s`` is what both took of all cores."""

    prompt_tokens: int
    prompt_per_s: float
    decode_per_s: float
    processor_s: float


class Barest:
    """The loop in a process of its own, model loaded and warm."""

    def __init__(self, model: Path, n_ctx: int, n_threads: int) -> None:
        command = [sys.executable, str(Path(__file__)), str(model), str(n_ctx), str(n_threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def run(self, prompt: str, n_tokens: int) -> Speed:
        """Read ``prompt`` (whole text, the start token comes by itself) and generate ``n_tokens``."""
        assert self._process.stdin is not None
        print(json.dumps([prompt, n_tokens]), file=self._process.stdin, flush=True)
        return Speed(**self._read())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main(model_path: str, n_ctx: str, n_threads: str) -> None:
    """Answer lines of standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import llama_cpp.llama_cpp as bindings

    from kvdesk.backend.llama import backends

    lib: Any = bindings
    backends.load(lib._lib)
    lib.llama_backend_init()
    model_params = lib.llama_model_default_params()
    model_params.use_extra_bufts = False
    model = lib.llama_model_load_from_file(model_path.encode(), model_params)
    params = lib.llama_context_default_params()
    params.n_ctx = int(n_ctx)
    params.n_batch = 2048
    params.n_ubatch = 512
    params.n_outputs_max = 1
    params.n_threads = params.n_threads_batch = int(n_threads)
    params.swa_full = False
    params.no_perf = True
    context = lib.llama_init_from_model(model, params)
    vocab, memory = lib.llama_model_get_vocab(model), lib.llama_get_memory(context)
    sampler = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    lib.llama_sampler_chain_add(sampler, lib.llama_sampler_init_greedy())
    one = (lib.llama_token * 1)()
    one_batch = lib.llama_batch_get_one(one, 1)
    lib.llama_decode(context, one_batch)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        text, n_tokens = json.loads(line)
        raw = text.encode()
        tokens = (lib.llama_token * (len(raw) + 8))()
        n_prompt = lib.llama_tokenize(vocab, raw, len(raw), tokens, len(tokens), True, True)
        lib.llama_memory_clear(memory, False)
        begun, processor_s = time.perf_counter(), time.process_time()
        assert lib.llama_decode(context, lib.llama_batch_get_one(tokens, n_prompt)) == 0
        one[0] = lib.llama_sampler_sample(sampler, context, -1)
        first = time.perf_counter()
        lib.llama_decode(context, one_batch)
        for _ in range(n_tokens - 1):
            one[0] = lib.llama_sampler_sample(sampler, context, -1)
            lib.llama_decode(context, one_batch)
        ended = time.perf_counter()
        speed = {
            "prompt_tokens": n_prompt,
            "prompt_per_s": n_prompt / (first - begun),
            "decode_per_s": (n_tokens - 1) / (ended - first),
            "processor_s": time.process_time() - processor_s,
        }
        print(json.dumps(speed), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
