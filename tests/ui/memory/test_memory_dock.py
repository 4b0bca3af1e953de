"""The dock: what it is told reaches the view it belongs to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PySide6.QtWidgets import QLabel

from kvdesk.backend.protocol.facts import BufferKind
from kvdesk.ui.memory.context_curve import ContextCurve
from kvdesk.ui.memory.kv_strip import KvStrip
from kvdesk.ui.memory.memory_dock import MemoryDock
from kvdesk.ui.memory.plan_table import PlanTable
from kvdesk.ui.memory.plots.chart_event import ChartEvent
from kvdesk.ui.widgets.theme import DARK, LIGHT
from tests.fakes import memory_pictures as pictures


@pytest.fixture
def dock(qtbot):
    widget = MemoryDock(LIGHT)
    qtbot.addWidget(widget)
    qtbot.addWidget(widget.page)
    widget.resize(420, 800)
    return widget


def texts(widget):
    return [label.text() for label in widget.findChildren(QLabel)]


def test_the_page_has_what_needs_width(dock):
    assert [dock.page.tabText(i) for i in range(dock.page.count())] == ["Plan", "Curve", "Why"]


def test_a_load_fills_every_view(dock, qtbot):
    dock.show_context(pictures.context(cells=4096, used=1500))
    dock.show_plan(pictures.plan(), pictures.model(), is_applied=True)
    dock.show_curves(pictures.curves(), "f16", "f16")
    dock.add_sample(pictures.sample())
    card = dock.live_chart.cards["RAM"]
    assert card.words == "6.1 GiB under the line; this chat fits up to 41,216 tokens"
    assert card.legend.value_text("predicted") == "5.1 GiB"
    strip = dock.findChild(KvStrip)
    assert strip.words.startswith("KV 1,500 / 4,096 tokens")
    assert "28,672 tokens, 2.6 GiB" in strip.bar.accessibleDescription()
    assert dock.page.findChild(PlanTable).verdict == "Fits, 1.9 GiB under the line"
    assert dock.page.findChild(ContextCurve).words.startswith("32,768 tokens leave 2.3 GiB")
    assert "Grouped-query attention makes it 4x smaller" in dock.explain_view.sentences


def test_a_price_that_is_only_tried_does_not_change_the_live_words(dock):
    dock.show_context(pictures.context())
    dock.show_plan(pictures.plan(), pictures.model(), is_applied=True)
    dock.add_sample(pictures.sample())
    before = dock.live_chart.cards["RAM"].words
    tried = pictures.plan(65_536)
    dock.show_plan(tried, pictures.model(), is_applied=False)
    assert dock.live_chart.cards["RAM"].words == before
    assert dock.page.findChild(PlanTable).verdict == tried.verdict.sentence


def test_the_gauge_follows_the_engine_and_never_an_older_sample(dock):
    dock.show_context(pictures.context(cells=2048, used=0))
    dock.show_kv(pictures.context(cells=2048, used=2000).kv)
    dock.add_sample(pictures.sample(used=1000, cells=2048))
    assert dock.findChild(KvStrip).words.startswith("KV 2,000 / 2,048 tokens")
    dock.show_context(pictures.context(cells=4096, used=2048))
    assert dock.findChild(KvStrip).words.startswith("KV 2,048 / 4,096 tokens")
    assert dock.live_chart.cards["RAM"] is not None


def test_while_loading_the_plan_names_the_weights_that_arrive(dock):
    dock.show_plan(pictures.plan(2048), pictures.model(), is_applied=True)
    dock.add_sample(pictures.sample(cells=2048))
    legend = dock.live_chart.cards["RAM"].legend
    assert legend.value_text("weights_mapped") in ("", "0 MiB")
    dock.show_loading()
    dock.add_sample(pictures.sample(cells=2048))
    assert legend.value_text("weights_mapped") == "1.8 GiB"
    assert legend.value_text("kv_free") in ("", "0 MiB")


def test_what_is_gone_is_not_named_any_more(dock):
    dock.show_plan(pictures.plan(2048), pictures.model(), is_applied=True)
    dock.show_loading()
    dock.show_context(None)
    dock.add_sample(pictures.sample(cells=2048))
    assert dock.live_chart.cards["RAM"].legend.value_text("weights_mapped") in ("", "0 MiB")


def test_unloading_empties_what_spoke_of_the_context(dock):
    dock.show_context(pictures.context())
    dock.show_comparison(pictures.plan(4096), pictures.model(), pictures.comparison(), [pictures.comparison()])
    dock.show_context(None)
    dock.show_plan(None, None, is_applied=False)
    assert dock.findChild(KvStrip).words == "KV cache: no context"
    assert dock.page.findChild(PlanTable).verdict == "Choose a model to see what it will take."
    assert dock.explain_view.sentences.startswith("Choose a model")


def test_predicted_against_measured_is_shown_after_a_load(dock):
    dock.show_plan(pictures.plan(), pictures.model(), is_applied=True)
    dock.show_comparison(pictures.plan(4096), pictures.model(), pictures.comparison())
    assert "Resident\t2.4 GiB\t2.4 GiB\t+78 MiB" in dock.page.findChild(PlanTable).as_text()


def test_the_plots_are_built_after_the_first_paint_and_nothing_is_lost(dock, qtbot):
    dock.add_sample(pictures.sample())
    dock.add_event(ChartEvent(pictures.START_S, "ready", "Ready"))
    dock.show_curves(pictures.curves(), "f16", "f16")
    dock.show()
    assert dock.live_chart.cards["RAM"].plot is None
    dock.build_soon()
    qtbot.waitUntil(lambda: dock.page.findChild(ContextCurve).plot is not None, timeout=30_000)
    assert len(dock.live_chart.cards["RAM"].plot.history) == 1
    dock.add_sample(pictures.sample(1.0, gpu=True))
    assert dock.live_chart.cards["CUDA0"].plot is not None
    with qtbot.waitSignal(dock.n_ctx_chosen, check_params_cb=lambda n: n == 512):
        dock.page.findChild(ContextCurve).plot.n_ctx_chosen.emit(512)
    dock.set_compact(True)
    dock.set_theme(DARK)


def test_the_page_of_sizes_and_of_conversations(dock):
    view = dock.explain_view
    sizes = {(8192, "f16"): 768 << 20, (8192, "q8_0"): 408 << 20, (131_072, "f16"): 12 << 30, (131_072, "q8_0"): None}
    view.show_kv_sizes(sizes, n_ctx_train=131_072)
    assert view.size_texts() == [
        ["Tokens", "f16", "q8_0"],
        ["8k", "768 MiB", "408 MiB"],
        ["128k (its own)", "12.0 GiB", "unknown"],
    ]
    view.show_capacity(pictures.capacity())
    table = view.capacity_texts()
    assert table[0] == ["At once", "4k", "8k", "16k", "32k"]
    assert table[1] == ["1", "✓ 2.4 GiB", "✓ 2.8 GiB", "✓ 3.5 GiB", "✓ 5.0 GiB"]
    assert table[4] == ["8", "✓ 5.0 GiB", "✗ 8.0 GiB", "✗ 14.0 GiB", "✗ 26.0 GiB"]


def test_weights_that_only_the_plan_names_are_not_taken_for_overhead(dock):
    context = pictures.context(cells=4096)
    of_the_context = tuple(b for b in context.buffers if b.kind is not BufferKind.WEIGHTS)
    dock.show_context(replace(context, buffers=of_the_context))
    dock.show_plan(pictures.plan(), pictures.model(), is_applied=True)
    dock.add_sample(pictures.sample())
    assert dock.live_chart.cards["RAM"].legend.value_text("weights_mapped") == "1.8 GiB"
    dock.show_context(None)
    dock.add_sample(pictures.sample(1.0))
    assert dock.live_chart.cards["RAM"].legend.value_text("weights_mapped") == "0 MiB"
