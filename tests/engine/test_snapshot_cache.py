"""Keeping a conversation's cells does not wait for the disk, and what was kept is whole when it is wanted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvdesk.backend.conversations.snapshots import SnapshotStore
from kvdesk.backend.llama import library
from kvdesk.backend.llama.abort_flag import AbortFlag
from kvdesk.backend.llama.kv.conversation_cells import ConversationCells
from kvdesk.backend.llama.kv.growth_question import always_grow
from kvdesk.backend.llama.model import Model
from kvdesk.backend.llama.snapshot_cache import SnapshotCache
from kvdesk.backend.protocol.messages import SnapshotPlace
from kvdesk.backend.settings import ContextSettings, ModelSettings
from tests.tiny_models import write_tiny

TOKENS = [300 + n * 7 % 150 for n in range(90)]


class SlowStore(SnapshotStore):
    """A store whose disk writes only when ``is_ready`` is set."""

    is_ready = threading.Event()

    def save(self, *snapshot: Any) -> bool:
        assert self.is_ready.wait(60)
        return super().save(*snapshot)


@pytest.fixture
def cells(tmp_path: Path) -> Iterator[ConversationCells]:
    library.start()
    model = Model(str(write_tiny("llama", tmp_path)), ModelSettings(use_extra_bufts=False))
    cells = ConversationCells(model, ContextSettings(n_ctx=512, n_threads=1), AbortFlag())
    cells.start_conversation("one")
    cells.feed(TOKENS, always_grow)
    yield cells
    cells.close()
    model.close()


@pytest.fixture
def cache(tmp_path: Path, cells: ConversationCells) -> Iterator[SnapshotCache]:
    place = SnapshotPlace(str(tmp_path / "kept"), 100_000_000)
    cache = SnapshotCache(place, (Path(cells.model.path),))
    cache._store = SlowStore(tmp_path / "kept", place.budget_bytes)
    SlowStore.is_ready.clear()
    yield cache
    SlowStore.is_ready.set()
    cache.close()


def test_another_conversation_is_read_while_the_one_before_is_written(
    cells: ConversationCells, cache: SnapshotCache, tmp_path: Path
) -> None:
    assert cache.keep(cells)
    assert not list((tmp_path / "kept").glob("*.kvsnap"))
    cells.start_conversation("two")
    cells.forget()
    cells.feed(TOKENS[40:], always_grow)  # the same cells, written over
    assert cache.bring_back(cells, "three", TOKENS, always_grow) == 0  # nothing of it: nothing to wait for
    SlowStore.is_ready.set()
    cells.start_conversation("one")
    assert cache.bring_back(cells, "one", TOKENS, always_grow) == len(TOKENS)
    assert cells.tokens == TOKENS


def test_closing_waits_for_what_is_being_written(
    cells: ConversationCells, cache: SnapshotCache, tmp_path: Path
) -> None:
    assert cache.keep(cells)
    threading.Timer(0.05, SlowStore.is_ready.set).start()
    cache.close()
    assert len(list((tmp_path / "kept").glob("*.kvsnap"))) == 1


def test_the_same_cells_are_kept_once(cells: ConversationCells, cache: SnapshotCache) -> None:
    SlowStore.is_ready.set()
    assert cache.keep(cells)
    assert not cache.keep(cells)
