"""Every conversation keeps its cells: across switches, restarts and damage; one never sees another's."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from kvdesk.backend.engine.engine_event import Died
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import StopReason
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
    with Desk(tmp_path, tmp_path / "kept again") as desk:
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


@pytest.mark.logs("The engine was killed from outside")
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


@pytest.mark.logs("The engine was killed from outside")
def test_an_engine_killed_while_it_grows_leaves_the_old_snapshot(tmp_path: Path) -> None:
    path, kept = write_tiny("llama", tmp_path), tmp_path / "kept"
    small = ContextSettings(n_ctx=2048, initial_ctx=256, n_threads=1)
    with Desk(tmp_path, kept) as desk:
        desk.load(path, small)
        first, before = desk.answer("a story", conversation_id="one")
        desk.engine.send(m.Unload())
        desk.until(m.Unloaded)
        desk.load(path, small)
        desk.ask("a story", first, "go on " * 300, conversation_id="one")
        desk.until(m.GrowWanted)
        pid = desk.engine.pid
        assert pid is not None
        desk.engine.send(m.GrowAnswer("grow"))
        os.kill(pid, signal.SIGKILL)
        assert "while writing a reply" in str(desk.until(Died).error)
        desk.load(path, small)
        _, stats = desk.answer("a story", first, "go on", conversation_id="one")
        assert stats.reused_tokens >= before.prompt_tokens


@pytest.mark.logs("The engine was killed from outside")
def test_an_engine_killed_while_it_converts_leaves_the_old_snapshot(tmp_path: Path) -> None:
    path, kept = write_tiny("llama", tmp_path), tmp_path / "kept"
    with Desk(tmp_path, kept) as desk:
        desk.load(path)
        first, before = desk.answer(LONG, conversation_id="one")
        desk.engine.send(m.Unload())
        desk.until(m.Unloaded)
        desk.load(path)
        desk.answer(LONG, first, "go on", conversation_id="one")
        pid = desk.engine.pid
        assert pid is not None
        desk.engine.send(m.SetContext(ContextSettings(n_ctx=2048, n_threads=1, type_k="q8_0")))
        os.kill(pid, signal.SIGKILL)
        desk.until(Died)
        desk.load(path)
        _, stats = desk.answer(LONG, first, "go on", conversation_id="one")
        assert stats.reused_tokens >= before.prompt_tokens


@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="needs prlimit")
def test_a_growth_that_finds_no_memory_is_asked_about_and_the_old_cells_are_back(tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path, n_layer=8, n_embd=512, n_head=8, n_head_kv=8)
    with Desk(tmp_path) as desk:
        loaded = desk.load(
            path, ContextSettings(n_ctx=8192, initial_ctx=4096, n_threads=1, n_ubatch=64, type_k="f32", type_v="f32")
        )
        first, before = desk.answer("x" * 3000)
        pid = desk.engine.pid
        assert pid is not None
        engine = psutil.Process(pid)
        room = loaded.context.kv.bytes_allocated * 6 // 5  # holds the copy and the old cells, not twice as many
        engine.rlimit(psutil.RLIMIT_AS, (engine.memory_info().vms + room, -1))
        asked: list[m.GrowWanted] = []

        def answer(wanted: m.GrowWanted) -> m.GrowAnswer:
            asked.append(wanted)
            return m.GrowAnswer("stop" if wanted.failed else "grow")

        desk.growth = answer
        _, stats = desk.answer("x" * 3000, first, "y" * 1500)
        assert stats.stop_reason is StopReason.CONTEXT_FULL
        assert "could not make a context" in asked[-1].failed or "no memory to hold" in asked[-1].failed
        _, stats = desk.answer("x" * 3000, first, "go on")
        assert stats.reused_tokens >= before.prompt_tokens


def test_a_short_conversation_gives_cells_back_only_when_memory_is_short(tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path)
    settings = ContextSettings(n_ctx=8192, initial_ctx=256, n_threads=1, n_ubatch=128)
    with Desk(tmp_path, tmp_path / "kept") as desk:
        for margin, shrinks in ((0, False), (1 << 60, True)):
            desk.engine.margin_bytes = margin
            desk.load(path, settings)
            desk.answer("x" * 3000, conversation_id="long")
            before = len(desk.of(m.Grown))
            desk.answer("hi", conversation_id="short")
            steps = [event.step for event in desk.of(m.Grown)][before:]
            assert bool(steps) is shrinks
            if shrinks:
                assert steps[0].to_cells < steps[0].from_cells
        _, stats = desk.answer("x" * 3000, conversation_id="long")
        assert stats.reused_tokens > 2500
