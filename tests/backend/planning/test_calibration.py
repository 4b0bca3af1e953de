"""calibration.py: overheads are learned from loads, predictions are kept beside what came of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kvdesk.backend.gguf.header import ArraySummary
from kvdesk.backend.planning.calibration import (
    CELL_BYTES,
    CUDA_CONTEXT_BYTES,
    CUDA_RAM_BYTES,
    Calibration,
    compare,
    typical_bytes,
)
from kvdesk.backend.planning.device_plan import Overhead
from kvdesk.backend.planning.plan import MemoryPlan, make_plan
from kvdesk.backend.protocol.footprint import Footprint
from tests.plan_samples import GIB, MIB, footprint, model_file, settings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calibration.json"


def planned(calibration: Calibration, sized: Footprint) -> MemoryPlan:
    return make_plan(sized, [], calibration.overheads(model_file(), sized), first_batch=footprint(settings(512)))


def test_a_model_never_loaded_has_a_typical_overhead(path: Path) -> None:
    overhead = Calibration(path).overheads(model_file(), footprint())["RAM"]
    assert overhead.learned is False
    assert overhead.size_bytes == typical_bytes(model_file()) + 8192 * CELL_BYTES
    merges = model_file(metadata={"tokenizer.ggml.merges": ArraySummary("str", 100_000)})
    assert typical_bytes(merges) > typical_bytes(model_file()) + 10 * MIB


def test_the_next_prediction_meets_what_was_measured(path: Path) -> None:
    calibration = Calibration(path)
    plan = planned(calibration, footprint())
    held = plan.resident_bytes + 37 * MIB
    comparison = compare(plan, model_file(), footprint().buffers, {"RAM": held})
    row = comparison.row("RAM", "total")
    assert row is not None
    assert row.error_bytes == 37 * MIB
    calibration.learn(plan, model_file(), comparison)
    again = planned(calibration, footprint())
    assert again.resident_bytes == held
    assert again.devices[0].overhead_learned is True


def test_what_was_learned_holds_for_other_lengths(path: Path) -> None:
    calibration = Calibration(path)
    plan = planned(calibration, footprint())
    calibration.learn(plan, model_file(), compare(plan, model_file(), footprint().buffers, {"RAM": 2 * GIB}))
    short, long = (
        calibration.overheads(model_file(), footprint(settings(n)))["RAM"].size_bytes or 0 for n in (1024, 32768)
    )
    assert long - short == (32768 - 1024) * CELL_BYTES


def test_a_cards_context_is_what_cuda_usually_takes_until_the_first_load_there(path: Path) -> None:
    """Found on an H100: with the context unknown, the longest context that "fits" could not be made."""
    calibration = Calibration(path)
    on_card = footprint(on_gpu=True)
    assert calibration.overheads(model_file(), on_card)["CUDA0"] == Overhead(CUDA_CONTEXT_BYTES)
    vulkan = replace(on_card, devices=tuple(replace(d, name=d.name.replace("CUDA", "Vulkan")) for d in on_card.devices))
    assert calibration.overheads(model_file(), vulkan)["Vulkan0"].size_bytes is None
    plan = make_plan(on_card, [], calibration.overheads(model_file(), on_card))
    held = {"RAM": None, "CUDA0": on_card.bytes_on("CUDA0") + 400 * MIB}
    calibration.learn(plan, model_file(), compare(plan, model_file(), on_card.buffers, held))
    assert calibration.overheads(model_file(), on_card)["CUDA0"].size_bytes == 400 * MIB
    other_model = model_file(path=Path("other.gguf"))
    assert calibration.overheads(other_model, on_card)["CUDA0"].size_bytes == 400 * MIB
    assert calibration.overheads(other_model, on_card)["RAM"].learned is False


def test_a_cards_driver_takes_ram_and_what_was_learned_without_it_is_not_said_of_a_load_with_it(path: Path) -> None:
    calibration = Calibration(path)
    in_ram, on_card = footprint(), footprint(on_gpu=True)
    usual = [calibration.overheads(model_file(), sized)["RAM"].size_bytes or 0 for sized in (in_ram, on_card)]
    assert usual[1] - usual[0] == CUDA_RAM_BYTES
    plan = planned(calibration, in_ram)
    calibration.learn(plan, model_file(), compare(plan, model_file(), in_ram.buffers, {"RAM": 2 * GIB}))
    assert calibration.overheads(model_file(), in_ram)["RAM"].learned is True
    assert calibration.overheads(model_file(), on_card)["RAM"] == Overhead(usual[1])


def test_components_are_compared_one_by_one(path: Path) -> None:
    plan = planned(Calibration(path), footprint())
    buffers = tuple(replace(b, size_bytes=b.size_bytes + 10) for b in footprint().buffers)
    comparison = compare(plan, model_file(), buffers, {"RAM": None})
    for component in ("weights", "kv", "compute", "output"):
        row = comparison.row("RAM", component)
        assert row is not None
        assert row.error_bytes == 10
    total = comparison.row("RAM", "total")
    assert total is not None
    assert total.error_bytes is None


def test_history_survives_a_restart(path: Path) -> None:
    calibration = Calibration(path)
    plan = planned(calibration, footprint())
    comparison = compare(plan, model_file(), footprint().buffers, {"RAM": 2 * GIB})
    calibration.learn(plan, model_file(), comparison)
    again = Calibration(path)
    assert again.history == (comparison,)
    assert again.constants == calibration.constants != {}


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"constants": 3, "history": []}', '{"constants": {}, "history": [1]}']
)
@pytest.mark.logs("starts anew")
def test_a_damaged_file_starts_anew(path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(damage, encoding="utf-8")
    calibration = Calibration(path)
    assert calibration.history == ()
    assert calibration.constants == {}
    assert "starts anew" in caplog.text
    plan = planned(calibration, footprint())
    calibration.learn(plan, model_file(), compare(plan, model_file(), footprint().buffers, {"RAM": 2 * GIB}))
    assert json.loads(path.read_text(encoding="utf-8"))["history"]


def test_nothing_is_learned_of_a_process_that_has_worked(path: Path) -> None:
    """Checkpoints and what allocators keep are no constants; the comparison is kept all the same."""
    calibration = Calibration(path)
    plan = planned(calibration, footprint())
    worked = compare(plan, model_file(), footprint().buffers, {"RAM": plan.resident_bytes + 67 * MIB})
    calibration.learn(plan, model_file(), worked, is_fresh=False)
    assert calibration.constants == {}
    assert calibration.history == (worked,)
