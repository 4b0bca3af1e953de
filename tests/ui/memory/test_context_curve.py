"""The curve: what it says of a length, and a dot that mouse and keys move in steps of 256."""

from __future__ import annotations

import pyqtgraph
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtTest import QTest

from kvdesk.ui.memory.context_curve import ContextCurve
from kvdesk.ui.widgets.theme import DARK, LIGHT
from tests.fakes import memory_pictures as pictures

GIB = 1024**3


@pytest.fixture
def curve(qtbot):
    widget = ContextCurve(LIGHT)
    qtbot.addWidget(widget)
    widget.resize(420, 420)
    return widget


@pytest.fixture
def drawn(curve, qtbot, monkeypatch):
    monkeypatch.setitem(pyqtgraph.CONFIG_OPTIONS, "mouseRateLimit", -1)  # else it drops moves that come too fast
    curve.build_now()
    curve.show_curves(pictures.curves(), "f16", "f16")
    curve.show_setting(32_768)
    curve.show()
    qtbot.waitExposed(curve)
    return curve


def place_of(plot, n_ctx, size):
    scene = plot.getViewBox().mapViewToScene(QPointF(n_ctx, size))
    return plot.mapFromScene(scene)


def drag(qtbot, plot, start: QPoint, end: QPoint):
    view = plot.viewport()
    QTest.mousePress(view, Qt.MouseButton.LeftButton, pos=start)
    for step in range(1, 11):
        QTest.mouseMove(view, start + (end - start) * step / 10, 20)
    QTest.mouseRelease(view, Qt.MouseButton.LeftButton, pos=end)


def test_every_cache_type_has_its_price_and_how_far_it_fits(curve):
    curve.show_curves(pictures.curves(), "f16", "f16")
    curve.show_setting(32_768)
    assert curve.words == "32,768 tokens leave 2.3 GiB under the line in RAM."
    assert curve.row_texts() == [
        ("Cache type", "At 32,768", "Fits up to"),
        ("f16", "5.0 GiB", "57,344"),
        ("q8_0", "3.6 GiB", "108,544"),
        ("q4_0", "2.8 GiB", "all 131,072"),
    ]


def test_over_the_line_is_said(curve):
    curve.show_curves(pictures.curves(), "f16", "f16")
    curve.show_setting(65_536)
    assert curve.words == "65,536 tokens are 717 MiB over the line in RAM."
    curve.show_curves(pictures.curves(line=GIB), "f16", "f16")
    assert curve.row_texts()[1][2] == "nothing"
    curve.show_curves(pictures.curves(line=None), "q8_0", "q8_0")
    assert "unknown" in curve.words
    assert curve.row_texts()[1][2] == "unknown"


def test_without_a_model_it_asks_for_one(drawn):
    drawn.clear()
    assert drawn.words == "Choose a model to see what its context costs."
    assert drawn.row_texts() == []


def test_the_dot_is_dragged_in_steps_of_256_and_chosen_on_release(drawn, qtbot):
    plot = drawn.plot
    heard, chosen = [], []
    drawn.n_ctx_dragged.connect(heard.append)
    drawn.n_ctx_chosen.connect(chosen.append)
    start = place_of(plot, 32_768, pictures.curves()[0].at(32_768).device_bytes)
    drag(qtbot, plot, start, start + QPoint(60, 40))
    assert heard
    assert all(n % 256 == 0 for n in heard)
    assert heard[-1] > 40_000
    assert chosen == [heard[-1]]
    assert drawn.row_texts()[0][1] == f"At {heard[-1]:,}"


@pytest.mark.parametrize(("aside_px", "n_ctx"), [(800, 131_072), (-800, 256)])
def test_the_dot_stays_within_the_model(drawn, qtbot, aside_px, n_ctx):
    chosen = []
    drawn.n_ctx_chosen.connect(chosen.append)
    start = place_of(drawn.plot, 32_768, pictures.curves()[0].at(32_768).device_bytes)
    drag(qtbot, drawn.plot, start, start + QPoint(aside_px, 0))
    assert chosen == [n_ctx]


def test_keys_move_the_dot_and_choose_when_let_go(drawn, qtbot):
    heard, chosen = [], []
    drawn.n_ctx_dragged.connect(heard.append)
    drawn.n_ctx_chosen.connect(chosen.append)
    for key in (Qt.Key.Key_Right, Qt.Key.Key_PageUp, Qt.Key.Key_Left, Qt.Key.Key_Home, Qt.Key.Key_End):
        qtbot.keyClick(drawn.plot, key)
    assert heard == [33_024, 37_120, 36_864, 256, 131_072]
    assert chosen == heard


def test_what_does_not_fit_is_shaded_from_the_crossing_on(drawn):
    plot = drawn.plot
    assert plot._crossing.isVisible()
    assert plot._crossing.value() == 57_344
    assert plot._over.getRegion()[0] == 57_344
    drawn.show_curves(pictures.curves(), "q4_0", "q4_0")
    assert not plot._crossing.isVisible()
    assert not plot._over.isVisible()


def test_tokens_in_use_are_marked(drawn):
    assert not drawn.plot._in_use.isVisible()
    drawn.show_tokens_in_use(12_000)
    assert drawn.plot._in_use.isVisible()
    assert drawn.plot._in_use.value() == 12_000
    drawn.set_theme(DARK)
    assert drawn.plot._in_use.value() == 12_000


def test_a_huge_model_opens_on_what_is_in_reach(drawn):
    drawn.show_curves(pictures.curves(last=1 << 20, line=int(2.5 * GIB)), "f16", "f16")
    (_, right), _ = drawn.plot.getViewBox().viewRange()
    assert right < 150_000


def test_between_points_the_price_is_in_proportion():
    curve = pictures.curves()[0]
    assert curve.at(1024 + 512).device_bytes == pytest.approx(2 * GIB + 1536 * 96 * 1024)
    assert curve.at(10**9).device_bytes == curve.points[-1].device_bytes
    assert curve.at(0).device_bytes == curve.points[0].device_bytes


def test_a_late_answer_does_not_pull_the_dot_from_the_users_hand(drawn, qtbot):
    heard = []
    drawn.n_ctx_dragged.connect(heard.append)
    drawn.n_ctx_dragged.connect(lambda _: drawn.show_setting(32_768))
    qtbot.keyPress(drawn.plot, Qt.Key.Key_Right)
    qtbot.keyPress(drawn.plot, Qt.Key.Key_Right)
    qtbot.keyRelease(drawn.plot, Qt.Key.Key_Right)
    assert heard == [33_024, 33_280]
    drawn.show_setting(8192)
    assert drawn.row_texts()[0][1] == "At 8,192"


def test_new_prices_leave_the_users_zoom_alone(drawn):
    drawn.plot.setXRange(0, 20_000, padding=0)
    drawn.show_curves(pictures.curves(), "q8_0", "q8_0")
    (_, right), _ = drawn.plot.getViewBox().viewRange()
    assert right == pytest.approx(20_000)
