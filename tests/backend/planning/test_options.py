"""options.py: what may be asked, the nearest that may, and what to change when it does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvdesk.backend.planning import options
from kvdesk.backend.planning.device_plan import Overhead
from kvdesk.backend.planning.plan import MemoryPlan, make_plan, with_max_n_ctx
from kvdesk.backend.settings import EngineSettings
from kvdesk.backend.system.samples import DomainReading
from kvdesk.errors import SettingsError
from tests.plan_samples import GIB, MIB, footprint, model_file, ram, settings

NO_OVERHEAD = {"RAM": Overhead(0), "CUDA0": Overhead(0)}


def priced(chosen: EngineSettings, available: int) -> MemoryPlan:
    """A plan against ``available`` RAM without a margin, the longest context found by trying."""

    def plan(n_ctx: int) -> MemoryPlan:
        sized = replace(chosen, context=replace(chosen.context, n_ctx=n_ctx))
        return make_plan(footprint(sized), [ram(available)], NO_OVERHEAD, 0)

    fitting = [n for n in range(256, 32769, 256) if plan(n).fits]
    return with_max_n_ctx(plan(chosen.context.n_ctx), max(fitting, default=None))


def test_options_that_fit_come_first_and_are_priced() -> None:
    available = GIB + 120 * MIB
    plan = priced(settings(32768), available)
    assert plan.fits is False
    found = options.ranked(plan, model_file(), lambda changed: priced(changed, available))
    assert [option.fits for option in found] == sorted((option.fits for option in found), reverse=True)
    by_label = {option.label: option for option in found}
    shorter = by_label[f"Context Length {plan.max_n_ctx:,}"]
    assert shorter.fits is True
    assert shorter.settings.context.n_ctx == plan.max_n_ctx
    small = by_label["Physical Batch Size 128"]
    assert small.difference_bytes == small.total_bytes - plan.total_bytes == -24 * MIB
    assert by_label["K and V cache as q4_0"].total_bytes < by_label["K and V cache as q8_0"].total_bytes
    assert all(option.difference_bytes < 0 for option in found)


def test_a_smaller_cache_is_offered_with_the_length_it_allows() -> None:
    available = GIB + 110 * MIB
    plan = priced(settings(32768), available)
    found = options.ranked(plan, model_file(), lambda changed: priced(changed, available))
    longer = [o for o in found if o.change == "type_kv" and o.settings.context.n_ctx < 32768]
    assert longer
    assert all(o.fits and o.settings.context.n_ctx >= (plan.max_n_ctx or 0) for o in longer)


def test_no_option_repeats_what_is_set() -> None:
    plan = priced(settings(32768, type_k="q4_0", type_v="q4_0", n_ubatch=128), GIB)
    found = options.ranked(plan, model_file(), lambda changed: priced(changed, GIB))
    assert found == ()


def test_a_full_window_goes_first() -> None:
    model = model_file(windowed_layers=(True,) * 8, sliding_window=512)
    plan = priced(settings(32768, swa_full=True), GIB + 150 * MIB)

    def price(changed: EngineSettings) -> MemoryPlan:
        return priced(changed if changed.context.swa_full else settings(2048), GIB + 150 * MIB)

    assert options.ranked(plan, model, price)[0].change == "swa_full"


@pytest.mark.parametrize(("n_cpu_moe", "offered"), [(0, 5), (2, 5), (-1, None)])
def test_the_fewest_experts_leave_the_card_that_must(n_cpu_moe: int, offered: int | None) -> None:
    """Eight layers of an eighth of a GiB, and room for three of them beside the rest."""

    def price(changed: EngineSettings) -> MemoryPlan:
        there = 8 - changed.model.n_cpu_moe if changed.model.n_cpu_moe >= 0 else 0
        on_card = footprint(changed, on_gpu=True)
        weights = replace(on_card.buffers[0], size_bytes=GIB * there // 8)
        changed_footprint = replace(on_card, buffers=(weights, *on_card.buffers[1:]))
        card = DomainReading("CUDA0", "gpu", 24 * GIB, other_bytes + 3 * GIB // 8, 0)
        return make_plan(changed_footprint, [ram(20 * GIB), card], NO_OVERHEAD, 0)

    asked = settings(8192)
    asked = replace(asked, model=replace(asked.model, n_cpu_moe=n_cpu_moe))
    other_bytes = sum(b.size_bytes for b in footprint(asked, on_gpu=True).buffers[1:] if b.device == "CUDA0")
    plan = replace(price(replace(asked, model=replace(asked.model, n_cpu_moe=max(n_cpu_moe, 0)))), settings=asked)
    found = {option.change: option for option in options.ranked(plan, model_file(expert_count=64), price)}
    assert found["n_cpu_moe"].settings.model.n_cpu_moe == offered if offered else "n_cpu_moe" not in found
    assert "n_cpu_moe" not in {o.change for o in options.ranked(plan, model_file(expert_count=0), price)}


def test_fewer_layers_are_found_by_halving() -> None:
    asked: list[int] = []

    def price(changed: EngineSettings) -> MemoryPlan:
        layers = changed.model.n_gpu_layers
        asked.append(layers)
        shares = 9 if layers < 0 else min(layers, 9)
        on_card = footprint(changed, on_gpu=True)
        weights = replace(on_card.buffers[0], size_bytes=GIB * shares // 9)
        card = DomainReading("CUDA0", "gpu", 8 * GIB, 700 * MIB, 0)
        return make_plan(
            replace(on_card, buffers=(weights, *on_card.buffers[1:])), [ram(8 * GIB), card], NO_OVERHEAD, 0
        )

    plan = price(settings())
    found = {o.change: o for o in options.ranked(plan, model_file(), price)}
    best = found["n_gpu_layers"]
    assert best.settings.model.n_gpu_layers == 5
    assert best.fits is True
    assert len(asked) < 20


@pytest.mark.parametrize(
    ("changes", "word", "nearest"),
    [
        ({"type_v": "q8_0", "flash_attn": "off"}, "Flash Attention", {"flash_attn": "auto"}),
        ({"n_ctx": -1}, "Context Length", {"n_ctx": 0}),
        ({"n_ctx": 10**11}, "16,777,216", {"n_ctx": 2**24}),
        ({"n_seq_max": 1000}, "256", {"n_seq_max": 256}),
        ({"n_ubatch": 0}, "Physical Batch Size", {"n_ubatch": 1}),
    ],
)
def test_impossible_settings_name_the_nearest(
    changes: dict[str, object], word: str, nearest: dict[str, object]
) -> None:
    asked = settings(**changes)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=word) as caught:
        options.check(asked, model_file())
    assert caught.value.nearest == replace(asked, context=replace(asked.context, **nearest))  # type: ignore[arg-type]


def test_a_head_size_that_no_block_divides_falls_back_to_f16() -> None:
    model = model_file(head_size_k=80, head_size_v=80)
    with pytest.raises(SettingsError, match="head size 80") as caught:
        options.check(settings(type_k="q8_0", type_v="q8_0"), model)
    near = caught.value.nearest.context
    assert (near.type_k, near.type_v) == ("f16", "f16")


def test_latent_attention_wants_one_type() -> None:
    latent = model_file(caches_latent=True)
    with pytest.raises(SettingsError, match="one type") as caught:
        options.check(settings(type_k="q8_0"), latent)
    near = caught.value.nearest.context
    assert near.type_k == near.type_v
