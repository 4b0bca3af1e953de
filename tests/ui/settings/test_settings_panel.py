"""The settings panel: impossible choices closed with the reason, prices, what applying does, live edits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QComboBox, QPushButton, QSlider, QSpinBox, QToolButton

from kvdesk.backend.protocol.facts import Device
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
from kvdesk.ui.settings.context_length import ContextLength, stops_up_to
from kvdesk.ui.settings.settings_panel import SettingsPanel
from kvdesk.ui.widgets.theme import DARK, LIGHT
from tests.fakes import memory_pictures as pictures

MIB = 1024**2
GPU = Device("CUDA0", "NVIDIA", "gpu", 1, 2)


@pytest.fixture
def panel(qtbot):
    widget = SettingsPanel(LIGHT)
    for one in (widget, widget.drawer):
        qtbot.addWidget(one)
        one.resize(380, 900)
        one.show()
    return widget


def with_context(**changes):
    return EngineSettings(context=replace(ContextSettings(), **changes))


def button(panel, *texts):
    return next(b for b in panel.findChildren(QPushButton) if b.text() in texts)


def apply_button(panel):
    return button(panel, "Apply", "Apply anyway")


def choice(panel, field):
    return panel.findChild(QComboBox, field)


def reason(box, value):
    """Why a choice is closed; "" while it is open."""
    index = box.findData(value)
    item = box.model().item(index)
    return "" if item.isEnabled() else box.itemData(index, Qt.ItemDataRole.ToolTipRole)


def pick(box, value):
    box.setCurrentIndex(box.findData(value))
    box.activated.emit(box.currentIndex())


def unlink(panel):
    next(b for b in panel.findChildren(QToolButton) if b.isCheckable()).setChecked(False)


def test_linked_to_v_a_quantized_k_needs_flash_attention_too(panel):
    panel.show_settings(with_context(flash_attn="off"))
    assert reason(choice(panel, "type_k"), "q8_0") == "V quantization needs Flash Attention"
    unlink(panel)
    assert reason(choice(panel, "type_k"), "q8_0") == ""


def test_quantized_v_without_flash_attention_is_closed_either_way_round(panel):
    unlink(panel)
    panel.show_settings(with_context(flash_attn="off"))
    assert reason(choice(panel, "type_v"), "q8_0") == "V quantization needs Flash Attention"
    assert reason(choice(panel, "type_k"), "q8_0") == ""
    assert reason(choice(panel, "type_v"), "f16") == ""
    panel.show_settings(with_context(type_v="q8_0"))
    assert reason(choice(panel, "flash_attn"), "off") == "V quantization needs Flash Attention"
    assert reason(choice(panel, "flash_attn"), "on") == ""


def test_a_block_that_does_not_divide_the_head_is_closed_with_the_numbers(panel):
    unlink(panel)
    panel.show_model(replace(pictures.model(), head_size_k=80))
    assert "head size 80" in reason(choice(panel, "type_k"), "q8_0")
    assert reason(choice(panel, "type_v"), "q8_0") == ""
    panel.show_model(pictures.model())
    assert reason(choice(panel, "type_k"), "q8_0") == ""


def test_an_impossible_pair_that_is_already_set_is_said_and_not_applied(panel):
    panel.edit(with_context(type_v="q4_0", flash_attn="off"))
    assert panel.effect == "V quantization needs Flash Attention"
    assert not apply_button(panel).isEnabled()
    pick(choice(panel, "flash_attn"), "auto")
    assert apply_button(panel).isEnabled()


def test_gpu_offload_is_asked_where_there_is_a_gpu(panel):
    panel.show_model(pictures.model())
    form = panel._form_of("n_gpu_layers")
    assert not form.isVisible()
    panel.show_devices([GPU], has_rpc=False)
    assert form.isVisible()
    assert form.message("n_gpu_layers") == "Max: all 25 layers, the output among them"
    panel.edit(EngineSettings(model=ModelSettings(n_gpu_layers=12)))
    assert form.message("n_gpu_layers") == "12 of 25 layers, counted from the output"
    panel.edit(EngineSettings(model=ModelSettings(n_gpu_layers=0)))
    assert form.message("n_gpu_layers") == "Off: all layers stay on the CPU, and the GPU is not touched"


def test_experts_and_cache_in_ram_are_open_where_there_is_a_choice(panel):
    panel.show_devices([GPU], has_rpc=False)
    panel.show_model(pictures.model())
    assert panel._form_of("n_cpu_moe").message("n_cpu_moe") == "This model has no experts"
    assert panel._form_of("offload_kqv").editor("offload_kqv").isEnabled()
    panel.show_model(replace(pictures.model(), expert_count=64, expert_used_count=8))
    assert panel._form_of("n_cpu_moe").editor("n_cpu_moe").isEnabled()
    panel.show_devices([], has_rpc=False)
    assert "No GPU" in panel._form_of("n_cpu_moe").message("n_cpu_moe")
    assert "No GPU" in panel._form_of("offload_kqv").message("offload_kqv")


def test_k_and_v_are_chosen_together_until_they_are_unlinked(panel, qtbot):
    pick(choice(panel, "type_k"), "q8_0")
    assert (panel.edited.context.type_k, panel.edited.context.type_v) == ("q8_0", "q8_0")
    pick(choice(panel, "type_v"), "f16")
    assert (panel.edited.context.type_k, panel.edited.context.type_v) == ("f16", "f16")
    link = next(b for b in panel.findChildren(QToolButton) if b.isCheckable())
    with qtbot.waitSignal(panel.link_toggled):
        qtbot.mouseClick(link, Qt.MouseButton.LeftButton)
    pick(choice(panel, "type_k"), "q4_0")
    assert (panel.edited.context.type_k, panel.edited.context.type_v) == ("q4_0", "f16")
    assert not panel.is_linked


def test_settings_whose_types_differ_are_not_linked(panel):
    panel.show_settings(with_context(type_k="q8_0", type_v="f16"))
    assert not panel.is_linked


def test_a_price_is_marked_as_old_until_the_new_one_is_there(panel):
    panel.show_price(100 * MIB, None, "Fits", True)
    panel.edit_n_ctx(16_384)
    assert panel.price == "pricing... (100 MiB)"
    panel.show_price(120 * MIB, 20 * MIB, "Fits", True)
    assert panel.price == "120 MiB (+20 MiB)"
    assert panel.bar.words == "Fits. Will be used by the next load"


def test_more_opens_the_drawer_and_closes_it(panel, qtbot):
    with qtbot.waitSignal(panel.more_toggled) as toggled:
        qtbot.mouseClick(button(panel, "More"), Qt.MouseButton.LeftButton)
    assert toggled.args == [True]
    with qtbot.waitSignal(panel.more_toggled) as toggled:
        panel.show_more(False)
    assert toggled.args == [False]


def test_network_workers_need_a_build_with_rpc_and_open_the_offload(panel):
    form = panel._form_of("rpc_servers")
    assert form.message("rpc_servers") == "This llama.cpp was built without RPC"
    panel.show_devices([], has_rpc=True)
    assert "no authentication" in form.message("rpc_servers")
    panel.edit(EngineSettings(model=ModelSettings(rpc_servers=("127.0.0.1:50052",))))
    assert panel._form_of("n_gpu_layers").isVisible()


def test_every_edit_is_told_at_once_and_apply_hands_over_what_stands_there(panel, qtbot):
    edits, applied = [], []
    panel.settings_edited.connect(edits.append)
    panel.apply_requested.connect(applied.append)
    assert not apply_button(panel).isEnabled()
    pick(choice(panel, "type_k"), "q8_0")
    panel.findChild(ContextLength).findChild(QSlider).setValue(0)
    assert [e.context.type_k for e in edits] == ["q8_0", "q8_0"]
    assert edits[-1].context.n_ctx == 256
    qtbot.mouseClick(apply_button(panel), Qt.MouseButton.LeftButton)
    assert applied == [edits[-1]]
    panel.show_settings(applied[0])
    assert not apply_button(panel).isEnabled()
    assert panel.effect == "This is what is applied."


def test_reset_goes_back_to_what_is_applied(panel, qtbot):
    panel.show_settings(with_context(n_ctx=4096))
    panel.edit_n_ctx(16_384)
    edits = []
    panel.settings_edited.connect(edits.append)
    qtbot.mouseClick(button(panel, "Reset"), Qt.MouseButton.LeftButton)
    assert edits == [with_context(n_ctx=4096)]
    assert not button(panel, "Reset").isEnabled()


def test_it_says_what_applying_does(panel):
    panel.edit_n_ctx(16_384)
    assert panel.effect == "Will be used by the next load."
    panel.show_loaded(True)
    assert panel.effect == "Recreates the context, keeps the conversation."
    panel.show_tokens_in_use(3912, 559.0)
    assert panel.effect.endswith("its 3,912 tokens are moved, nothing is read again.")
    panel.edit(with_context(type_k="q8_0"))
    assert panel.effect.endswith("converted, or read again where that is not exact enough (about 7.0 s).")
    panel.edit(with_context(type_k="f32"))
    assert panel.effect.endswith("Precision that the smaller type lost comes back only for tokens read anew.")
    panel.edit(EngineSettings(model=ModelSettings(use_mmap=False)))
    assert panel.effect == ("Reloads the model, keeps the conversation: its 3,912 tokens are read again (about 7.0 s).")


def test_the_price_stands_beside_apply_and_too_much_is_never_refused(panel):
    panel.edit_n_ctx(16_384)
    panel.show_price(int(2.4 * 1024**3), -480 * MIB, "Fits, 3.1 GiB under the line", True)
    assert panel.price == "2.4 GiB (-480 MiB)"
    assert apply_button(panel).text() == "Apply"
    panel.show_price(9 * 1024**3, 6 * 1024**3, "Does not fit by 1.2 GiB", False, "red")
    assert apply_button(panel).text() == "Apply anyway"
    assert apply_button(panel).isEnabled()
    panel.show_price(None)
    assert panel.price == "unknown"


def test_choices_carry_their_price(panel):
    panel.show_choice_prices("type_k", {"q8_0": -480 * MIB, "f32": 1024 * MIB, "f16": None, "q4_0": 0})
    box = choice(panel, "type_k")
    notes = {box.itemData(i): box.itemData(i, Qt.ItemDataRole.UserRole + 1) for i in range(box.count())}
    assert notes["q8_0"] == "-480 MiB"
    assert notes["f32"] == "+1.0 GiB"
    assert not notes["f16"]
    assert not notes["q4_0"]


def test_fit_it_for_me_needs_a_model(panel, qtbot):
    wanted = []
    panel.fit_requested.connect(wanted.append)
    assert not button(panel, "Fit").isEnabled()
    panel.show_model(pictures.model())
    qtbot.mouseClick(button(panel, "Fit"), Qt.MouseButton.LeftButton)
    assert wanted == [panel.edited]


def test_the_margin_is_told_in_bytes(panel):
    margins = []
    panel.margin_chosen.connect(margins.append)
    panel.show_margin(512 * MIB)
    assert margins == []
    next(s for s in panel.drawer.findChildren(QSpinBox) if s.accessibleName() == "Kept free").setValue(256)
    assert margins == [256 * MIB]


def test_the_first_cells_are_asked_only_when_growing(panel):
    form = panel._form_of("initial_ctx")
    assert form.editor("initial_ctx").isVisible()
    pick(choice(panel, "allocation"), "reserve")
    assert not form.editor("initial_ctx").isVisible()


def test_made_narrow_it_cuts_no_editor_off(panel, qtbot):
    panel.show_model(pictures.model())
    panel.resize(100, 500)
    editors = [e for kind in (QComboBox, QSpinBox, QSlider) for e in panel.findChildren(kind) if e.isVisible()]
    qtbot.waitUntil(lambda: all(e.mapTo(panel, e.rect().topRight()).x() < panel.width() for e in editors))
    panel.set_theme(DARK)


# --- Context Length ------------------------------------------------------------------------------------------------


@pytest.fixture
def length(qtbot):
    widget = ContextLength(LIGHT)
    qtbot.addWidget(widget)
    widget.show()
    return widget


def test_stops_are_multiples_of_256_with_every_power_of_two_up_to_the_models_own():
    stops = stops_up_to(131_072)
    assert all(n % 256 == 0 for n in stops)
    assert {1 << k for k in range(8, 18)} <= set(stops)
    assert list(stops) == sorted(set(stops))
    assert len(stops) < 250
    assert stops_up_to(5000)[-1] == 5000


def test_a_typed_length_is_padded_as_llama_cpp_would(length):
    heard = []
    length.n_ctx_edited.connect(heard.append)
    length.show_model(32_768)
    spin = length.findChild(QSpinBox)
    spin.setValue(5000)
    assert heard == [5120]
    assert spin.value() == 5120


def test_it_goes_no_further_than_the_model_knows_positions(length):
    length.set_value(8192)
    length.show_model(1024, 1024)
    assert length.findChild(QSpinBox).value() == 1024
    assert "knows 1,024 positions" in length.findChild(QSpinBox).toolTip()
    length.show_model(32_768)
    assert length.findChild(QSpinBox).value() == length.value() == 8192


def test_it_knows_the_models_own(length):
    length.show_model(32_768)
    assert "The model's own: 32,768 tokens" in length.findChild(QSlider).toolTip()
    length.set_value(0)
    assert length.value() == 0
    assert length.findChild(QSpinBox).value() == 32_768
    assert length.findChild(QSlider).value() == length.findChild(QSlider).maximum()


def test_a_setting_beyond_the_model_is_shown_not_cut(length):
    length.set_value(65_536)
    length.show_model(32_768)
    assert length.value() == 65_536
    assert length.findChild(QSpinBox).value() == 65_536
