"""estimate.py: arithmetic for when llama.cpp cannot be asked; checked by hand (test_plan_exact.py checks it for real)."""

from __future__ import annotations

from dataclasses import replace

from kvdesk.backend.gguf.header import Tensor
from kvdesk.backend.planning.estimate import estimate
from kvdesk.backend.protocol.facts import BufferKind
from kvdesk.backend.protocol.footprint import ESTIMATE
from kvdesk.backend.settings import EngineSettings
from tests.plan_samples import MIB, model_file, settings

WITHOUT_MMAP = replace(EngineSettings(), model=replace(EngineSettings().model, use_mmap=False))
TENSORS = (
    Tensor("token_embd.weight", (512, 32000), "f16", 1000, 4096, 0),
    Tensor("blk.0.attn_q.weight", (512, 512), "f16", 500, 5120, 0),
)


def test_it_says_that_it_is_one() -> None:
    guess = estimate(model_file(), settings(), ("llama.cpp could not be asked.",))
    assert guess.source == ESTIMATE
    assert guess.warnings[0] == "llama.cpp could not be asked."


def test_kv_of_plain_layers() -> None:
    guess = estimate(model_file(), settings(8000))
    assert guess.n_ctx == 8192
    assert guess.bytes_of(BufferKind.KV) == 2 * 8 * 2 * 64 * 8192 * 2
    quantized = estimate(model_file(), settings(8192, type_k="q8_0", type_v="q4_0"))
    assert quantized.bytes_of(BufferKind.KV) == 8 * 2 * 64 * 8192 * 13 // 8


def test_windowed_layers_stop_growing() -> None:
    model = model_file(windowed_layers=(True,) * 6 + (False,) * 2, sliding_window=512)
    full, window = estimate(model, settings()).caches
    assert (full.cells, full.layers) == (8192, 2)
    assert (window.cells, window.layers) == (1024, 6)
    assert {c.cells for c in estimate(model, settings(swa_full=True)).caches} == {8192}


def test_every_sequence_has_cells_of_its_own() -> None:
    guess = estimate(model_file(), settings(1000, n_seq_max=3))
    assert (guess.n_ctx, guess.n_ctx_seq) == (3 * 512, 512)
    assert guess.bytes_of(BufferKind.KV) == 2 * 8 * 2 * 64 * 3 * 512 * 2


def test_mapped_weights_are_the_sum_of_the_tensors() -> None:
    model = model_file(tensors=TENSORS)
    (mapped,) = (b for b in estimate(model, settings()).buffers if b.kind is BufferKind.WEIGHTS)
    assert (mapped.size_bytes, mapped.mapped) == (1500, True)
    (copied,) = (b for b in estimate(model, WITHOUT_MMAP).buffers if b.kind is BufferKind.WEIGHTS)
    assert (copied.size_bytes, copied.mapped) == (1500, False)


def test_scores_take_memory_where_attention_is_not_fused() -> None:
    fused, plain = (estimate(model_file(), settings(32768, flash_attn=f)) for f in ("on", "off"))
    assert plain.bytes_of(BufferKind.COMPUTE) - fused.bytes_of(BufferKind.COMPUTE) > 512 * 32768 * 8 * 4 - MIB


def test_embedding_and_diffusion_models_keep_nothing() -> None:
    assert estimate(model_file(is_causal=False), settings()).bytes_of(BufferKind.KV) == 0
    assert estimate(model_file(architecture="dream"), settings()).bytes_of(BufferKind.KV) == 0
