"""Runs experiments on saved states in a process of its own, since llama.cpp can end it: ``python -m tests.engine.kv_lab``.

The last line it prints is the results as JSON. ``run`` starts it and reads them.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvdesk.backend.ggml_types import BY_NAME

ROOT = Path(__file__).parents[2]
F16, F16_NO_FLASH, Q8, Q4 = ("f16", "f16", 1), ("f16", "f16", 0), ("q8_0", "q8_0", 1), ("q4_0", "q4_0", 1)
NAMES = {F16: "f16", F16_NO_FLASH: "f16 no flash", Q8: "q8_0", Q4: "q4_0"}


def run(experiment: str, model: Path, timeout_s: float = 200.0) -> Any:
    """The results of ``experiment`` (a function of this file) on ``model``; fails the test if the process does not end well."""
    command = [sys.executable, "-m", "tests.engine.kv_lab", experiment, str(model)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


class Lab:
    """One model, and what the experiments do with contexts for it. Imports llama_cpp: only in the child."""

    def __init__(self, path: str) -> None:
        import llama_cpp.llama_cpp as lib

        from kvdesk.backend.llama import backends
        from kvdesk.backend.llama.kv import convert, state, transfer

        backends.load(lib._lib)
        self.lib: Any = lib
        self.convert, self.state, self.transfer = convert, state, transfer
        self.types = {name: one.id for name, one in BY_NAME.items()}
        self._silent = lib.llama_log_callback(lambda level, text, user_data: None)
        lib.llama_log_set(self._silent, ctypes.c_void_p(0))
        params = lib.llama_model_default_params()
        params.use_extra_bufts = False
        params.n_gpu_layers = 0
        self.model: Any = lib.llama_model_load_from_file(path.encode(), params)
        assert self.model, path
        self.vocab: Any = lib.llama_model_get_vocab(self.model)
        self.n_vocab = lib.llama_vocab_n_tokens(self.vocab)
        self.n_swa = lib.llama_model_n_swa(self.model)
        # Several threads share the sums of flash attention by place in the cache: only then do passed cells matter
        self.threads_that_show_layout = 2 if self.n_swa else 1

    def context(
        self, n_ctx: int, kind: tuple[str, str, int] = F16, n_ubatch: int = 128, n_outputs: int = 1, n_threads: int = 1
    ) -> Any:
        params = self.lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, max(512, n_ubatch), n_ubatch
        params.type_k, params.type_v, params.flash_attn_type = self.types[kind[0]], self.types[kind[1]], kind[2]
        params.n_threads = params.n_threads_batch = n_threads
        params.n_outputs_max, params.swa_full = n_outputs, False
        ctx = self.lib.llama_init_from_model(self.model, params)
        assert ctx, (n_ctx, kind)
        return ctx

    def free(self, *contexts: Any) -> None:
        for ctx in contexts:
            self.lib.llama_free(ctx)

    def read(self, ctx: Any, tokens: Sequence[int], at_once: int = 128) -> np.ndarray:
        """Decode ``tokens``; the logits after the last one."""
        for start in range(0, len(tokens), at_once):
            part = (self.lib.llama_token * len(tokens[start : start + at_once]))(*tokens[start : start + at_once])
            assert self.lib.llama_decode(ctx, self.lib.llama_batch_get_one(part, len(part))) == 0
        return np.ctypeslib.as_array(self.lib.llama_get_logits_ith(ctx, -1), (self.n_vocab,)).copy()

    def greedy(self, ctx: Any, logits: np.ndarray, n: int) -> tuple[list[int], np.ndarray]:
        """``n`` likeliest tokens after ``logits``, and the logits after them."""
        chosen: list[int] = []
        for _ in range(n):
            chosen.append(int(logits.argmax()))
            logits = self.read(ctx, chosen[-1:])
        return chosen, logits

    def following(self, ctx: Any, tokens: Sequence[int]) -> np.ndarray:
        """(tokens, n_vocab) log probabilities after each of ``tokens``, decoded in one batch."""
        batch = self.lib.llama_batch_init(len(tokens), 0, 1)
        first = self.lib.llama_memory_seq_pos_max(self.memory(ctx), 0) + 1
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = (
                token,
                first + i,
                1,
                0,
                1,
            )
        assert self.lib.llama_decode(ctx, batch) == 0
        rows = [
            np.ctypeslib.as_array(self.lib.llama_get_logits_ith(ctx, i), (self.n_vocab,)).astype(np.float64)
            for i in range(len(tokens))
        ]
        self.lib.llama_batch_free(batch)
        logits = np.array(rows)
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def memory(self, ctx: Any) -> Any:
        return self.lib.llama_get_memory(ctx)

    def clear(self, ctx: Any) -> None:
        self.lib.llama_memory_clear(self.memory(ctx), True)

    def span(self, ctx: Any) -> tuple[int, int]:
        """Lowest and highest position in the cache."""
        memory = self.memory(ctx)
        return self.lib.llama_memory_seq_pos_min(memory, 0), self.lib.llama_memory_seq_pos_max(memory, 0)

    def tokens(self, n: int) -> list[int]:
        """``n`` tokens: of real text where the vocabulary is real, random ones for a tiny model."""
        if self.n_vocab < 10_000:
            return [int(token) for token in np.random.default_rng(0).integers(5, self.n_vocab - 5, n)]
        text = b"".join(
            (ROOT / "kvdesk/backend/llama" / name).read_bytes() for name in ("kv/state.py", "kv/convert.py")
        )
        ids = (self.lib.llama_token * len(text))()
        assert self.lib.llama_tokenize(self.vocab, text, len(text), ids, len(ids), True, False) > n
        return list(ids[:n])


def divergence(p: np.ndarray, q: np.ndarray, of_rows: Callable[[np.ndarray], Any] = np.mean) -> float:
    """KL(p || q) in nats, the mean over the rows of two tables of log probabilities."""
    return float(of_rows((np.exp(p) * (p - q)).sum(axis=1)))


def probabilities(logits: np.ndarray) -> np.ndarray:
    """One row of log probabilities."""
    shifted = logits.astype(np.float64) - logits.max()
    return (shifted - np.log(np.exp(shifted).sum()))[None, :]


# --- experiments -----------------------------------------------------------------------------------------------


def move(lab: Lab) -> Any:
    """Save from one context, restore into others; are the next logits, and those after 4 tokens, the same to the last bit?"""
    tokens = lab.tokens(1000)
    results: list[dict[str, Any]] = []
    for kind in (F16, F16_NO_FLASH):
        for n in (100, 900):
            ctx = lab.context(2048, kind, n_threads=lab.threads_that_show_layout)
            lab.read(ctx, tokens[:n])
            saved = lab.transfer.save_sequence(ctx)
            layout = lab.state.describe_state(saved)
            expected = lab.greedy(ctx, lab.read(ctx, tokens[n : n + 1]), 4)
            for n_ctx in (4096, n // 256 * 256 + 256):  # larger; the smallest that holds the tokens
                into = lab.context(n_ctx, kind, n_threads=lab.threads_that_show_layout)
                lab.read(into, tokens[:50])  # something to be replaced
                moved = lab.transfer.restore_sequence(into, saved)
                got = lab.greedy(into, lab.read(into, tokens[n : n + 1]), 4) if moved else ([], expected[1])
                results.append(
                    {"kind": NAMES[kind], "tokens": n, "n_ctx": n_ctx, "moved": moved, "greedy": got[0] == expected[0],
                     "equal": bool((got[1] == expected[1]).all()), "cells": [b.cells for b in layout.blocks],
                     "immutable_too": moved and lab.transfer.restore_sequence(into, bytes(saved))}
                )  # fmt: skip
                lab.free(into)
            lab.free(ctx)
    return results


def refuse(lab: Lab) -> Any:
    """Restore what cannot fit; the context must be empty and usable afterwards."""
    tokens = lab.tokens(700)
    ctx, small, other = lab.context(1024), lab.context(256), lab.context(1024, Q8)
    lab.read(ctx, tokens)
    saved = bytes(lab.transfer.save_sequence(ctx))
    fresh = lab.read(small, tokens[:20])
    cases = {"too few cells": (small, saved), "other types": (other, saved), "cut short": (ctx, saved[:-1])}
    results = {}
    for name, (into, state) in cases.items():
        lab.clear(into)
        lab.read(into, tokens[:5])
        results[name] = {"restored": lab.transfer.restore_sequence(into, state), "span": lab.span(into)}
    results["usable"] = bool((lab.read(small, tokens[:20]) == fresh).all())
    return results


def shrink_window(lab: Lab) -> Any:
    """Restore a whole ring into a smaller one, of a smaller n_ubatch: the window's cells fit, those it has passed do not."""
    tokens = lab.tokens(1300)
    ctx = lab.context(2048, n_ubatch=512)
    lab.read(ctx, tokens[:-1], at_once=512)
    saved = lab.transfer.save_sequence(ctx)
    expected = lab.read(ctx, tokens[-1:])
    into = lab.context(2048, n_ubatch=64)
    moved = lab.transfer.restore_sequence(into, saved)
    got = lab.read(into, tokens[-1:])
    return {
        "moved": moved,
        "divergence": divergence(probabilities(expected), probabilities(got)),
        "span": lab.span(into),
    }


