"""The context profile's window as it is read: what can be asked for, what is drawn, listed and said."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QColor
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QCheckBox, QComboBox, QProgressBar, QPushButton

from kvdesk.backend.planning.context_profile import ProfilePoint
from kvdesk.ui.memory.plots.ticks import decimal_step
from kvdesk.ui.widgets.theme import DARK, LIGHT
from kvdesk.ui.windows.context_profile_window import ProfileWindow

MIB = 2**20


def point(n_ctx: int, kind: str, kv_mib: int, **other: object) -> ProfilePoint:
    made = ProfilePoint(
        n_ctx=n_ctx,
        type_k=kind,
        type_v=kind,
        predicted_kv_bytes=kv_mib * MIB,
        kv_bytes=kv_mib * MIB,
        predicted_total_bytes=(300 + kv_mib) * MIB,
        measured_total_bytes=(310 + kv_mib) * MIB,
        depth=n_ctx,
        prompt_tokens_per_second=800.0,
        tokens_per_second=40.0,
    )
    return replace(made, **other)  # type: ignore[arg-type]


POINTS = (point(512, "f16", 10), point(8192, "f16", 160), point(512, "q8_0", 5), point(8192, "q8_0", 85))


@pytest.fixture
def window(qtbot):
    widget = ProfileWindow(LIGHT)
    qtbot.addWidget(widget)
    widget.show_model("Example 8B", 32768)
    widget.show()
    qtbot.waitExposed(widget)
    return widget


def button(window, text):
    return next(one for one in window.findChildren(QPushButton) if one.text() == text)


def check(window, *kinds):
    for box in window.findChildren(QCheckBox):
        box.setChecked(box.text() in kinds)


def test_what_is_chosen_is_asked_for(window, qtbot):
    lengths = window.findChild(QComboBox)
    assert [lengths.itemText(i) for i in range(lengths.count())][-3:] == ["8,192", "16,384", "32,768"]
    assert lengths.currentText() == "8,192"
    check(window, "q8_0", "q4_0")
    lengths.setCurrentIndex(lengths.findData(16384))
    with qtbot.waitSignal(window.start_requested) as asked:
        qtbot.mouseClick(button(window, "Start"), Qt.MouseButton.LeftButton)
    assert asked.args == [("q8_0", "q4_0"), 16384]
    check(window)
    assert not button(window, "Start").isEnabled(), "nothing is chosen"


@pytest.mark.parametrize(("trained", "last"), [(5000, "5,000"), (300, "300"), (None, "8,192")])
def test_the_longest_choice_is_the_models_own(window, trained, last):
    window.show_model("Another", trained)
    lengths = window.findChild(QComboBox)
    assert lengths.itemText(lengths.count() - 1) == last


def test_why_it_cannot_start_is_said(window):
    window.show_model("", None, "No model is loaded. Open one, then start.")
    assert not button(window, "Start").isEnabled()
    assert window.words == "No model is loaded. Open one, then start."
    window.show_model("Example 8B", 32768)
    assert button(window, "Start").isEnabled()
    assert window.words == ""


def test_progress_can_be_watched_and_cancelled(window, qtbot):
    bar = window.findChild(QProgressBar)
    assert not bar.isVisible()
    window.show_running(True)
    window.show_progress(0.25, "2 of 4: f16 with 1,024 tokens, loading")
    assert bar.isVisible()
    assert bar.value() == bar.maximum() // 4
    assert window.words == "2 of 4: f16 with 1,024 tokens, loading"
    assert not button(window, "Start").isEnabled()
    with qtbot.waitSignal(window.cancel_requested):
        qtbot.mouseClick(button(window, "Cancel"), Qt.MouseButton.LeftButton)
    assert not button(window, "Cancel").isEnabled()
    window.show_running(False)
    window.show_words("Cancelled.")
    window.show_model("", None, "No model is loaded.")
    assert window.words == "Cancelled.", "what came of it stays"


@pytest.mark.parametrize("how", ["close", "Escape"])
def test_putting_the_window_away_cancels(window, qtbot, how):
    window.show_running(True)
    with qtbot.waitSignal(window.cancel_requested):
        if how == "close":
            window.close()
        else:
            QTest.keyClick(window, Qt.Key.Key_Escape)


def test_every_point_is_a_row_with_its_share(window):
    window.show_points(POINTS)
    assert window.rows()[1] == [
        "8,192",
        "f16",
        "160 MiB",
        "160 MiB",
        "460 MiB",
        "470 MiB",
        "34 %",
        "800 tok/s",
        "40.0 tok/s",
    ]
    window.show_points([point(512, "f16", 10, measured_total_bytes=None, tokens_per_second=None)])
    (row,) = window.rows()
    assert row[5:7] == ["unknown", "unknown"]
    assert row[8] == "–"


def test_predicted_are_lines_and_measured_are_dots(window):
    from pyqtgraph import PlotCurveItem, ScatterPlotItem

    window.show_points(POINTS)
    items = window.memory_plot.plotItem.items
    lines = [item for item in items if isinstance(item, PlotCurveItem)]
    dots = [item for item in items if isinstance(item, ScatterPlotItem)]
    drawn = {
        (tuple(line.getData()[1] / MIB), line.opts["pen"].color().name()) for line in lines if len(line.getData()[1])
    }
    f16, q8_0 = LIGHT.chart.kv_used, LIGHT.chart.weights
    assert drawn == {((310, 460), f16), ((10, 160), f16), ((305, 385), q8_0), ((5, 85), q8_0)}
    heights = {tuple(one.getData()[1] / MIB) for one in dots if len(one.getData()[1])}
    assert heights == {(320, 470), (10, 160), (315, 395), (5, 85)}
    assert all(line.opts["pen"].width() == 1 for line in lines)
    low, high = window.memory_plot.getViewBox().viewRange()[1]
    assert low == 0
    assert high > 470 * MIB


def test_a_speed_that_is_not_known_is_not_drawn(window):
    from pyqtgraph import ScatterPlotItem

    window.show_points([POINTS[0], point(8192, "f16", 160, prompt_tokens_per_second=None, tokens_per_second=None)])
    for plot in window.speed_plots:
        dots = [one for one in plot.plotItem.items if isinstance(one, ScatterPlotItem)]
        assert [x for one in dots for x in one.getData()[0]] == [512]


def test_hovering_reads_the_nearest_point(window, qtbot):
    window.show_points(POINTS)
    assert "Lines are predicted" in window.reading
    plot = window.memory_plot
    steps = itertools.cycle((-3, 3))

    def is_read():
        """Pointed at anew each time: the plot gets its place only after it is shown."""
        at = plot.mapFromScene(plot.getViewBox().mapViewToScene(QPointF(8192, 85 * MIB)))
        QTest.mouseMove(plot.viewport(), QPoint(at.x() + next(steps), at.y() + 2))
        return "8,192 tokens, q8_0" in window.reading

    qtbot.waitUntil(is_read)
    assert "q8_0: KV cache 85 MiB of 395 MiB (21 %), predicted 85 MiB of 385 MiB" in window.reading
    assert "decode 40.0 tok/s" in window.reading


def test_it_takes_the_other_theme(window, qtbot):
    window.show_points(POINTS)
    window.set_theme(DARK)
    image = window.memory_plot.grab().toImage()
    colors = {image.pixelColor(x, y).name() for x in range(image.width()) for y in range(0, image.height(), 2)}
    assert {DARK.surface, DARK.chart.kv_used, DARK.chart.weights} <= colors
    assert QColor(LIGHT.surface).name() not in colors


def test_export_waits_for_the_end(window, qtbot):
    export = button(window, "Export CSV…")
    assert not export.isEnabled()
    window.show_running(True)
    window.show_points(POINTS)
    assert not export.isEnabled()
    window.show_running(False)
    with qtbot.waitSignal(window.export_requested):
        qtbot.mouseClick(export, Qt.MouseButton.LeftButton)


@pytest.mark.parametrize(("at_least", "step"), [(0.3, 0.5), (1, 1), (11, 20), (210, 250), (260, 500), (501, 1000)])
def test_speeds_are_ticked_in_round_steps(at_least, step):
    assert decimal_step(at_least) == pytest.approx(step)
