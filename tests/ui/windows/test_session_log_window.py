"""Recorded sessions in the window: listed, drawn, exported; real log files, nothing made up but their samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QColor, QImage, QPainter
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtWidgets import QApplication, QPushButton, QTreeWidget

from kvdesk.backend.session_log.reader import list_sessions, open_session
from kvdesk.backend.session_log.recorder import Recorder
from kvdesk.errors import StoreError
from kvdesk.ui.memory.composition import LAYERS, split
from kvdesk.ui.memory.plots.chart_items import Stack
from kvdesk.ui.memory.plots.session_series import rows_of
from kvdesk.ui.widgets.theme import DARK, LIGHT
from kvdesk.ui.windows.session_log_window import SessionLogWindow
from kvdesk.ui.windows.session_sheet import picture, write_picture
from tests.fakes import memory_pictures as pictures

CELLS = 2048


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sessions; the newer one knows what its memory is made of."""
    folder = tmp_path_factory.mktemp("sessions")
    record(folder, 20, "Old model", gpu=False)
    record(folder, 90, "Example 8B", gpu=True)
    return folder


def record(folder, seconds, model, gpu):
    recorder = Recorder(folder, "window", "0.1.0")
    for index, (sample, cells) in enumerate(pictures.chat(seconds, gpu)):
        if index == 0:
            recorder.event("load", f"Loading {model}", {"model": model})
            recorder.event("ready", "Ready in 1.2 s", {"components": components(cells, gpu)})
        recorder.sample(replace(sample, monotonic_s=sample.monotonic_s + 1e9))  # after the events' real clock
    recorder.event("warning", "RAM: under 1 GiB of room")
    recorder.close()


def components(cells, gpu):
    return [
        {
            "domain": row.domain,
            "name": row.component,
            "predicted_bytes": row.predicted_bytes,
            "actual_bytes": row.actual_bytes,
        }
        for row in pictures.comparison(cells, gpu).rows
    ]


@pytest.fixture
def session(folder):
    return open_session(list_sessions(folder)[0].path)


@pytest.fixture
def window(qtbot, folder):
    widget = SessionLogWindow(LIGHT)
    qtbot.addWidget(widget)
    widget.session_chosen.connect(lambda path: widget.show_session(open_session(path)))
    widget.show()
    qtbot.waitExposed(widget)
    return widget


def button(window, text):
    return next(b for b in window.findChildren(QPushButton) if b.text() == text)


def test_the_newest_session_is_opened_and_drawn_whole(window, folder):
    window.show_sessions(list_sessions(folder))
    assert list(window.view.plots) == ["RAM", "CUDA0"]
    assert window.facts.startswith("window")
    assert "180 samples" in window.facts
    plot = window.view.plots["RAM"]
    assert plot.visible_range == pytest.approx((1e9 + 1000, 1e9 + 1089.5))
    assert len(plot.history) == 180


def test_choosing_another_session_draws_that_one(window, folder):
    sessions = list_sessions(folder)
    window.show_sessions(sessions)
    window.choose(sessions[1].path)
    assert list(window.view.plots) == ["RAM"]
    assert "40 samples" in window.facts
    assert [item.text(4) for item in rows(window)] == ["Example 8B", "Old model"]
    window.show_sessions(sessions)
    assert list(window.view.plots) == ["RAM"], "what was chosen stays chosen"


def rows(window):
    tree = window.findChild(QTreeWidget)
    return [tree.topLevelItem(i) for i in range(tree.topLevelItemCount())]


def test_an_answer_that_comes_late_is_not_drawn_over_the_chosen_session(qtbot, folder):
    window = SessionLogWindow(LIGHT)
    qtbot.addWidget(window)
    sessions = list_sessions(folder)
    window.show_sessions(sessions)
    window.choose(sessions[1].path)
    window.show_session(open_session(sessions[0].path))
    assert not window.view.plots
    assert not button(window, "CSV…").isEnabled()
    window.show_problem(sessions[1].path, "It cannot be read.")
    assert window.facts == "It cannot be read."


def test_events_are_listed_and_lead_to_their_moment(window, folder, qtbot):
    window.show_sessions(list_sessions(folder))
    texts = window.view.event_texts
    assert [text.split("  ", 2)[1:] for text in texts[1:3]] == [
        ["load", "Loading Example 8B"],
        ["ready", "Ready in 1.2 s"],
    ]
    item = window.view._events.item(2)
    window.view._events.itemActivated.emit(item)
    at = item.data(Qt.ItemDataRole.UserRole)
    for plot in window.view.plots.values():
        assert plot.visible_range == pytest.approx((at - 30, at + 30))


def test_zooming_one_domain_zooms_all(window, folder):
    window.show_sessions(list_sessions(folder))
    ram, gpu = window.view.plots.values()
    ram.show_range(1e9 + 1010, 1e9 + 1020)
    ram.range_changed.emit(1e9 + 1010, 1e9 + 1020)
    assert gpu.visible_range == pytest.approx((1e9 + 1010, 1e9 + 1020))
    window.view.show_all()
    assert gpu.visible_range == pytest.approx((1e9 + 1000, 1e9 + 1089.5))
    window.set_theme(DARK)


