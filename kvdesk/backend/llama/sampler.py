"""The chain of samplers that picks the next token, run natively by llama.cpp. Engine process only."""

from __future__ import annotations

import ctypes
import os
import secrets
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np

from kvdesk.backend.llama.library import lib
from kvdesk.backend.llama.model import Model
from kvdesk.backend.sampling import SamplingSettings, is_json_schema, parsed_bias
from kvdesk.errors import SettingsError

TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama_token_data (llama.h)."""

MIROSTAT_CANDIDATES = 100
"""m of Mirostat 1, as in llama.cpp (common/sampling.cpp)."""


class Sampler:
    """A llama_sampler chain for one reply, in llama.cpp's own default order (common/common.h): logit bias, penalties, DRY,
    top-n-sigma, top-k, typical, top-p, min-p, XTC, temperature; Mirostat takes the place of what comes after DRY.

    A grammar stands beside the chain, as in llama.cpp: most tokens that the chain picks follow it anyway, and only where
    one does not is the whole vocabulary held against it and picked from anew.
    """

    def __init__(self, settings: SamplingSettings, model: Model) -> None:
        """Raises SettingsError with a sentence where a grammar or a logit bias cannot be used with this model."""
        self._n_vocab = model.n_vocab
        bias = _biases(settings, model)
        self._grammar = _grammar(settings.grammar, model) if settings.grammar.strip() else None
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        if self._chain is None:
            raise MemoryError("llama.cpp could not make a sampler chain")
        seed = (settings.seed if settings.seed >= 0 else secrets.randbits(32)) & 0xFFFFFFFF
        self.looks_back = max(settings.repeat_last_n, settings.dry_penalty_last_n if settings.dry_multiplier else 0)
        """Tokens before the reply that the penalties want to know of."""
        if bias:
            entries = (lib.llama_logit_bias * len(bias))(*(lib.llama_logit_bias(*entry) for entry in bias))
            self._add(lib.llama_sampler_init_logit_bias(self._n_vocab, len(bias), entries))
        self._add_penalties(settings, model)
        if settings.temperature <= 0:
            self._add(lib.llama_sampler_init_greedy())
        elif settings.mirostat != "off":
            self._add_mirostat(settings, seed)
        else:
            self._add_cuts(settings, seed)

    def _add_penalties(self, settings: SamplingSettings, model: Model) -> None:
        repeat, frequency, presence = settings.repeat_penalty, settings.frequency_penalty, settings.presence_penalty
        if settings.repeat_last_n and (repeat, frequency, presence) != (1.0, 0.0, 0.0):
            last_n = settings.repeat_last_n
            self._add(lib.llama_sampler_init_penalties(self._n_vocab, last_n, repeat, frequency, presence))
        if settings.dry_multiplier and settings.dry_penalty_last_n:
            texts = [breaker.replace("\\n", "\n").replace("\\t", "\t") for breaker in settings.dry_sequence_breakers]
            breakers = (ctypes.c_char_p * len(texts))(*(text.encode() for text in texts))
            self._add(
                lib.llama_sampler_init_dry(
                    model.vocab,
                    settings.dry_multiplier,
                    settings.dry_base,
                    settings.dry_allowed_length,
                    settings.dry_penalty_last_n,
                    breakers,
                    len(texts),
                )
            )

    def _add_mirostat(self, settings: SamplingSettings, seed: int) -> None:
        self._add(lib.llama_sampler_init_temp(settings.temperature))
        tau, eta = settings.mirostat_tau, settings.mirostat_eta
        if settings.mirostat == "1":
            self._add(lib.llama_sampler_init_mirostat(self._n_vocab, seed, tau, eta, MIROSTAT_CANDIDATES))
        else:
            self._add(lib.llama_sampler_init_mirostat_v2(seed, tau, eta))

    def _add_cuts(self, settings: SamplingSettings, seed: int) -> None:
        """What leaves some tokens out, each where it is not neutral; then the temperature, and the choice."""
        if settings.top_n_sigma > 0:
            self._add(lib.llama_sampler_init_top_n_sigma(settings.top_n_sigma))
        if settings.top_k > 0:
            self._add(lib.llama_sampler_init_top_k(settings.top_k))
        if settings.typical_p < 1.0:
            self._add(lib.llama_sampler_init_typical(settings.typical_p, 1))
        if settings.top_p < 1.0:
            self._add(lib.llama_sampler_init_top_p(settings.top_p, 1))
        if settings.min_p > 0.0:
            self._add(lib.llama_sampler_init_min_p(settings.min_p, 1))
        if settings.xtc_probability > 0.0 and settings.xtc_threshold <= 0.5:
            self._add(lib.llama_sampler_init_xtc(settings.xtc_probability, settings.xtc_threshold, 1, seed))
        temperature, spread = settings.temperature, settings.dynatemp_range
        self._add(lib.llama_sampler_init_temp_ext(temperature, spread, settings.dynatemp_exponent))
        self._add(lib.llama_sampler_init_dist(seed))

    def _add(self, sampler: object) -> None:
        lib.llama_sampler_chain_add(self._chain, sampler)

    def accept(self, token: int) -> None:
        """Let the penalties know of a token that was not sampled here (the prompt's, or the end of a closed thought)."""
        lib.llama_sampler_accept(self._chain, token)

    def next_token(self, context_ptr: object, *, is_thinking: bool = False) -> int | None:
        """The token after the last decoded one; it is accepted. None: the grammar lets nothing follow.

        A thought is free of the grammar.
        """
        if self._grammar is None or is_thinking:
            return lib.llama_sampler_sample(self._chain, context_ptr, -1)
        logits = lib.llama_get_logits_ith(context_ptr, -1)
        return self._picked(np.ctypeslib.as_array(logits, (self._n_vocab,)), is_free=False)

    def pick(self, logits: bytes, *, is_thinking: bool = False) -> int | None:
        """As next_token, from ``logits`` (n_vocab floats) that were kept."""
        return self._picked(np.frombuffer(logits, np.float32), is_free=self._grammar is None or is_thinking)

    def _picked(self, logits: np.ndarray, *, is_free: bool) -> int | None:
        candidates = np.zeros(len(logits), TOKEN_DATA)
        candidates["id"] = np.arange(len(logits))
        candidates["logit"] = logits
        if is_free:
            token = self._chosen(candidates)
        else:
            token = self._chosen(candidates.copy())
            if not self._follows(token):
                _apply(self._grammar, candidates)
                if np.isneginf(candidates["logit"]).all():
                    return None
                token = self._chosen(candidates)
            lib.llama_sampler_accept(self._grammar, token)
        self.accept(token)
        return token

    def _chosen(self, candidates: np.ndarray) -> int:
        """What the chain picks of ``candidates``, which it may reorder. Accepts nothing."""
        array = _apply(self._chain, candidates)
        return int(array.data[array.selected].id)

    def _follows(self, token: int) -> bool:
        """Whether the grammar lets ``token`` come next."""
        one = np.array([(token, 1.0, 0.0)], TOKEN_DATA)
        _apply(self._grammar, one)
        return not np.isneginf(one["logit"][0])

    def close(self) -> None:
        """Free the samplers."""
        lib.llama_sampler_free(self._chain)
        if self._grammar is not None:
            lib.llama_sampler_free(self._grammar)


def _apply(sampler: object, candidates: np.ndarray) -> Any:
    """Run ``sampler`` over ``candidates`` (of TOKEN_DATA), in place; the llama_token_data_array that says what was picked."""
    data = (lib.llama_token_data * len(candidates)).from_buffer(candidates.view(np.uint8))
    array = lib.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
    lib.llama_sampler_apply(sampler, ctypes.byref(array))
    return array


def _biases(settings: SamplingSettings, model: Model) -> list[tuple[int, float]]:
    """Token and what is added to its logit: what the person asked for, and tokens that the model's file rules out."""
    found: list[tuple[int, float]] = []
    for entry in settings.logit_bias:
        try:
            token, bias = parsed_bias(entry)
        except ValueError as error:
            raise SettingsError(f"The logit bias {error}.") from None
        if token.isdecimal():
            if int(token) >= model.n_vocab:
                raise SettingsError(f"The logit bias {entry} names no token: this model has {model.n_vocab:,}.")
            found.append((int(token), bias))
        else:
            found += ((one, bias) for one in model.tokenize(token, parse_special=True))
    n = ctypes.c_int32()
    ruled_out = lib.llama_vocab_get_suppress_tokens(model.vocab, ctypes.byref(n))
    return found + [(ruled_out[i], float("-inf")) for i in range(n.value)]


def _grammar(text: str, model: Model) -> object:
    """llama.cpp's sampler for a GBNF grammar or a JSON schema."""
    gbnf = _gbnf(text)
    with _standard_error() as said:
        sampler = lib.llama_sampler_init_grammar(model.vocab, gbnf.encode(), b"root")
    if not sampler:
        raise SettingsError(f"The grammar cannot be used: {_complaint(''.join(said), gbnf)}.")
    return sampler


def _gbnf(text: str) -> str:
    if not is_json_schema(text):
        return text
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        return json_schema_to_gbnf(text)
    except Exception as error:
        said = str(error) if isinstance(error, ValueError | NotImplementedError | AssertionError) else ""
        raise SettingsError(f"The JSON schema cannot be made a grammar{': ' if said else ''}{said}.") from error


@contextmanager
def _standard_error() -> Generator[list[str], None, None]:
    """What is written to standard error inside the block, there when it ends, and written on then.

    WORKAROUND: llama.cpp says what is wrong with a grammar there only (llama-grammar.cpp, llama_grammar_parser::parse).
    """
    said: list[str] = []
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            content = file.read()
            os.write(2, content)
            said.append(content.decode("utf-8", "replace"))


def _complaint(said: str, gbnf: str) -> str:
    """Why llama.cpp refused a grammar, with the line instead of all that follows there."""
    head, _, reason = said.partition("error parsing grammar: ")
    if not reason:
        lines = (line.strip(" .") for line in head.splitlines())
        return next((line for line in lines if line), "it needs a rule root ::= ...")
    reason = reason.partition(f"\n\n{gbnf}\n")[0]
    what, at, rest = reason.partition(" at ")
    line = gbnf[: len(gbnf) - len(rest)].count("\n") + 1
    return f"{what} in line {line}" if at and gbnf.endswith(rest) else what.strip()
