"""The generic settings form: what a user sees and what the program hears."""

from __future__ import annotations

import dataclasses

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QApplication

from kvdesk.backend.preferences import Preferences
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
from kvdesk.sizes import MIB
from kvdesk.ui.settings.field_editor import NOTE_ROLE
from kvdesk.ui.settings.form import FieldForm


@pytest.fixture
def make_form(qtbot):
    def make(*args, **kwargs):
        form = FieldForm(*args, **kwargs)
        qtbot.addWidget(form)
        form.show()
        return form

    return make


@pytest.fixture
def form(make_form):
    return make_form(ContextSettings)


def heard(form):
    values = []
    form.changed.connect(values.append)
    return values


@pytest.mark.parametrize("kind", [ContextSettings, ModelSettings, SamplingSettings])
def test_every_field_has_a_named_editor_and_shows_its_default(make_form, kind):
    form = make_form(kind)
    for f in dataclasses.fields(kind):
        assert form.editor(f.name).accessibleName() == f.metadata["label"]
        assert f.name in form.editor(f.name).toolTip()
    assert form.value() == kind()


def test_a_value_shown_is_a_value_read_back_and_says_nothing(form):
    values = heard(form)
    settings = ContextSettings(n_ctx=12345, type_k="q8_0", flash_attn="on", swa_full=True, n_seq_max=4)
    form.set_value(settings)
    assert form.value() == settings
    assert form.editor("n_ctx").text() == "12,345"
    assert form.editor("type_k").currentText() == "q8_0"
    assert values == []


def test_each_kind_of_editor_reports_the_whole_new_value(make_form, qtbot):
    form = make_form(ContextSettings)
    values = heard(form)
    box = form.editor("n_ctx")
    box.selectAll()
    qtbot.keyClicks(box, "4096")
    assert values == []  # half a number is no wish
    qtbot.keyClick(box, Qt.Key.Key_Return)
    assert values[-1] == ContextSettings(n_ctx=4096)
    qtbot.mouseClick(form.editor("swa_full"), Qt.MouseButton.LeftButton, pos=QPoint(8, 8))
    assert values[-1] == ContextSettings(n_ctx=4096, swa_full=True)
    qtbot.keyClick(form.editor("type_k"), Qt.Key.Key_Down)
    assert values[-1] == ContextSettings(n_ctx=4096, swa_full=True, type_k="bf16")
    assert len(values) == 3


def test_a_list_of_words_is_a_tuple(make_form, qtbot):
    form = make_form(ModelSettings)
    values = heard(form)
    line = form.editor("rpc_servers")
    qtbot.keyClicks(line, "127.0.0.1:50052, box:1 ,")
    qtbot.keyClick(line, Qt.Key.Key_Return)
    assert values[-1].rpc_servers == ("127.0.0.1:50052", "box:1")


def test_fields_not_shown_keep_their_value(make_form, qtbot):
    form = make_form(ContextSettings, fields=("type_v", "n_ctx"))
    form.set_value(ContextSettings(n_batch=64))
    values = heard(form)
    qtbot.keyClick(form.editor("n_ctx"), Qt.Key.Key_Up)
    assert values == [ContextSettings(n_batch=64, n_ctx=8192 + 256)]
    with pytest.raises(KeyError):
        form.editor("n_batch")


def test_a_number_too_large_for_32_bits_or_too_fine_to_show_survives(make_form, qtbot):
    form = make_form(SamplingSettings)
    settings = SamplingSettings(seed=4_294_967_000, top_p=0.91234)
    form.set_value(settings)
    assert form.editor("seed").text() == "4294967000"
    values = heard(form)
    qtbot.keyClick(form.editor("top_k"), Qt.Key.Key_Up)
    assert values == [dataclasses.replace(settings, top_k=41)]


def test_the_least_value_is_shown_as_the_word_it_stands_for(make_form):
    form = make_form(SamplingSettings)
    form.set_value(SamplingSettings(temperature=0.0, seed=-1, max_tokens=0))
    assert form.editor("temperature").text() == "0 (greedy)"
    assert form.editor("seed").text() == "new each time"
    assert form.editor("max_tokens").text() == "no limit"


def test_words_under_a_field_weigh_problem_then_closed_then_note(form):
    form.set_note("type_v", "-480 MiB")
    assert form.message("type_v") == "-480 MiB"
    form.set_disabled_reason("type_v", "The model has no V cache")
    assert form.message("type_v") == "The model has no V cache"
    assert not form.editor("type_v").isEnabled()
    assert "The model has no V cache" in form.editor("type_v").toolTip()
    form.set_problems({"type_v": "V quantization needs Flash Attention"})
    assert form.message("type_v") == "V quantization needs Flash Attention"
    form.set_problems({})
    form.set_disabled_reason("type_v", "")
    assert form.message("type_v") == "-480 MiB"
    assert form.editor("type_v").isEnabled()


