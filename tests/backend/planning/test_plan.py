"""plan.py: footprints held against the machine, in numbers and in one sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvdesk.backend.planning.device_plan import Overhead
from kvdesk.backend.planning.plan import growth_cost, make_plan, with_disk_speed, with_max_n_ctx
from kvdesk.backend.planning.pricer import held_by
from kvdesk.backend.protocol.facts import Buffer, BufferKind, CacheBlock
from kvdesk.backend.system.nvml import GpuReading
from kvdesk.backend.system.samples import DomainReading
from tests.plan_samples import GIB, GPU, MIB, footprint, ram, settings

NO_OVERHEAD = {"RAM": Overhead(0, True), "CUDA0": Overhead(0, True)}
DEVICE_KEYS = {
    "name", "kind", "weights_bytes", "weights_mapped_bytes", "kv_bytes", "recurrent_bytes", "compute_bytes",
    "output_bytes", "overhead_bytes", "total_bytes", "capacity_bytes", "others_bytes", "ceiling_bytes",
    "oom_line_bytes", "fits",
}  # fmt: skip


def test_total_is_the_sum_of_what_is_shown() -> None:
    plan = make_plan(footprint(), [ram(8 * GIB)], {"RAM": Overhead(100 * MIB)})
    (row,) = plan.devices
    assert (row.name, row.kind) == ("RAM", "ram")
    assert row.weights_mapped_bytes == row.weights_bytes == GIB
    assert row.kv_bytes == 16 * MIB
    parts = row.weights_bytes + row.kv_bytes + row.compute_bytes + row.output_bytes + (row.overhead_bytes or 0)
    assert row.total_bytes == parts == GIB + (16 + 64 + 1 + 100) * MIB


def test_line_is_the_ceiling_less_the_margin() -> None:
    plan = make_plan(footprint(), [ram(8 * GIB)], NO_OVERHEAD, margin_bytes=GIB)
    (row,) = plan.devices
    assert row.ceiling_bytes == 8 * GIB
    assert row.oom_line_bytes == 7 * GIB
    assert row.room_bytes == 7 * GIB - row.total_bytes
    assert row.others_bytes == 8 * GIB
    assert plan.fits is True


def test_what_the_engine_holds_already_raises_the_ceiling() -> None:
    loaded = DomainReading("RAM", "ram", 16 * GIB, 4 * GIB, 3 * GIB, 2 * GIB, GIB)
    plan = make_plan(footprint(), [loaded], NO_OVERHEAD)
    assert plan.devices[0].ceiling_bytes == 6 * GIB


@pytest.mark.parametrize(
    ("available", "longest", "kind", "alarm", "words"),
    [
        (8 * GIB, 32768, "fits", "", "Fits, 5.9 GiB under the line"),
        (2 * GIB + 800 * MIB, 32768, "fits", "amber", "Fits, 719 MiB under the line"),
        (2 * GIB + 200 * MIB, 8192, "fits", "red", "Fits, 119 MiB under the line"),
        (2 * GIB, 2048, "runs-slowly", "amber", "Runs slowly: 81 MiB of the weights will be read from disk again"),
        (1 * GIB, None, "does-not-fit", "red", "Does not fit by 81 MiB"),
        (1 * GIB, 256, "fits-up-to", "red", "Fits up to 256 tokens; 81 MiB over the line at 8,192"),
        (80 * MIB, None, "will-be-killed", "red", "Will be killed: 1 MiB over what there is"),
        (80 * MIB, 256, "fits-up-to", "red", "Fits up to 256 tokens; at 8,192 the engine will be killed, 1 MiB over"),
    ],
)
def test_one_sentence(available: int, longest: int | None, kind: str, alarm: str, words: str) -> None:
    plan = make_plan(footprint(), [ram(available)], NO_OVERHEAD, max_n_ctx=longest)
    assert plan.verdict.kind == kind
    assert plan.verdict.alarm == alarm
    assert plan.verdict.sentence.startswith(words)


def test_a_machine_that_cannot_be_read_is_unknown_not_full() -> None:
    plan = make_plan(footprint(), [], NO_OVERHEAD)
    assert plan.fits is None
    assert plan.verdict.kind == "unknown"
    assert plan.devices[0].oom_line_bytes is None


def test_each_device_has_its_own_line() -> None:
    card = DomainReading("CUDA0", "gpu", 8 * GIB, 2 * GIB, 0)
    plan = make_plan(footprint(on_gpu=True), [ram(8 * GIB), card], NO_OVERHEAD, margin_bytes=GIB)
    in_ram, on_card = plan.devices
    assert (in_ram.fits, on_card.fits) == (True, False)
    assert in_ram.total_bytes == MIB
    assert on_card.weights_mapped_bytes == 0
    assert plan.fits is False
    assert plan.verdict.device == "CUDA0"
    assert plan.verdict.sentence == "Does not fit by 80 MiB on CUDA0"


def test_a_device_nobody_read_is_as_llama_cpp_lists_it() -> None:
    plan = make_plan(footprint(on_gpu=True), [ram(8 * GIB)], NO_OVERHEAD)
    card = plan.device("CUDA0")
    assert card is not None
    assert (card.capacity_bytes, card.others_bytes, card.ceiling_bytes) == (8 * GIB, GIB, 7 * GIB)


def test_unknown_context_of_a_card_is_said_and_not_zero() -> None:
    plan = make_plan(footprint(on_gpu=True), [], {"RAM": Overhead(0)})
    card = plan.device("CUDA0")
    assert card is not None
    assert card.overhead_bytes is None
    assert any("CUDA0" in warning and "unknown" in warning for warning in plan.warnings)


def test_the_helpers_own_share_of_a_card_is_not_blamed_on_others() -> None:
    card = DomainReading("CUDA0", "gpu", 8 * GIB, 2 * GIB, 0)
    held = replace(footprint(on_gpu=True), helper_device_bytes={"CUDA0": 300 * MIB})
    plan = make_plan(held, [card], NO_OVERHEAD)
    found = plan.device("CUDA0")
    assert found is not None
    assert found.ceiling_bytes == 2 * GIB + 300 * MIB
    assert found.others_bytes == 6 * GIB - 300 * MIB


def test_what_the_helper_holds_is_found_by_its_process() -> None:
    other = replace(GPU, name="CUDA1")
    readings = [
        (GPU, GpuReading(0, "A card", "0000:01:00.0", 8 * GIB, GIB, {7: 300 * MIB, 8: GIB})),
        (other, GpuReading(1, "A card", "0000:02:00.0", 8 * GIB, GIB, None)),
    ]
    assert held_by(7, readings) == {"CUDA0": 300 * MIB}


def test_resident_leaves_out_compute_that_the_first_batch_does_not_touch() -> None:
    first_batch = footprint(settings(512))
    plan = make_plan(footprint(), [], NO_OVERHEAD, first_batch=first_batch)
    (row,) = plan.devices
    assert row.total_bytes - row.resident_bytes == 64 * MIB - 34 * MIB


def test_growing_counts_the_copy() -> None:
    readings = [ram(GIB + 120 * MIB)]
    before, after = (make_plan(footprint(settings(n)), readings, NO_OVERHEAD, 0) for n in (4096, 8192))
    assert growth_cost(before, after, 8 * MIB).fits is True
    tight = growth_cost(before, after, 60 * MIB)
    assert tight.peak_bytes["RAM"] == after.total_bytes + 60 * MIB
    assert tight.fits is False
    assert (tight.from_cells, tight.to_cells) == (4096, 8192)


def test_a_full_window_costs_nothing_more_per_token() -> None:
    caches = (
        CacheBlock("non-SWA", 8192, 2, 8192 * 1000, "f16", "f16"),
        CacheBlock("SWA", 1024, 6, 1024 * 3000, "f16", "f16"),
    )
    plan = make_plan(replace(footprint(), caches=caches), [], NO_OVERHEAD)
    assert plan.kv.bytes_per_token == 1000


def test_json_has_the_contract() -> None:
    told = with_max_n_ctx(make_plan(footprint(), [ram(8 * GIB)], NO_OVERHEAD, formula_bytes=7), 4096).to_json_dict()
    assert {"settings", "source", "devices", "kv", "fits", "max_n_ctx", "options", "warnings"} <= told.keys()
    assert told["devices"][0].keys() >= DEVICE_KEYS
    assert told["kv"] == {"bytes_per_token": 2048, "cells": 8192, "total_bytes": 16 * MIB, "formula_bytes": 7}
    assert told["max_n_ctx"] == 4096
    assert told["settings"]["n_ctx"] == 8192


def test_buffers_of_a_host_type_lie_in_ram() -> None:
    pinned = Buffer("CPU", "CUDA_Host", BufferKind.COMPUTE, 5 * MIB)
    mixed = footprint(on_gpu=True)
    plan = make_plan(replace(mixed, buffers=(*mixed.buffers, pinned)), [], NO_OVERHEAD)
    assert plan.devices[0].compute_bytes == 5 * MIB


def test_three_questions_of_a_domain() -> None:
    """1 GiB of mapped weights, 81 MiB that must be held; a mixture reads a quarter of its weights for a token."""
    (row,) = make_plan(footprint(), [ram(8 * GIB)], NO_OVERHEAD, mapped_read_share=0.25).devices
    assert row.must_hold_bytes == 81 * MIB
    assert row.working_set_bytes == 81 * MIB + GIB // 4
    told = row.to_json_dict()
    assert (told["must_hold_bytes"], told["working_set_bytes"]) == (row.must_hold_bytes, row.working_set_bytes)
    card = make_plan(footprint(on_gpu=True), [], NO_OVERHEAD).devices[1]
    assert card.must_hold_bytes == card.working_set_bytes == card.total_bytes


@pytest.mark.parametrize(
    ("speed", "share", "words"),
    [
        (None, 1.0, "again and again"),
        (162 * MIB, 1.0, "again and again, about 2.0 tokens/s"),
        (162 * MIB, 0.1, "again and again, about 20 tokens/s"),
    ],
)
def test_a_slow_one_says_how_slow(speed: float | None, share: float, words: str) -> None:
    plan = make_plan(footprint(), [ram(2 * GIB)], NO_OVERHEAD, mapped_read_share=share)
    assert with_disk_speed(plan, speed).verdict.sentence.endswith(words)
    assert with_max_n_ctx(with_disk_speed(plan, speed), 512).verdict.sentence.endswith(
        f"{words}; up to 512 tokens they stay in memory"
    )


def test_a_device_is_never_killed_it_does_not_fit() -> None:
    card = DomainReading("CUDA0", "gpu", 8 * GIB, MIB, 0)
    verdict = make_plan(footprint(on_gpu=True), [ram(8 * GIB), card], NO_OVERHEAD, margin_bytes=0).verdict
    assert (verdict.kind, verdict.sentence) == ("does-not-fit", "Does not fit by 1.1 GiB on CUDA0")
