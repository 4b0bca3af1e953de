"""llama.cpp's parameters for our settings, the same for the engine and for the dry run. Engine and helper processes only.

What is not a setting keeps llama.cpp's default. Anything that changes what is allocated must be set here and nowhere
else, or the plan would price another context than the one that is made.
"""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp.llama_cpp as lib

from kvdesk.backend.ggml_types import BY_NAME
from kvdesk.backend.llama import library
from kvdesk.backend.settings import ContextSettings, ModelSettings

LOAD_MODE_NONE, LOAD_MODE_MMAP = 0, 1
"""enum llama_load_mode (llama.h)."""
EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
"""Names of tensors that hold experts (common/common.h, LLM_FFN_EXPS_REGEX)."""
_NO_DEVICES = (ctypes.c_void_p * 1)()
"""An empty list of devices, ended by NULL."""


class _BufferTypeOverride(ctypes.Structure):
    """struct llama_model_tensor_buft_override (llama.h)."""

    _fields_ = [("pattern", ctypes.c_char_p), ("buft", ctypes.c_void_p)]


def model_params(settings: ModelSettings) -> Any:
    """Parameters for loading the weights. With no layer on the GPU there is no device at all: llama.cpp would compute long
    prompts on it all the same (op offload), and a driver that crashes could not be got away from."""
    params: Any = lib.llama_model_default_params()
    params.n_gpu_layers = settings.n_gpu_layers
    params.load_mode = LOAD_MODE_MMAP if settings.use_mmap else LOAD_MODE_NONE
    params.use_extra_bufts = settings.use_extra_bufts
    if settings.n_gpu_layers == 0:
        params.devices = ctypes.addressof(_NO_DEVICES)
    if settings.n_cpu_moe:
        overrides = _experts_on_the_cpu(settings.n_cpu_moe)
        params.tensor_buft_overrides = ctypes.addressof(overrides)
        params.overrides = overrides  # lives as long as the parameters
    return params


def _experts_on_the_cpu(n_layers: int) -> ctypes.Array[_BufferTypeOverride]:
    """The experts of the first ``n_layers`` layers (negative: of all) in the CPU's buffer type, as llama.cpp's own tools do
    it (common/common.h, llm_ffn_exps_block_regex)."""
    layers = (r"",) if n_layers < 0 else tuple(rf"blk\.{layer}" for layer in range(n_layers))
    cpu = library.cpu_buffer_type()
    named = [_BufferTypeOverride((layer + EXPERTS).encode(), cpu) for layer in layers]
    return (_BufferTypeOverride * (len(named) + 1))(*named)  # ended by one without a pattern


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
    params.offload_kqv = settings.offload_kqv
    params.no_perf = True
    return params


def _cores() -> int:
    """Physical cores; more threads only fight over them."""
    import psutil

    return psutil.cpu_count(logical=False) or 1