def grow(lab: Lab) -> Any:
    """A chat of four turns, 240 tokens read and 16 generated in each, in a context that grows and in one that need not."""
    tokens, n_threads = lab.tokens(960), lab.threads_that_show_layout

    def chat(cells: int) -> tuple[list[int], np.ndarray, int]:
        ctx, held, steps, chosen = lab.context(cells, n_threads=n_threads), 0, 0, []
        for turn in range(4):
            if held + 256 > cells:
                saved = lab.transfer.save_sequence(ctx)
                lab.free(ctx)
                cells, steps = cells + 256, steps + 1
                ctx = lab.context(cells, n_threads=n_threads)
                assert lab.transfer.restore_sequence(ctx, saved)
            logits = lab.read(ctx, tokens[240 * turn : 240 * turn + 240])
            reply, logits = lab.greedy(ctx, logits, 16)
            held, chosen = held + 256, chosen + reply
        lab.free(ctx)
        return chosen, logits, steps

    expected, expected_logits, _ = chat(1024)
    chosen, logits, steps = chat(256)
    return {
        "steps": steps,
        "text": chosen == expected,
        "logits": bool((logits == expected_logits).all()),
        "chosen": chosen,
    }


def cut(lab: Lab) -> Any:
    """Cut a cache back and go on; what did cut_keeps_window say, and how far off is the next distribution?"""
    tokens = lab.tokens(1100)
    n = 1000
    results: list[dict[str, Any]] = []
    for keep in (1000, 999, 900, 760, 700, 1):
        ctx = lab.context(2048)
        lab.read(ctx, tokens[:n])
        said = lab.state.cut_keeps_window(keep, *lab.span(ctx), lab.n_swa)
        done = bool(lab.lib.llama_memory_seq_rm(lab.memory(ctx), 0, keep, -1))
        result: dict[str, Any] = {"keep": keep, "said": said, "done": done}
        if done:
            got = lab.read(ctx, tokens[n : n + 4])
            lab.clear(ctx)
            lab.read(ctx, tokens[:keep])
            expected = lab.read(ctx, tokens[n : n + 4])
            result["divergence"] = divergence(probabilities(expected), probabilities(got))
        results.append(result)
        lab.free(ctx)
    return results


