"""Pages of the model file that no weight is read from any more are given back, are not planned, and nothing changes by it."""

from __future__ import annotations

import mmap
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvdesk.backend.gguf.model_file import read_model_file
from kvdesk.backend.llama import mapped_pages
from kvdesk.backend.planning.dry_run import DryRun
from kvdesk.backend.processes import engine_process
from kvdesk.backend.protocol.facts import BufferKind
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
from tests.engine.harness import Desk
from tests.tiny_models import write_tiny

MIB = 1024 * 1024
REPACKED = ModelSettings(use_extra_bufts=True)
CONTEXT = ContextSettings(n_ctx=512, n_threads=1)
SIZES = {"n_embd": 512, "n_head": 8, "n_head_kv": 8, "n_ff": 2048}
"""Large enough that the weights are many pages."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_tiny("llama", folder, weight_type="q4_0", n_layer=4, file_name="quantized.gguf", **SIZES)


@pytest.fixture(scope="module")
def repacks(model: Path) -> None:
    """Where a computation with repacked weights ends the process there is nothing to look at."""
    with DryRun(read_model_file(model)) as dry_run:
        if not dry_run.repacking_works():
            pytest.skip("this machine cannot compute with repacked weights")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as desk:
        yield desk


def resident_of(pid: int | None, path: Path) -> int:
    """Resident bytes of the mapping of ``path`` in process ``pid``."""
    found, counting = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counting = line.endswith(str(path))
        elif counting and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="mappings are read from /proc")
def test_only_the_pages_that_are_read_stay_resident(desk: Desk, model: Path, repacks: None) -> None:
    settings = EngineSettings(REPACKED, CONTEXT)
    with DryRun(read_model_file(model)) as dry_run:
        planned = [b for b in dry_run.ask(settings).buffers if b.mapped]
        repacked = [b for b in dry_run.ask(settings).buffers if b.kind is BufferKind.WEIGHTS and not b.mapped]
    if not repacked:
        pytest.skip("this CPU repacks nothing")
    desk.load(model, CONTEXT, REPACKED)
    desk.answer("Once upon a time")
    resident = resident_of(desk.engine.pid, model)
    assert sum(b.size_bytes for b in planned) < sum(b.span_bytes or 0 for b in planned) // 2
    edges = 2 * mmap.PAGESIZE  # llama.cpp unmaps the head and the tail of the file in whole pages
    assert resident <= sum(b.size_bytes for b in planned) + edges
    assert sum(b.size_bytes for b in repacked) + resident < 1.1 * os.path.getsize(model)


def test_the_engine_counts_what_was_planned(desk: Desk, model: Path, repacks: None) -> None:
    for settings in (REPACKED, ModelSettings(use_extra_bufts=False)):
        with DryRun(read_model_file(model)) as dry_run:
            planned = dry_run.ask(EngineSettings(settings, CONTEXT)).buffers
        actual = desk.load(model, CONTEXT, settings).context.buffers
        told = {(b.name, b.kind): b.size_bytes for b in actual if b.kind is BufferKind.WEIGHTS}
        assert told == {(b.name, b.kind): b.size_bytes for b in planned if b.kind is BufferKind.WEIGHTS}


def test_the_words_are_the_same_without_the_pages(
    tmp_path: Path, model: Path, repacks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    for entry in (engine_process.worker_main, keeping_all_pages):
        monkeypatch.setattr("kvdesk.backend.engine.engine.worker_main", entry)
        with Desk(tmp_path) as desk:
            desk.load(model, CONTEXT, REPACKED)
            said.append(desk.answer("Once upon a time")[0])
    assert said[0]
    assert said[0] == said[1]


def keeping_all_pages(*args: object) -> None:
    """The engine's entry, which gives nothing back."""
    mapped_pages.give_back = lambda *_: 0  # type: ignore[assignment]
    engine_process.worker_main(*args)  # type: ignore[arg-type]


def test_pages_are_merged_and_rounded_outwards() -> None:
    page = mmap.PAGESIZE
    assert mapped_pages.pages([(page + 5, page + 6), (0, 1), (4 * page - 1, 4 * page + 1)]) == [
        (0, 2 * page),
        (3 * page, 5 * page),
    ]
    assert mapped_pages.page_bytes([(0, 1), (5 * page, 5 * page + 1)]) == 2 * page
    assert mapped_pages.pages([]) == []
