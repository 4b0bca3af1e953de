"""explain.py: the formula with the model's own numbers, and why the exact figure differs."""

from __future__ import annotations

from dataclasses import replace

from kvdesk.backend.planning.device_plan import Overhead
from kvdesk.backend.planning.explain import formula_bytes, formula_words, kv_facts, why
from kvdesk.backend.planning.plan import make_plan
from kvdesk.backend.protocol.facts import Buffer, BufferKind, CacheBlock
from tests.plan_samples import MIB, footprint, model_file, ram, settings

KV_OF_MODEL = 2 * 8 * 2 * 64 * 8192 * 2


def test_formula_is_two_times_layers_heads_size_tokens_bytes() -> None:
    context = settings().context
    assert formula_bytes(model_file(), 8192, context) == KV_OF_MODEL == 32 * MIB
    words = formula_words(model_file(), 8192, context)
    assert words == "2 x 8 layers x 2 KV heads x 64 x 8,192 tokens x 2 bytes = 32 MiB"


def test_formula_counts_k_and_v_apart_where_they_differ() -> None:
    model = model_file(head_size_k=192, head_size_v=128)
    context = settings(type_k="q8_0").context
    assert formula_bytes(model, 1024, context) == round(1024 * 8 * 2 * (192 * 8.5 + 128 * 16) / 8)
    assert "192 x 1.0625 bytes of K + 128 x 2 bytes of V" in formula_words(model, 1024, context)


def test_without_attention_there_is_no_formula() -> None:
    model = model_file(n_head=(0,) * 8, n_head_kv=(0,) * 8, cached_layers=(False,) * 8, head_size_k=0, head_size_v=0)
    assert formula_bytes(model, 8192, settings().context) is None
    assert kv_facts(model, footprint()) is None


def test_grouped_heads_make_it_four_times_smaller() -> None:
    facts = kv_facts(model_file(), footprint())
    assert facts is not None
    assert facts.shared_heads_ratio == 4
    assert facts.every_head_bytes == 4 * KV_OF_MODEL


def test_a_window_is_named_with_what_it_saves() -> None:
    model = model_file(windowed_layers=(True,) * 6 + (False,) * 2, sliding_window=512, attention=("GQA", "SWA"))
    per_layer = KV_OF_MODEL // 8
    caches = (
        CacheBlock("non-SWA", 8192, 2, 2 * per_layer, "f16", "f16"),
        CacheBlock("SWA", 1024, 6, 6 * per_layer // 8, "f16", "f16"),
    )
    kv = Buffer("CPU", "CPU", BufferKind.KV, sum(c.size_bytes for c in caches))
    facts = kv_facts(model, replace(footprint(), caches=caches, buffers=(kv,)))
    assert facts is not None
    assert facts.window_saves_bytes == facts.formula_bytes - facts.exact_bytes
    assert "6 of 8 layers see only the last 512 tokens" in facts.reasons[0]


def test_layers_without_a_cache_are_named() -> None:
    hybrid = model_file(cached_layers=(True, False) * 4, recurrent_layers=(False, True) * 4)
    facts = kv_facts(hybrid, footprint())
    assert facts is not None
    assert facts.reasons == ("4 of 8 layers keep recurrent state instead, so they have no KV cache",)


def test_every_figure_says_why_in_the_models_numbers() -> None:
    model = model_file()
    chosen = settings(type_k="q8_0", type_v="q8_0")
    plan = make_plan(footprint(chosen), [ram(8 << 30)], {"RAM": Overhead(90 * MIB)})
    lines = " ".join(why("kv", plan, plan.devices[0], model))
    assert "2 KV heads" in lines
    assert "4x smaller" in lines
    assert "save" in lines
    assert "against f16" in lines
    assert "512 tokens at once" in why("compute", plan, plan.devices[0], model)[0]
    assert "typical value" in why("overhead", plan, plan.devices[0], model)[0]
    assert why("recurrent", plan, plan.devices[0], model) == ()
    for figure in ("weights", "mapped", "output", "total", "others", "ceiling", "line"):
        assert why(figure, plan, plan.devices[0], model)
