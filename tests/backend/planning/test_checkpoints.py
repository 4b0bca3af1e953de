"""What checkpoints will hold, from round numbers. That the engine holds just this: tests/engine/test_checkpoints_planned.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvdesk.backend.planning.checkpoints import checkpoints_bytes
from kvdesk.backend.protocol.facts import CHECKPOINTS_BYTES, Buffer, BufferKind, CacheBlock
from tests.plan_samples import MIB, footprint, model_file, settings

WINDOWED = model_file(sliding_window=512, windowed_layers=(True,) * 6 + (False,) * 2, n_vocab=1000)
LOGITS = 4 * 1000
CELL = 1024
"""Bytes of a cell in one layer."""


def windowed(n_ctx: int, **context: object) -> int:
    """For a model with 6 windowed layers and 2 that see everything."""
    ring = min(n_ctx, 1024)
    caches = (
        CacheBlock("KV", n_ctx, 2, n_ctx * 2 * CELL, "f16", "f16"),
        CacheBlock("KV SWA", ring, 6, ring * 6 * CELL, "f16", "f16"),
    )
    return checkpoints_bytes(WINDOWED, replace(footprint(settings(n_ctx, **context)), caches=caches))


@pytest.mark.parametrize("n_ctx", [1024, 2048, 32768])
def test_each_holds_the_window_of_the_windowed_layers(n_ctx: int) -> None:
    assert windowed(n_ctx) == 8 * 512 * 6 * CELL + 4 * LOGITS


def test_a_context_shorter_than_the_window_holds_itself() -> None:
    assert windowed(256) == 8 * 256 * 6 * CELL + 4 * LOGITS


def test_full_windows_need_the_logits_alone() -> None:
    assert windowed(2048, swa_full=True) == 8 * LOGITS


def test_recurrent_state_is_held_of_one_sequence() -> None:
    plan = footprint(settings(2048, n_seq_max=4))
    plan = replace(plan, buffers=(*plan.buffers, Buffer("CPU", "CPU", BufferKind.RECURRENT, 40 * MIB)), caches=())
    recurrent = model_file(is_recurrent=True, n_vocab=1000)
    assert checkpoints_bytes(recurrent, plan) == 8 * 10 * MIB + 4 * LOGITS


def test_there_is_a_limit_for_all_but_not_for_one() -> None:
    def held(state_bytes: int) -> int:
        plan = footprint(settings(2048))
        state = Buffer("CPU", "CPU", BufferKind.RECURRENT, state_bytes)
        return checkpoints_bytes(model_file(n_vocab=1000), replace(plan, buffers=(*plan.buffers, state), caches=()))

    assert held(100 * MIB) == CHECKPOINTS_BYTES
    assert held(300 * MIB) == 300 * MIB + LOGITS
