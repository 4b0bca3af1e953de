"""Loads a model for real, decodes one batch and tells what was allocated; run as a process of its own.

``python real_load.py`` takes lines of JSON (``path``, ``settings`` as EngineSettings.to_dict, ``tokens`` to decode) on
standard input and prints one line of JSON for each: llama.cpp's own breakdown and log lines, and the process's memory.
"""

from __future__ import annotations

import json
import sys

import llama_cpp.llama_cpp as lib

from kvdesk.backend.llama import library
from kvdesk.backend.llama.params import context_params, model_params
from kvdesk.backend.llama.sizing import memory_breakdown
from kvdesk.backend.settings import EngineSettings


def resident() -> dict[str, int]:
    """Bytes of this process by smaps_rollup; empty where there is none."""
    try:
        with open("/proc/self/smaps_rollup", encoding="ascii") as rollup:
            fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in rollup if line.endswith("kB\n")}
    except OSError:
        return {}
    return {name: fields.get(name, 0) for name in ("Rss", "Anonymous")}


def load(path: str, settings: EngineSettings, n_tokens: int) -> dict[str, object]:
    """Load, make the context, decode ``n_tokens`` (0: none)."""
    log = library.start()
    for endpoint in settings.model.rpc_servers:
        library.add_rpc_server(endpoint)
    stages = {"start": resident()}
    with log.captured() as lines:
        model = lib.llama_model_load_from_file(path.encode(), model_params(settings.model))
        if not model:
            return {"error": [line for line in lines if "error" in line][:1]}
        stages["model"] = resident()
        n_ctx = settings.context.n_ctx or lib.llama_model_n_ctx_train(model)
        context = lib.llama_init_from_model(model, context_params(settings.context, n_ctx))
        if not context:
            return {"error": lines[-1:]}
    stages["context"] = resident()
    if n_tokens:
        n_vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        tokens = (lib.llama_token * n_tokens)(*(5 + i % (n_vocab - 5) for i in range(n_tokens)))
        status = lib.llama_decode(context, lib.llama_batch_get_one(tokens, n_tokens))
        stages["decoded"] = resident()
        if status:
            return {"error": [f"llama_decode said {status}"]}
    shares = memory_breakdown.read(context) or ()
    told = {
        "shares": [[s.name, s.device, s.model_bytes, s.context_bytes, s.compute_bytes] for s in shares],
        "lines": [line for line in lines if "MiB" in line],
        "n_ctx": lib.llama_n_ctx(context),
        "stages": stages,
    }
    lib.llama_free(context)
    lib.llama_model_free(model)
    return told


def main() -> None:
    """Work off the lines."""
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(load(asked["path"], EngineSettings.from_dict(asked["settings"]), asked["tokens"])), flush=True)


if __name__ == "__main__":
    main()
