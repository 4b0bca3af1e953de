"""llama.cpp's parameters for our settings, the same for the engine and for the dry run. Engine and helper processes only.

What is not a setting keeps llama.cpp's default. Anything that changes what is allocated must be set here and nowhere
else, or the plan would price another context than the one that is made.
"""

from __future__ import annotations

import llama_cpp.llama_cpp as lib

from kvdesk.backend.ggml_types import BY_NAME
from kvdesk.backend.llama import library
from kvdesk.backend.settings import ContextSettings


def context_params(settings: ContextSettings, n_ctx: int) -> lib.llama_context_params:
    """Parameters for ``n_ctx`` cells. One output row a sequence: logits are needed for the last token only."""
    params = lib.llama_context_default_params()
    params.n_ctx = n_ctx
    params.n_batch = settings.n_batch
    params.n_ubatch = settings.n_ubatch
    params.n_seq_max = settings.n_seq_max
    params.n_outputs_max = settings.n_seq_max
    params.n_threads = params.n_threads_batch = settings.n_threads or _cores()
    params.flash_attn_type = library.FLASH_ATTN_TYPES[settings.flash_attn]
    params.type_k = BY_NAME[settings.type_k].id
    params.type_v = BY_NAME[settings.type_v].id
    params.swa_full = settings.swa_full
    params.no_perf = True
    return params


def _cores() -> int:
    """Physical cores; more threads only fight over them."""
    import psutil

    return psutil.cpu_count(logical=False) or 1
