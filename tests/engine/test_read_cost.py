"""A short rest of a prompt is read with some of what comes before it where that is cheaper, and the words stay the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kvdesk.backend.llama import library
from kvdesk.backend.llama.abort_flag import AbortFlag
from kvdesk.backend.llama.kv.batches import TILE
from kvdesk.backend.llama.kv.conversation_cells import ConversationCells
from kvdesk.backend.llama.kv.growth_question import always_grow
from kvdesk.backend.llama.model import Model
from kvdesk.backend.settings import ContextSettings, ModelSettings
from tests.tiny_models import write_tiny

SETTINGS = ContextSettings(n_ctx=1024, n_threads=1, allocation="reserve")
TOKENS = [300 + n * 7 % 150 for n in range(700)]


@pytest.fixture
def many_heads(tmp_path: Path) -> Iterator[Model]:
    library.start()
    path = write_tiny("llama", tmp_path, n_layer=8, n_embd=512, n_head=16, n_head_kv=4)
    model = Model(str(path), ModelSettings(use_extra_bufts=False))
    yield model
    model.close()


def measured(model: Model, settings: ContextSettings) -> ConversationCells:
    """Cells of all but the last 40 TOKENS, where tokens read one by one have proved a hundred times as slow."""
    cells = ConversationCells(model, settings, AbortFlag())
    cells.feed(TOKENS[:660], always_grow)
    for n_tokens, depth, seconds in ((512, 0, 1.0), (512, 512, 1.1), (40, 512, 10.0)) * 8:
        cells._read_cost.note(n_tokens, depth, seconds)
    return cells


def test_a_tile_is_read_instead_of_forty_tokens_and_says_the_same(many_heads: Model) -> None:
    cells = measured(many_heads, SETTINGS)
    kept = cells.keep_prefix(TOKENS)
    assert (kept, len(cells.tokens)) == (700 - TILE, 700 - TILE)
    cells.feed(TOKENS[kept:], always_grow, logits=True)
    again = np.frombuffer(cells.context.logits(), np.float32)
    at_once = ConversationCells(many_heads, SETTINGS, AbortFlag())
    at_once.feed(TOKENS, always_grow, logits=True)
    assert np.allclose(again, np.frombuffer(at_once.context.logits(), np.float32), atol=1e-3)
    for each in (cells, at_once):
        each.close()


@pytest.mark.parametrize(
    "settings",
    [
        replace(SETTINGS, type_k="q8_0", type_v="q8_0"),
        replace(SETTINGS, flash_attn="off"),
    ],
)
def test_where_there_are_no_tiles_all_that_is_held_is_kept(many_heads: Model, settings: ContextSettings) -> None:
    cells = measured(many_heads, settings)
    assert cells.keep_prefix(TOKENS) == 660
    cells.close()


def test_a_change_of_settings_forgets_what_reading_took(many_heads: Model) -> None:
    cells = measured(many_heads, SETTINGS)
    cells.change(replace(SETTINGS, n_ctx=2048))
    assert cells.keep_prefix(TOKENS) == 660
    cells.close()
