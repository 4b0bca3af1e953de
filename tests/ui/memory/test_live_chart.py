"""The live chart as a user meets it: words, numbers, what the mouse reads, where the view stands."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QColor, QWheelEvent
from PySide6.QtWidgets import QApplication, QPushButton, QToolButton

from kvdesk.backend.settings import kept_free
from kvdesk.backend.system.samples import DomainReading, MachineReading
from kvdesk.ui.memory.live_chart import LiveChart
from kvdesk.ui.memory.plots.chart_event import ChartEvent
from kvdesk.ui.widgets.theme import DARK, LIGHT
from tests.fakes import memory_pictures as pictures

MIB = 1024**2
GIB = 1024**3


@pytest.fixture
def chart(qtbot):
    widget = LiveChart(LIGHT)
    qtbot.addWidget(widget)
    widget.resize(420, 800)
    return widget


@pytest.fixture
def drawn(chart, qtbot):
    chart.build_now()
    chart.show()
    qtbot.waitExposed(chart)
    return chart


def feed(chart, seconds, gpu=False, start=0.0):
    for sample, cells in pictures.chat(seconds, gpu, step_s=5.0):
        chart.show_buffers(pictures.buffers(cells, gpu))
        chart.add_sample(replace(sample, time_s=sample.time_s + start, monotonic_s=sample.monotonic_s + start))


def with_room(room):
    """A sample whose RAM has ``room`` bytes under the line."""
    sample = pictures.sample()
    ram = sample.domains[0]
    available = room + kept_free(sample.margin_bytes, ram.capacity_bytes) + (ram.engine_file_bytes or 0)
    changed = replace(ram, available_bytes=available)
    return replace(sample, machine=MachineReading((changed,)))


def choose(chart, view):
    chart.view.setCurrentIndex(chart.view.findData(view))


def button(chart, text):
    return next(b for b in chart.findChildren(QToolButton) if b.text() == text)


def test_numbers_are_there_before_any_plotting_library_is():
    code = (
        "import sys; from PySide6.QtWidgets import QApplication; app = QApplication([])\n"
        "from kvdesk.ui.memory.memory_dock import MemoryDock; from kvdesk.ui.widgets.theme import LIGHT\n"
        "from tests.fakes import memory_pictures as p\n"
        "dock = MemoryDock(LIGHT); dock.show_context(p.context()); dock.add_sample(p.sample())\n"
        "card = dock.live_chart.cards['RAM']\n"
        "print(card.words, '|', card.legend.value_text('kv_used'), '|', *sorted({'pyqtgraph', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "6.1 GiB under the line | 141 MiB |", done.stderr


def test_words_say_where_it_stands_and_how_far_the_chat_can_go(chart):
    chart.add_sample(with_room(3.1 * GIB))
    card = chart.cards["RAM"]
    assert card.words == "3.1 GiB under the line"
    chart.show_fit("RAM", 41_216, 131_072)
    assert card.words == "3.1 GiB under the line; this chat fits up to 41,216 tokens"
    chart.show_fit("RAM", 131_072, 131_072)
    assert card.words == "3.1 GiB under the line; the model's whole context of 131,072 tokens fits"
    chart.show_fit("CUDA0", 41_216)
    assert card.words == "3.1 GiB under the line"


@pytest.mark.parametrize(
    ("room", "words", "role"),
    [
        (GIB - 1024**2, "Low: only 1,023 MiB under the line", "amber"),
        (500 * 1024**2, "Very low: 500 MiB under the line", "red"),
        (-120 * 1024**2, "Over the line by 120 MiB", "red"),
    ],
)
def test_little_room_is_said_in_words_and_colour(chart, room, words, role):
    chart.add_sample(with_room(room))
    assert chart.cards["RAM"].words == words
    assert chart.cards["RAM"]._words.property("role") == role


def test_the_legend_shows_the_measured_total_and_parts_that_make_it_up(chart):
    chart.show_buffers(pictures.buffers(4096))
    chart.add_sample(pictures.sample(used=2048, cells=4096))
    legend = chart.cards["RAM"].legend
    assert legend.value_text("weights_mapped") == "1.8 GiB"
    assert legend.value_text("weights") == "43 MiB"
    assert legend.value_text("kv_used") == legend.value_text("kv_free") == "192 MiB"
    assert legend.value_text("total") == "2.4 GiB"


def test_unknown_is_written_as_unknown_never_as_zero(chart):
    chart.add_sample(pictures.sample())
    blind = DomainReading("RAM", "ram", 16 * GIB, 8 * GIB)
    chart.add_sample(replace(pictures.sample(1.0), machine=MachineReading((blind,))))
    card = chart.cards["RAM"]
    assert card.legend.value_text("total") == "unknown"
    assert card.legend.value_text("kv_used") == "unknown"
    assert card.words == "What the engine holds here could not be read."
    chart.add_sample(replace(pictures.sample(2.0), machine=MachineReading(())))
    assert card.words == "What is available here could not be read."


def test_every_domain_gets_its_chart_as_soon_as_it_is_read(chart):
    chart.add_sample(pictures.sample())
    assert list(chart.cards) == ["RAM"]
    chart.add_sample(pictures.sample(gpu=True))
    assert list(chart.cards) == ["RAM", "CUDA0"]
    assert chart.cards["CUDA0"].legend._values["total"].toolTip() == "NVML, this process"


def test_samples_from_before_the_plot_was_built_are_drawn(chart, qtbot):
    feed(chart, 300)
    chart.add_event(ChartEvent(pictures.START_S + 5, "ready", "Ready in 1.2 s"))
    chart.build_now()
    plot = chart.cards["RAM"].plot
    assert len(plot.history) == 60
    assert plot.moment_at(1005.0).event.label == "Ready in 1.2 s"


def test_occupied_and_empty_cells_are_painted(drawn, qtbot):
    feed(drawn, 200)
    plot = drawn.cards["RAM"].plot
    qtbot.waitUntil(lambda: painted(plot, LIGHT.chart.kv_used) > 200)
    assert painted(plot, LIGHT.chart.kv_free) > 50
    assert painted(plot, LIGHT.chart.oom_line) > 50
    drawn.set_theme(DARK)
    qtbot.waitUntil(lambda: painted(plot, DARK.chart.kv_used) > 200)
    assert painted(plot, LIGHT.chart.kv_used) == 0


def painted(widget, color):
    image = widget.grab().toImage()
    wanted = QColor(color).rgb()
    return sum(image.pixel(x, y) == wanted for x in range(0, image.width(), 2) for y in range(image.height()))


def test_the_view_follows_the_newest_moment_over_ten_minutes(drawn, qtbot):
    feed(drawn, 30)
    plot = drawn.cards["RAM"].plot
    qtbot.waitUntil(lambda: plot.visible_range == pytest.approx((965, 1025)))
    feed(drawn, 900, start=30)
    qtbot.waitUntil(lambda: plot.visible_range == pytest.approx((1325, 1925)))


def test_scrolling_back_stops_following_and_the_button_resumes(drawn, qtbot):
    feed(drawn, 700, gpu=True)
    plot, other = drawn.cards["RAM"].plot, drawn.cards["CUDA0"].plot
    plot.show_range(1000, 1100)
    plot.range_changed.emit(1000, 1100)
    assert other.visible_range == pytest.approx((1000, 1100))
    assert not button(drawn, "Follow").isChecked()
    feed(drawn, 5, gpu=True, start=700)
    qtbot.waitUntil(lambda: plot.visible_range == pytest.approx((1000, 1100)))
    qtbot.mouseClick(button(drawn, "Follow"), Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: plot.visible_range[1] == other.visible_range[1] == pytest.approx(1700))
    assert button(drawn, "Follow").isChecked()


def test_the_whole_session_and_keys(drawn, qtbot):
    feed(drawn, 900)
    plot = drawn.cards["RAM"].plot
    qtbot.mouseClick(button(drawn, "Session"), Qt.MouseButton.LeftButton)
    assert plot.visible_range == pytest.approx((1000, 1895))
    qtbot.keyClick(plot, Qt.Key.Key_Plus)
    assert plot.visible_range == pytest.approx((1447.5, 1895))
    qtbot.keyClick(plot, Qt.Key.Key_End)
    qtbot.waitUntil(lambda: plot.following)


def wheel(plot):
    centre = QPointF(plot.viewport().rect().center())
    up = QWheelEvent(
        centre, plot.viewport().mapToGlobal(centre), QPoint(), QPoint(0, 240), Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(plot.viewport(), up)


def test_the_wheel_scrolls_the_page_until_the_chart_was_clicked(drawn, qtbot):
    feed(drawn, 700)
    plot = drawn.cards["RAM"].plot
    button(drawn, "Follow").setFocus()
    qtbot.waitUntil(lambda: plot.visible_range[1] == pytest.approx(1695))
    wheel(plot)
    assert plot.following
    qtbot.mouseClick(plot.viewport(), Qt.MouseButton.LeftButton)
    wheel(plot)
    start, end = plot.visible_range
    assert end - start < 590
    assert not plot.following


def test_pausing_freezes_the_picture_but_not_the_record(drawn, qtbot):
    feed(drawn, 700)
    plot = drawn.cards["RAM"].plot
    qtbot.waitUntil(lambda: plot.visible_range[1] == pytest.approx(1695))
    qtbot.mouseClick(button(drawn, "Pause"), Qt.MouseButton.LeftButton)
    feed(drawn, 60, start=700)
    plot.redraw_now()
    assert plot.visible_range[1] == pytest.approx(1695)
    assert len(plot.history) == 152
    qtbot.mouseClick(button(drawn, "Resume"), Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: plot.visible_range[1] == pytest.approx(1755))


def test_hovering_reads_the_values_of_that_time_on_every_chart(drawn, qtbot):
    feed(drawn, 300, gpu=True)
    drawn.add_event(ChartEvent(pictures.START_S + 205, "grow", "Grown to 8,192 cells"))
    plot = drawn.cards["RAM"].plot
    qtbot.waitUntil(lambda: plot.visible_range[1] == pytest.approx(1295))
    legend, other = drawn.cards["RAM"].legend, drawn.cards["CUDA0"].legend
    now = legend.value_text("kv_used")
    box = plot.getViewBox()
    scene = box.mapViewToScene(QPointF(1205, 0))
    at = plot.mapFromScene(QPointF(scene.x(), box.sceneBoundingRect().center().y()))
    qtbot.mouseMove(plot.viewport(), QPoint(at.x(), at.y()))
    qtbot.waitUntil(lambda: legend.value_text("kv_used") != now)
    assert legend.value_text("kv_used") == "384 MiB"
    assert other.value_text("kv_used") == "192 MiB"
    assert plot._label.isVisible()
    assert plot._label.toPlainText() == "Grown to 8,192 cells"
    plot.point_at(None)
    assert legend.value_text("kv_used") == now


def test_a_line_far_above_is_pointed_at_and_can_be_shown(drawn, qtbot):
    small = pictures.sample(cells=256, others=1 * GIB)
    ram = replace(
        small.domains[0], engine_bytes=300 << 20, engine_anonymous_bytes=100 << 20, engine_file_bytes=200 << 20
    )
    drawn.add_sample(replace(small, machine=MachineReading((ram,)), predicted_bytes=None))
    plot = drawn.cards["RAM"].plot
    qtbot.waitUntil(lambda: plot._above.isVisible())
    assert plot._above.toPlainText().startswith("↑ OOM line 1")
    choose(drawn, "capacity")
    qtbot.waitUntil(lambda: not plot._above.isVisible())


def chip(chart, name):
    return next(b for b in chart.cards["RAM"].legend.findChildren(QPushButton) if b.text() == name)


def test_a_cache_that_would_be_a_hair_is_drawn_by_itself_up_to_what_it_may_grow_to(drawn, qtbot):
    drawn.show_buffers(pictures.buffers(256))
    drawn.show_full_kv({"RAM": 900 * MIB})
    drawn.add_sample(pictures.sample(used=100, cells=256))
    plot = drawn.cards["RAM"].plot
    kv_bytes = 256 * pictures.KV_BYTES_PER_CELL
    qtbot.waitUntil(lambda: kv_bytes < plot._top_bytes < 2 * 900 * MIB)
    assert drawn.view.currentText() == "Automatic: KV only"
    assert not chip(drawn, "Weights").isChecked()
    assert chip(drawn, "KV, occupied").isChecked()
    drawn.show_buffers(pictures.buffers(16_384))
    drawn.add_sample(pictures.sample(used=100, cells=16_384))
    assert drawn.view.currentText() == "Automatic: All"
    assert chip(drawn, "Weights").isChecked()
    qtbot.waitUntil(lambda: plot._top_bytes > 1860 * MIB)


def test_a_part_of_the_legend_hides_its_layer_and_the_lines_come_down_with_it(drawn, qtbot):
    choose(drawn, "all")
    feed(drawn, 10)
    plot = drawn.cards["RAM"].plot
    qtbot.waitUntil(lambda: plot._top_bytes > 1860 * MIB)
    line = plot._line_height
    qtbot.mouseClick(chip(drawn, "Weights, mapped"), Qt.MouseButton.LeftButton)
    assert drawn.view.currentIndex() == -1
    qtbot.waitUntil(lambda: plot._line_height == pytest.approx(line - 1860 * MIB, rel=0.01))
    choose(drawn, "without weights")
    assert not chip(drawn, "Weights").isChecked()
    choose(drawn, "all")
    qtbot.waitUntil(lambda: plot._line_height == line)


def test_the_edited_setting_draws_a_line_of_its_own(drawn, qtbot):
    choose(drawn, "all")
    feed(drawn, 10)
    plot = drawn.cards["RAM"].plot
    drawn.show_ghost({"RAM": (6 * GIB, 900 * MIB)})
    qtbot.waitUntil(lambda: plot._ghost.isVisible() and plot._top_bytes > 6 * GIB)
    choose(drawn, "kv")
    qtbot.waitUntil(lambda: plot._ghost.height_bytes == 900 * MIB and plot._top_bytes < 6 * GIB)
    drawn.show_ghost({})
    assert not plot._ghost.isVisible()


def test_replies_to_come_are_said_where_the_context_ends(drawn):
    feed(drawn, 10)
    drawn.show_fit("RAM", 41_216)
    drawn.show_replies_left(14)
    assert drawn.cards["RAM"].words.endswith("full in about 14 replies")


def test_compact_keeps_words_and_bar_only(drawn):
    feed(drawn, 10)
    drawn.set_compact(True)
    card = drawn.cards["RAM"]
    assert card.legend.isHidden()
    assert card.plot.minimumHeight() < 100
    assert not button(drawn, "Follow").isVisible()
    drawn.set_compact(False)
    assert not card.legend.isHidden()
