"""The chain of samplers that picks the next token, run natively by llama.cpp. Engine process only."""

from __future__ import annotations

import ctypes
import secrets

import numpy as np

from kvdesk.backend.llama.library import lib
from kvdesk.backend.settings import SamplingSettings

TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama_token_data (llama.h)."""


class Sampler:
    """A llama_sampler chain for one reply. Order as in llama.cpp's own default (common/common.h): penalties, top-k,
    top-p, min-p, temperature."""

    def __init__(self, settings: SamplingSettings, n_vocab: int) -> None:
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        if chain is None:
            raise MemoryError("llama.cpp could not make a sampler chain")
        self.chain = chain
        if settings.repeat_penalty != 1.0 and settings.repeat_last_n:
            self._add(
                lib.llama_sampler_init_penalties(n_vocab, settings.repeat_last_n, settings.repeat_penalty, 0.0, 0.0)
            )
        if settings.temperature <= 0:
            self._add(lib.llama_sampler_init_greedy())
            return
        if settings.top_k > 0:
            self._add(lib.llama_sampler_init_top_k(settings.top_k))
        if settings.top_p < 1.0:
            self._add(lib.llama_sampler_init_top_p(settings.top_p, 1))
        if settings.min_p > 0.0:
            self._add(lib.llama_sampler_init_min_p(settings.min_p, 1))
        self._add(lib.llama_sampler_init_temp(settings.temperature))
        seed = settings.seed if settings.seed >= 0 else secrets.randbits(32)
        self._add(lib.llama_sampler_init_dist(seed & 0xFFFFFFFF))

    def _add(self, sampler: object) -> None:
        lib.llama_sampler_chain_add(self.chain, sampler)

    def accept(self, token: int) -> None:
        """Let the penalties know of a token that was not sampled here (the prompt's)."""
        lib.llama_sampler_accept(self.chain, token)

    def next_token(self, context_ptr: object) -> int:
        """The token after the last decoded one; it is accepted."""
        return lib.llama_sampler_sample(self.chain, context_ptr, -1)

    def pick(self, logits: bytes) -> int:
        """As next_token, from ``logits`` (n_vocab floats) that were kept; what llama_sampler_sample does with its own."""
        values = np.frombuffer(logits, np.float32)
        candidates = np.zeros(len(values), TOKEN_DATA)
        candidates["id"] = np.arange(len(values))
        candidates["logit"] = values
        data = (lib.llama_token_data * len(values)).from_buffer(candidates.view(np.uint8))
        array = lib.llama_token_data_array(data=data, size=len(values), selected=-1, sorted=False)
        lib.llama_sampler_apply(self.chain, ctypes.byref(array))
        token = int(array.data[array.selected].id)
        self.accept(token)
        return token

    def close(self) -> None:
        """Free the chain of samplers."""
        lib.llama_sampler_free(self.chain)
