"""Gauges say in numbers what their bars draw."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QLabel

from kvdesk.backend.protocol.facts import KvState
from kvdesk.ui.memory.gauges import ContextGauge
from kvdesk.ui.memory.kv_strip import KvStrip
from kvdesk.ui.memory.segment_bar import BarMark, Segment, SegmentBar
from kvdesk.ui.widgets.theme import DARK, LIGHT

MIB = 1024**2


def texts(widget):
    return [label.text() for label in widget.findChildren(QLabel) if label.isVisibleTo(widget)]


@pytest.fixture
def strip(qtbot):
    widget = KvStrip(LIGHT)
    qtbot.addWidget(widget)
    return widget


def test_occupied_and_allocated_are_never_shown_as_one_another(strip):
    strip.show_kv(KvState(1500, 4096, 150 * MIB, 410 * MIB), 32_768, 3280 * MIB)
    assert strip.words == "KV 1,500 / 4,096 tokens, 150 / 410 MiB, grows to 3.2 GiB"
    assert strip.bar.accessibleDescription() == (
        "Occupied: 1,500 tokens, 150 MiB; Allocated, empty: 2,596 tokens, 260 MiB; "
        "Not allocated yet: 28,672 tokens, 2.8 GiB"
    )


def test_without_a_plan_what_is_to_come_is_unknown_and_nothing_is_said_when_all_is_there(strip):
    strip.show_kv(KvState(0, 4096, 0, 410 * MIB), 32_768)
    assert strip.words.endswith("grows to unknown")
    strip.show_kv(KvState(0, 4096, 0, 410 * MIB), 4096)
    assert strip.words == "KV 0 / 4,096 tokens, 0 / 410 MiB"


def test_no_context_is_said(strip):
    strip.show_kv(None)
    assert strip.words == "KV cache: no context"


def test_a_recurrent_model_has_bytes_but_no_cells(strip):
    strip.show_kv(KvState(0, 0, 20 * MIB, 20 * MIB), 0)
    strip.set_theme(DARK)
    assert strip.words == "KV state 20 / 20 MiB"


@pytest.mark.parametrize(
    ("used", "draft", "role"), [(1000, 0, "muted"), (26_000, 212, "muted"), (26_000, 300, "amber"), (31_200, 0, "red")]
)
def test_the_context_gauge_turns_amber_at_80_and_red_at_95_percent(qtbot, used, draft, role):
    gauge = ContextGauge(LIGHT)
    qtbot.addWidget(gauge)
    gauge.show_tokens(used, 32_768, draft)
    assert gauge._label.property("role") == role


def test_the_context_gauge_shows_short_and_tells_exact(qtbot):
    gauge = ContextGauge(LIGHT)
    qtbot.addWidget(gauge)
    gauge.show_tokens(12_700, 32_768, 212)
    assert texts(gauge) == ["12.4k / 32k"]
    assert gauge.toolTip() == "12,700 of 32,768 tokens in use (38 %); n_ctx"
    gauge.show_tokens(None, None)
    assert texts(gauge) == ["–"]


def test_a_bar_tells_what_lies_under_the_mouse_and_to_screen_readers(qtbot):
    bar = SegmentBar(LIGHT)
    qtbot.addWidget(bar)
    bar.resize(100, 16)
    bar.show_segments(
        100, [Segment(30, "#ff0000", "weights"), Segment(20, "#00ff00", "cache")], [BarMark(80, "#0000ff", "line")]
    )
    assert [bar.label_at(x) for x in (10, 45, 60, 79)] == ["weights", "cache", "", "line"]
    assert bar.accessibleDescription() == "weights; cache; line"
    image = bar.grab().toImage()
    assert image.pixelColor(15, 8).name() == "#ff0000"
    assert image.pixelColor(40, 8).name() == "#00ff00"
