"""planner.py: the window's questions answered on a thread, the newest first, the helper let go when idle."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from kvdesk.backend.planning.plan_event import (
    CapacityReady,
    ChoicesReady,
    Compared,
    CurveReady,
    GrowthPriced,
    KvTableReady,
    PlanEvent,
    PlanFailed,
    PlanReady,
)
from kvdesk.backend.planning.planner import UNFORESEEN, Planner
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
from tests.plan_samples import GIB, MIB, ram
from tests.tiny_models import replace_alike, write_tiny

SETTINGS = EngineSettings(ModelSettings(use_extra_bufts=False), ContextSettings(n_ctx=2048))
E = TypeVar("E")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("gemma3", tmp_path_factory.mktemp("models"))


class Desk:
    """A planner and what it said."""

    def __init__(self, home: Path, available_bytes: int = 8 * GIB, idle_s: float = 60.0) -> None:
        self.events: queue.SimpleQueue[PlanEvent] = queue.SimpleQueue()
        self.available_bytes = available_bytes
        self.planner = Planner(self.events.put, self.read, home / "calibration.json", GIB, idle_s)

    def read(self) -> list[object]:
        return [ram(self.available_bytes)]

    def until(self, kind: type[E], request_id: int = 0) -> E:
        while True:
            event = self.events.get(timeout=60)
            assert isinstance(event, kind | PlanReady), event
            if isinstance(event, kind) and request_id in (0, event.request_id):  # type: ignore[attr-defined]
                return event


@pytest.fixture
def desk(tmp_path: Path, home: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.planner.stop()


def final(desk: Desk, request_id: int) -> PlanReady:
    while True:
        event = desk.until(PlanReady, request_id)
        if event.is_final:
            return event


def test_a_plan_comes_at_once_and_again_with_what_fits(desk: Desk, path: Path) -> None:
    asked = desk.planner.plan(path, SETTINGS)
    quick = desk.until(PlanReady, asked)
    assert (quick.is_final, quick.plan.max_n_ctx) == (False, None)
    whole = final(desk, asked)
    assert whole.plan.max_n_ctx == whole.model.n_ctx_train == 4096
    assert whole.plan.devices == quick.plan.devices
    assert whole.plan.fits is True


def test_only_the_newest_of_many_is_answered_in_full(desk: Desk, path: Path) -> None:
    ids = [desk.planner.plan(path, replace(SETTINGS, context=ContextSettings(n_ctx=256 * n))) for n in range(1, 61)]
    assert final(desk, ids[-1]).plan.n_ctx == 256 * 60
    answered: set[int] = set()
    while not desk.events.empty():
        answered.add(desk.events.get().request_id)
    assert len(answered) < 30


def test_what_does_not_fit_comes_with_priced_options(tmp_path: Path, home: Path, path: Path) -> None:
    desk = Desk(tmp_path, GIB + 60 * MIB)
    asked = replace(SETTINGS, context=ContextSettings(n_ctx=262144, swa_full=True))
    plan = final(desk, desk.planner.plan(path, asked)).plan
    desk.planner.stop()
    assert plan.fits is False
    assert plan.verdict.kind == "fits-up-to"
    changes = {option.change for option in plan.options}
    assert {"swa_full", "n_ctx", "type_kv"} <= changes
    shorter = next(option for option in plan.options if option.change == "n_ctx")
    assert shorter.fits is True
    assert shorter.settings.context.n_ctx == plan.max_n_ctx


def test_curves_cross_the_line_where_the_longest_context_is(tmp_path: Path, home: Path, path: Path) -> None:
    desk = Desk(tmp_path, GIB + 58 * MIB)
    curves = desk.until(CurveReady, desk.planner.curve(path, SETTINGS, [("f16", "f16"), ("q8_0", "q8_0")], 16)).curves
    desk.planner.stop()
    assert [(c.type_k, c.type_v) for c in curves] == [("f16", "f16"), ("q8_0", "q8_0")]
    for curve in curves:
        assert len(curve.points) == 16
        assert [p.n_ctx for p in curve.points] == sorted({p.n_ctx for p in curve.points})
        assert [p.total_bytes for p in curve.points] == sorted(p.total_bytes for p in curve.points)
        assert curve.crossing_n_ctx is not None
        assert curve.oom_line_bytes == 58 * MIB
        for point in curve.points:
            assert (point.device_bytes <= 58 * MIB) == (point.n_ctx <= curve.crossing_n_ctx)
    assert (curves[1].crossing_n_ctx or 0) >= (curves[0].crossing_n_ctx or 0)


def test_capacity_growth_and_sizes(desk: Desk, path: Path) -> None:
    cells = desk.until(CapacityReady, desk.planner.capacity(path, SETTINGS, (1, 4), (1024, 4096))).cells
    assert [(c.n_seq, c.n_ctx_seq) for c in cells] == [(1, 1024), (1, 4096), (4, 1024), (4, 4096)]
    assert cells[2].kv_bytes == 4 * cells[0].kv_bytes
    cost = desk.until(GrowthPriced, desk.planner.growth(path, SETTINGS, 1024, 2048, 5 * MIB)).cost
    assert cost.peak_bytes["RAM"] - cost.total_bytes["RAM"] == 5 * MIB
    assert cost.fits is True
    table = desk.until(KvTableReady, desk.planner.kv_table(path, SETTINGS)).table
    assert list(table) == [4096, 8192, 32768, 131072]
    assert table[8192]["q8_0"] == (table[8192]["f16"] or 0) * 17 // 32


def test_a_question_that_a_load_waits_for_is_answered_whatever_is_edited_meanwhile(desk: Desk, path: Path) -> None:
    waits = desk.planner.plan(path, SETTINGS, "load")
    for n_ctx in (512, 1024, 2048):
        desk.planner.plan(path, replace(SETTINGS, context=replace(SETTINGS.context, n_ctx=n_ctx)))
    assert final(desk, waits).plan.settings == SETTINGS


def test_choices_cost_what_their_plan_costs_more(desk: Desk, path: Path) -> None:
    asked = desk.planner.choices(path, SETTINGS, {"type_k": ("f16", "q8_0"), "flash_attn": ("auto", "off")})
    deltas = desk.until(ChoicesReady, asked).delta_bytes
    now, q8_0, off = (
        final(desk, desk.planner.plan(path, replace(SETTINGS, context=replace(SETTINGS.context, **change)))).plan
        for change in ({}, {"type_k": "q8_0"}, {"flash_attn": "off"})
    )
    assert deltas["type_k"] == {"f16": 0, "q8_0": q8_0.total_bytes - now.total_bytes}
    assert deltas["flash_attn"] == {"auto": 0, "off": off.total_bytes - now.total_bytes}
    assert (deltas["type_k"]["q8_0"] or 0) < 0 < (deltas["flash_attn"]["off"] or 0)


def test_a_choice_that_llama_cpp_refuses_has_no_price(desk: Desk, path: Path) -> None:
    without = replace(SETTINGS, context=replace(SETTINGS.context, flash_attn="off"))
    deltas = desk.until(ChoicesReady, desk.planner.choices(path, without, {"type_v": ("f16", "q8_0")})).delta_bytes
    assert deltas == {"type_v": {"f16": 0, "q8_0": None}}


def test_a_load_teaches(desk: Desk, path: Path) -> None:
    plan = final(desk, desk.planner.plan(path, SETTINGS)).plan
    assert plan.footprint is not None
    held = {"RAM": plan.resident_bytes + 20 * MIB}
    asked = desk.planner.compare(path, SETTINGS, plan.footprint.buffers, held)
    comparison = desk.until(Compared, asked).comparison
    row = comparison.row("RAM", "kv")
    assert row is not None
    assert row.error_bytes == 0
    assert desk.planner.history == (comparison,)
    again = final(desk, desk.planner.plan(path, SETTINGS)).plan
    assert again.resident_bytes == held["RAM"]


def test_failures_are_events_and_the_planner_goes_on(desk: Desk, path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUX")
    failed = desk.until(PlanFailed, desk.planner.plan(broken, SETTINGS))
    assert failed.kind == "ModelFileError"
    impossible = replace(SETTINGS, context=ContextSettings(type_v="q8_0", flash_attn="off"))
    refused = desk.until(PlanFailed, desk.planner.plan(path, impossible))
    assert refused.nearest is not None
    assert refused.nearest.context.flash_attn == "auto"
    assert final(desk, desk.planner.plan(path, SETTINGS)).plan.fits is True


@pytest.mark.logs("a plan for .* failed")
def test_a_mistake_of_our_own_is_no_raw_text_and_the_planner_goes_on(
    desk: Desk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.until(PlanReady, desk.planner.plan(path, SETTINGS))
    with monkeypatch.context() as patch:
        patch.setattr("kvdesk.backend.planning.pricer.Pricer.plan", lambda *_arguments, **_options: "x" in 1)
        failed = desk.until(PlanFailed, desk.planner.plan(path, SETTINGS))
    assert failed.sentence == UNFORESEEN
    desk.until(PlanReady, desk.planner.plan(path, SETTINGS))


def test_an_idle_helper_is_let_go_and_comes_back(tmp_path: Path, home: Path, path: Path) -> None:
    desk = Desk(tmp_path, idle_s=0.1)
    final(desk, desk.planner.plan(path, SETTINGS))
    deadline = time.monotonic() + 30
    while desk.planner.helper_pid is not None:
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    longer = replace(SETTINGS, context=ContextSettings(n_ctx=3072))
    assert final(desk, desk.planner.plan(path, longer)).plan.n_ctx == 3072
    desk.planner.stop()
    assert desk.planner.helper_pid is None


def test_another_file_in_its_place_is_priced_by_its_own_header(desk: Desk, tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path)
    planner = desk.planner
    first = desk.until(PlanReady, planner.predict(path, SETTINGS)).plan
    replace_alike(path, b"Tiny llama", b"Tiny koala")
    assert desk.until(PlanReady, planner.predict(path, SETTINGS)).model.name == "Tiny koala"
    write_tiny("llama", tmp_path, n_layer=6)
    assert desk.until(PlanReady, planner.predict(path, SETTINGS)).plan.kv.total_bytes == 3 * first.kv.total_bytes
    path.unlink()
    assert desk.until(PlanReady, planner.predict(path, SETTINGS)).plan.kv.total_bytes == 3 * first.kv.total_bytes