def checkpoint(lab: Lab) -> Any:
    """Go back to a checkpoint after reading on, and read something else."""
    tokens = lab.tokens(1100)
    ctx = lab.context(2048)
    lab.read(ctx, tokens[:400])
    saved = bytes(lab.transfer.save_checkpoint(ctx))
    whole = len(lab.transfer.save_sequence(ctx))
    expected = lab.read(ctx, tokens[1000:1050])
    lab.clear(ctx)
    lab.read(ctx, tokens[:1000])
    back = lab.transfer.restore_checkpoint(ctx, saved, 400)
    span = lab.span(ctx)
    got = lab.read(ctx, tokens[1000:1050])
    lab.clear(ctx)
    lab.read(ctx, tokens[:100])
    too_short = lab.transfer.restore_checkpoint(ctx, saved[:-4], 400)
    return {
        "back": back, "span": span, "divergence": divergence(probabilities(expected), probabilities(got)),
        "checkpoint_bytes": len(saved), "whole_bytes": whole, "damaged": too_short, "after_damage": lab.span(ctx),
    }  # fmt: skip


def convert(lab: Lab) -> Any:
    """Convert a conversation of ``n`` tokens to other settings, and compare the next 64 distributions with a reread's."""
    n, n_next = 540, 64
    tokens = lab.tokens(n + n_next)
    pairs = [(F16, Q8), (F16, Q4)]
    if lab.n_vocab < 10_000:  # tiny, so all pairs can be had
        pairs = [(source, target) for source in NAMES for target in NAMES if source != target]
    following: dict[Any, np.ndarray] = {}
    saved: dict[Any, bytes] = {}
    probes: dict[Any, bytes] = {}
    contexts = {
        kind: lab.context(1024, kind, n_outputs=n_next) for kind in NAMES if any(kind in pair for pair in pairs)
    }
    for kind, ctx in contexts.items():
        lab.read(ctx, tokens[:n])
        saved[kind] = bytes(lab.transfer.save_sequence(ctx))
        following[kind] = lab.following(ctx, tokens[n:])
        probes[kind] = bytes(lab.transfer.probe_state(ctx, tokens[:2]))
    results: list[dict[str, Any]] = []
    for source, target in pairs:
        converted = lab.convert.convert_state(saved[source], probes[target], probes[source])
        restored = lab.transfer.restore_sequence(contexts[target], converted)
        got = lab.following(contexts[target], tokens[n:])
        results.append(
            {"source": NAMES[source], "target": NAMES[target], "restored": restored,
             "same_size": len(converted) == len(saved[target]),
             "converted": divergence(following[source], got), "reread": divergence(following[source], following[target]),
             "converted_median": divergence(following[source], got, np.median),
             "reread_median": divergence(following[source], following[target], np.median)}
        )  # fmt: skip
    return results


