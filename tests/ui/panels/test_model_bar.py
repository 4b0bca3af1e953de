"""The bar on top: what a glance tells, in every state and at every width."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QProgressBar, QPushButton, QToolButton

from kvdesk.backend.protocol.facts import KvState
from kvdesk.ui.panels.model_bar import ModelBar, RecentModel
from kvdesk.ui.widgets.theme import DARK, LIGHT
from tests.fakes import memory_pictures as pictures

GIB = 1024**3


@pytest.fixture
def bar(qtbot):
    widget = ModelBar(LIGHT)
    qtbot.addWidget(widget)
    widget.resize(1400, 44)
    widget.show()
    return widget


def shown(bar, kind):
    return [w for w in bar.findChildren(kind) if w.isVisible()]


def model_button(bar):
    return next(b for b in bar.findChildren(QToolButton) if b.accessibleName() == "Model")


def test_the_face_shows_tokens_types_attention_and_every_domain(bar):
    bar.show_model("Example 8B")
    bar.show_state("ready")
    bar.show_context(pictures.context(cells=16_384, used=12_700, gpu=True))
    bar.show_sample(pictures.sample(gpu=True))
    assert bar.face_texts == ["12.4k / 32k tokens", "K f16 V f16", "FA on", "RAM 6.7 / 15.6 GiB", "GPU0 5.1 / 8.0 GiB"]
    assert bar.state_words == "ready"
    bar.show_kv(KvState(26_300, 32_768, 1, 1))
    assert bar.face_texts[0] == "25.6k / 32k tokens"
    bar.show_context(None)
    assert bar.face_texts == ["RAM 6.7 / 15.6 GiB", "GPU0 5.1 / 8.0 GiB"]


def test_a_narrow_bar_drops_the_least_important_first_and_tells_all_on_hovering(bar):
    bar.show_model("Meta-Llama-3.1-70B-Instruct-abliterated-Q4_K_M")
    bar.show_state("ready")
    bar.show_context(pictures.context(used=12_700))
    bar.show_sample(pictures.sample(gpu=True))
    bar.resize(700, 44)
    assert bar.face_texts[0] == "12.4k / 32k tokens"
    assert "FA on" not in bar.face_texts
    assert len(bar.face_texts) < 5
    assert "Flash Attention: on" in bar._face.toolTip()
    assert "…" in model_button(bar).text()
    assert bar.minimumSizeHint().width() < 600


def test_low_memory_is_said_not_only_coloured(bar):
    bar.show_sample(pictures.sample(others=11.6 * GIB))
    assert bar.face_texts == ["⚠ RAM 12.2 / 15.6 GiB, 585 MiB left"]
    bar.show_sample(pictures.sample(others=12.4 * GIB))
    assert bar.face_texts[0].endswith("over the line")


def test_loading_shows_a_true_fraction_and_can_be_cancelled(bar, qtbot):
    bar.show_model("Example 8B")
    bar.show_state("loading")
    bar.show_progress(0.4249)
    assert bar.state_words == "loading 42 %"
    assert shown(bar, QProgressBar)[0].value() == 425
    assert [b.text() for b in shown(bar, QPushButton)] == ["Cancel"]
    with qtbot.waitSignal(bar.cancel_requested):
        qtbot.mouseClick(shown(bar, QPushButton)[0], Qt.MouseButton.LeftButton)
    bar.show_state("warming")
    assert bar.state_words == "warming up"
    assert shown(bar, QProgressBar)[0].maximum() == 0
    bar.show_state("ready")
    assert not shown(bar, QProgressBar)


def test_eject_only_when_something_can_be_ejected(bar, qtbot):
    eject = next(b for b in bar.findChildren(QToolButton) if b.text() == "Eject")
    assert not eject.isVisible()
    bar.show_model("Example 8B")
    for state, can in (("loading", False), ("generating", False), ("ready", True), ("died", False)):
        bar.show_state(state)
        assert (eject.isVisible() and eject.isEnabled()) == can, state
    bar.show_state("ready")
    with qtbot.waitSignal(bar.eject_requested):
        qtbot.mouseClick(eject, Qt.MouseButton.LeftButton)


def test_a_dead_engine_is_one_click_from_life(bar, qtbot):
    bar.show_model("Example 8B")
    bar.show_state("died")
    assert bar.state_words == "the engine died"
    with qtbot.waitSignal(bar.reload_requested):
        qtbot.mouseClick(shown(bar, QPushButton)[0], Qt.MouseButton.LeftButton)


def test_the_menu_offers_recent_models_and_open(bar):
    chosen, opened = [], []
    bar.model_chosen.connect(chosen.append)
    bar.open_requested.connect(lambda: opened.append(True))
    bar.show_recent([RecentModel("/m/a.gguf", "A", "4.9 GB"), RecentModel("/m/b.gguf", "B", "is missing", False)])
    actions = [a for a in model_button(bar).menu().actions() if not a.isSeparator()]
    assert [a.text() for a in actions] == ["A\t4.9 GB", "B\tis missing", "Open…"]
    assert [a.isEnabled() for a in actions] == [True, False, True]
    actions[0].trigger()
    actions[2].trigger()
    assert chosen == ["/m/a.gguf"]
    assert opened == [True]


def test_no_model_is_said(bar):
    assert model_button(bar).text().startswith("No model")
    bar.set_theme(DARK)
    assert bar.face_texts == []