def test_a_closed_choice_cannot_be_reached_and_says_why(form, qtbot):
    box = form.editor("flash_attn")
    form.set_choice_problem("flash_attn", "on", "This build has none")
    form.set_choice_note("flash_attn", "off", "+12 MiB")
    assert box.itemData(1, Qt.ItemDataRole.ToolTipRole) == "This build has none"
    assert box.itemData(2, NOTE_ROLE) == "+12 MiB"
    values = heard(form)
    qtbot.keyClick(box, Qt.Key.Key_Down)
    assert values == [ContextSettings(flash_attn="off")]
    form.set_choice_problem("flash_attn", "on", "")
    qtbot.keyClick(box, Qt.Key.Key_Up)
    assert values[-1].flash_attn == "on"


def test_choices_can_be_worded_and_unknown_ones_are_shown(form):
    form.set_choice_text("allocation", "grow", "Grow with the chat")
    assert form.editor("allocation").currentText() == "Grow with the chat"
    assert form.value().allocation == "grow"
    form.set_value(ContextSettings(type_k="q9_9"))
    assert form.editor("type_k").currentText() == "q9_9"
    assert form.value().type_k == "q9_9"


def test_a_slider_follows_the_number_and_leads_it(form, qtbot):
    form.set_stops("n_ctx", [256 * 2**i for i in range(8)])
    slider = form.slider("n_ctx")
    form.set_value(ContextSettings(n_ctx=3500))
    assert slider.value() == 4  # 4096 is nearer than 2048
    values = heard(form)
    slider.setValue(2)
    slider.setValue(3)
    assert [v.n_ctx for v in values] == [1024, 2048]
    assert form.editor("n_ctx").text() == "2,048"
    form.set_stops("n_ctx", [])
    assert not slider.isVisible()


def test_the_right_end_of_a_slider_can_mean_all(make_form):
    form = make_form(ModelSettings)
    form.set_stops("n_gpu_layers", [*range(19), -1])
    assert form.slider("n_gpu_layers").value() == 19
    assert form.editor("n_gpu_layers").text() == "all"
    form.slider("n_gpu_layers").setValue(0)
    assert form.value().n_gpu_layers == 0


def test_bounds_that_cut_the_value_change_what_is_shown_but_not_the_setting(form):
    values = heard(form)
    form.set_bounds("n_ctx", 0, 4096)
    assert form.editor("n_ctx").text() == "4,096"
    assert (form.value().n_ctx, values) == (8192, [])


def test_scrolling_over_an_editor_changes_nothing_until_it_has_the_focus(form, qtbot):
    box = form.editor("n_batch")
    form.editor("n_ctx").setFocus()

    def turn_wheel():
        spot = QPointF(box.rect().center())
        QApplication.sendEvent(
            box,
            QWheelEvent(
                spot, box.mapToGlobal(spot), QPoint(), QPoint(0, 120), Qt.MouseButton.NoButton,
                Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
            ),
        )  # fmt: skip

    turn_wheel()
    assert form.value().n_batch == 2048
    box.setFocus()
    qtbot.waitUntil(box.hasFocus)
    turn_wheel()
    assert form.value().n_batch == 2049


def test_a_row_can_be_hidden_with_all_it_has(form):
    form.set_stops("n_ctx", [256, 512])
    form.set_note("n_ctx", "note")
    form.set_field_visible("n_ctx", False)
    assert not form.editor("n_ctx").isVisible()
    assert not form.slider("n_ctx").isVisible()
    form.set_note("n_ctx", "another")
    form.set_field_visible("n_ctx", True)
    assert form.slider("n_ctx").isVisible()
    assert form.editor("n_ctx").isVisible()


def test_a_type_no_editor_knows_is_an_error_of_the_programmer():
    with pytest.raises(TypeError, match=r"EngineSettings\.model"):
        FieldForm(EngineSettings)


def test_bytes_are_entered_in_the_unit_people_use(make_form, qtbot):
    form = make_form(Preferences, fields=("margin_bytes", "theme"))
    assert form.editor("margin_bytes").text() == "automatic"
    values = heard(form)
    qtbot.keyClick(form.editor("margin_bytes"), Qt.Key.Key_Up)
    assert values == [Preferences(margin_bytes=0)]
    form.editor("margin_bytes").setValue(1152)
    assert form.editor("margin_bytes").text() == "1,152 MiB"
    assert values[-1].margin_bytes == 1152 * MIB
