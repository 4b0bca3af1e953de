"""Every conversation keeps its cells: across switches, restarts and damage; one never sees another's."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from kvdesk.backend import messages as m
from kvdesk.backend.engine import Died
from kvdesk.backend.settings import ContextSettings
from tests.engine.harness import Desk
from tests.engine.test_engine import MARKED
from tests.tiny_models import write_tiny

FAMILIES = ("llama", "gemma3", "mamba", "lfm2", "qwen3moe")
LONG = "a long story about a river and the people who live there " * 8


@pytest.mark.parametrize("family", FAMILIES)
def test_switching_back_rereads_almost_nothing_and_says_the_same(tmp_path: Path, family: str) -> None:
    path = write_tiny(family, tmp_path, chat_template=MARKED)
    with Desk(tmp_path, tmp_path / "kept") as desk:
        desk.load(path)
        first, _ = desk.answer(LONG, conversation_id="one")
        expected, without = desk.answer(LONG, first, "go on", conversation_id="one")
        assert without.reused_tokens > 100
        desk.load(path)
        desk.answer(LONG, conversation_id="one")
        desk.answer("something else altogether " * 8, conversation_id="two")
        again, stats = desk.answer(LONG, first, "go on", conversation_id="one")
        assert stats.reused_tokens > 100
        assert again == expected


def test_a_restart_brings_the_cells_back(tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path)
    with Desk(tmp_path, tmp_path / "kept") as desk:
        desk.load(path)
        first, before = desk.answer(LONG, conversation_id="one")
    with Desk(tmp_path, tmp_path / "kept") as desk:
        desk.load(path)
        _, stats = desk.answer(LONG, first, "go on", conversation_id="one")
        assert stats.reused_tokens >= before.prompt_tokens
        assert stats.reread_tokens == 0


def test_other_cache_types_and_other_models_do_not_take_them(tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path)
    with Desk(tmp_path, tmp_path / "kept") as desk:
        desk.load(path)
        desk.answer(LONG, conversation_id="one")
        desk.load(path, ContextSettings(n_ctx=2048, n_threads=1, type_k="q8_0"))
        assert desk.answer(LONG, conversation_id="one")[1].reused_tokens == 0
        desk.load(write_tiny("llama", tmp_path, seed=2, file_name="other.gguf"))
        assert desk.answer(LONG, conversation_id="one")[1].reused_tokens == 0


def test_a_damaged_snapshot_is_read_anew(tmp_path: Path) -> None:
    path, kept = write_tiny("llama", tmp_path), tmp_path / "kept"
    with Desk(tmp_path, kept) as desk:
        desk.load(path)
        expected, _ = desk.answer(LONG, conversation_id="one")
    (snapshot,) = kept.glob("*.kvsnap")
    content = bytearray(snapshot.read_bytes())
    content[len(content) // 2] ^= 1
    snapshot.write_bytes(content)
    with Desk(tmp_path, kept) as desk:
        desk.load(path)
        text, stats = desk.answer(LONG, conversation_id="one")
        assert stats.reused_tokens == 0
        assert text == expected


def test_an_engine_killed_while_it_keeps_leaves_the_old_snapshot(tmp_path: Path) -> None:
    path, kept = write_tiny("llama", tmp_path), tmp_path / "kept"
    with Desk(tmp_path, kept) as desk:
        desk.load(path)
        first, before = desk.answer(LONG, conversation_id="one")
        desk.engine.send(m.Unload())
        desk.until(m.Unloaded)
        desk.load(path)
        desk.answer(LONG, first, "and now " * 30, conversation_id="one")
        pid = desk.engine.pid
        assert pid is not None
        desk.engine.send(m.Unload())  # starts to write
        os.kill(pid, signal.SIGKILL)
        desk.until(Died)
    with Desk(tmp_path, kept) as desk:
        desk.load(path)
        _, stats = desk.answer(LONG, first, "go on", conversation_id="one")
        assert stats.reused_tokens >= before.prompt_tokens