def test_export_names_the_session_and_the_format(window, folder, qtbot):
    sessions = list_sessions(folder)
    window.show_sessions(sessions)
    wanted, reports, deleted = [], [], []
    window.export_requested.connect(lambda path, kind: wanted.append((path, kind)))
    window.copy_report_requested.connect(reports.append)
    window.delete_requested.connect(deleted.append)
    for text in ("CSV…", "JSON Lines…", "PNG…", "SVG…", "Copy report", "Delete"):
        qtbot.mouseClick(button(window, text), Qt.MouseButton.LeftButton)
    path = sessions[0].path
    assert wanted == [(path, "csv"), (path, "jsonl"), (path, "png"), (path, "svg")]
    assert reports == deleted == [path]


def test_an_empty_list_says_so_and_offers_nothing(window):
    window.show_sessions([])
    assert window._title.text() == "No session has been recorded yet."
    assert not button(window, "PNG…").isEnabled()
    assert not button(window, "Delete").isEnabled()


def test_the_recorded_stack_is_the_live_one(session):
    """The rule for whole arrays and the rule for one reading are one rule, but for what is mapped: the log knows only
    how large all weights are."""
    columns = session.columns
    for domain in columns.domains:
        tops = rows_of(columns, domain, session.events)[: len(LAYERS)]
        parts = dict(zip(LAYERS, np.diff(tops, axis=0, prepend=0.0)[:, 60], strict=True))
        sample = next(session.samples(60, 61))
        live = split(sample.domain(domain.name), pictures.buffers(CELLS, gpu=True), sample.kv)
        assert parts["kv_used"] == pytest.approx(live.kv_used, abs=1)
        assert parts["kv_free"] == pytest.approx(live.kv_free, abs=1)
        assert parts["compute"] == live.compute
        assert parts["weights"] + parts["weights_mapped"] == live.weights + live.weights_mapped
        assert tops[-1, 60] == live.total


def test_memory_of_unknown_make_is_all_overhead_and_unknown_stays_unknown(session):
    columns = session.columns
    ram = columns.domain("RAM")
    tops = rows_of(columns, ram, [])
    parts = np.diff(tops[: len(LAYERS)], axis=0, prepend=0.0)
    assert np.array_equal(parts[LAYERS.index("overhead")], ram.engine_bytes)
    blind = replace(ram, engine_bytes=np.full_like(ram.engine_bytes, np.nan))
    assert np.isnan(rows_of(columns, blind, session.events)[: len(LAYERS)]).all()


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_picture_shows_every_domain_and_its_cache(qtbot, session, tmp_path, suffix):
    path = tmp_path / f"session.{suffix}"
    write_picture(picture(session, suffix), path)
    image = QImage(str(path)) if suffix == "png" else rendered(path)
    assert image.width() > 800
    pixels = np.frombuffer(image.convertToFormat(QImage.Format.Format_RGB32).constBits(), np.uint32)
    for color in (LIGHT.chart.kv_used, LIGHT.chart.weights, LIGHT.chart.compute, LIGHT.chart.overhead):
        assert np.count_nonzero(pixels == QColor(color).rgb()) > 100


def rendered(path):
    renderer = QSvgRenderer(str(path))
    image = QImage(renderer.defaultSize(), QImage.Format.Format_RGB32)
    with QPainter(image) as painter:
        renderer.render(painter)
    return image


def test_a_picture_is_the_plot_itself(qtbot, session, monkeypatch):
    """Whatever the window's plots draw is in the export: there is no second painter to keep alike."""
    plain = picture(session, "svg")
    monkeypatch.setattr(
        Stack, "paint", lambda self, painter, *_: painter.fillRect(0, 0, 10_000, 10_000, QColor("lime"))
    )
    changed = picture(session, "svg")
    assert b"#00ff00" in changed.lower()
    assert b"#00ff00" not in plain.lower()


def test_a_vector_picture_has_its_areas_where_the_pixels_have_them(qtbot, session, tmp_path):
    """Seconds and bytes have more figures than an SVG file gives a number."""
    paths = [tmp_path / name for name in ("x.png", "x.svg")]
    for path in paths:
        write_picture(picture(session, path.suffix[1:]), path)
    weights = []
    for image in (QImage(str(paths[0])), rendered(paths[1])):
        rows = np.flatnonzero((as_words(image) == QColor(LIGHT.chart.weights).rgb()).any(axis=1))
        weights.append(rows[[0, -1]] / image.height())
    assert weights[0] == pytest.approx(weights[1], abs=0.005)


def as_words(image):
    image = image.convertToFormat(QImage.Format.Format_RGB32)
    return np.frombuffer(image.constBits(), np.uint32).reshape(image.height(), image.width())


def test_a_picture_leaves_no_widget_behind(qtbot, session):
    before = set(QApplication.topLevelWidgets())
    picture(session, "png")
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    assert set(QApplication.topLevelWidgets()) <= before


def test_a_picture_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(StoreError, match="cannot be written"):
        write_picture(b"", tmp_path / "missing" / "x.png")