def convert_checkpoint(lab: Lab) -> Any:
    """Convert a checkpoint, and refuse to convert what does not agree."""
    tokens = lab.tokens(400)
    contexts = {kind: lab.context(1024, kind) for kind in (F16, Q8, Q4)}
    partial, whole = {}, {}
    for kind, ctx in contexts.items():
        partial[kind] = bytes(lab.transfer.probe_state(ctx, tokens[:2], partial=True))
        whole[kind] = bytes(lab.transfer.probe_state(ctx, tokens[:2]))
    other_tokens = bytes(lab.transfer.probe_state(contexts[Q8], tokens[10:12]))
    lab.read(contexts[F16], tokens)
    saved, state = bytes(lab.transfer.save_checkpoint(contexts[F16])), bytes(lab.transfer.save_sequence(contexts[F16]))
    lab.read(contexts[Q8], tokens)
    converted = lab.convert.convert_state(saved, partial[Q8], partial[F16])
    refused = {}
    for name, arguments in {
        "templates of other tokens": (state, other_tokens, whole[F16]),
        "source template of other types": (state, whole[Q8], whole[Q4]),
        "damaged state": (state[:-1], whole[Q8], whole[F16]),
    }.items():
        try:
            lab.convert.convert_state(*arguments)
            refused[name] = ""
        except lab.state.CannotConvert as error:
            refused[name] = str(error)
    return {"back": lab.transfer.restore_checkpoint(contexts[Q8], converted, len(tokens)), "refused": refused}


def main() -> None:
    experiment, model = sys.argv[1:]
    print(json.dumps(globals()[experiment](Lab(model))))


if __name__ == "__main__":
    main()
