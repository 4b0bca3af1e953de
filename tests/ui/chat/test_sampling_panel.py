"""The chat settings as a user meets them."""

from __future__ import annotations

import dataclasses

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QComboBox, QLabel, QLineEdit, QPlainTextEdit, QPushButton, QToolButton, QWidget

from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import OVERFLOWS
from kvdesk.ui.chat.sampling_panel import SamplingPanel
from kvdesk.ui.widgets.theme import DARK, LIGHT

KEYS = {"thinking": Qt.Key.Key_Down, "mirostat": Qt.Key.Key_Down, "grammar": Qt.Key.Key_X}
KEYS |= dict.fromkeys(("stop", "logit_bias", "dry_sequence_breakers"), Qt.Key.Key_Return)
CHANGED = {
    "thinking": "on",
    "mirostat": "1",
    "grammar": "x",
    "stop": ("END",),
    "logit_bias": ("END",),
    "dry_sequence_breakers": ("\\n", ":", '"', "*END"),
}
"""What these come to be; numbers grow."""
OPEN = {"dry_multiplier": 0.8, "xtc_probability": 0.1, "dynatemp_range": 0.5, "repeat_penalty": 1.1, "typical_p": 0.9}
"""What opens the fields that need another one."""


@pytest.fixture
def panel(qtbot):
    panel = SamplingPanel(LIGHT)
    qtbot.addWidget(panel)
    panel.resize(340, 700)
    with qtbot.waitExposed(panel):
        panel.show()
    return panel


def listen(signal):
    heard = []
    signal.connect(heard.append)
    return heard


def editor(panel, field):
    return panel.findChild(QWidget, field)


def reset_button(panel):
    return panel.findChild(QPushButton)


def visible_texts(panel):
    return [label.text() for label in panel.findChildren(QLabel) if label.isVisible()]


def test_it_shows_a_conversation_and_says_nothing(panel):
    heard = [listen(signal) for signal in (panel.changed, panel.system_prompt_changed, panel.overflow_changed)]
    sampling = SamplingSettings(temperature=0.35, top_k=7, seed=99)
    panel.show_conversation(sampling, "Be brief.", "rolling")
    assert editor(panel, "temperature").text() == "0.35"
    assert editor(panel, "seed").text() == "99"
    assert panel.findChild(QPlainTextEdit).toPlainText() == "Be brief."
    assert panel.findChild(QComboBox).currentText() == "Rolling window"
    assert panel.sampling() == sampling
    assert heard == [[], [], []]


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(SamplingSettings)])
def test_every_setting_can_be_changed(panel, qtbot, field):
    before = SamplingSettings(**OPEN, mirostat="2" if field in ("mirostat_tau", "mirostat_eta") else "off")
    panel.show_conversation(before, "", "ask")
    heard = listen(panel.changed)
    qtbot.keyClicks(editor(panel, field), "END" if isinstance(editor(panel, field), QLineEdit) else "")
    qtbot.keyClick(editor(panel, field), KEYS.get(field, Qt.Key.Key_Up))
    (value,) = heard
    assert getattr(value, field) == CHANGED.get(field) or getattr(value, field) > getattr(before, field)
    assert dataclasses.replace(value, **{field: getattr(before, field)}) == before


def test_reset_goes_back_to_the_defaults_of_new_conversations(panel, qtbot):
    assert not reset_button(panel).isEnabled()
    panel.set_defaults(SamplingSettings(temperature=0.2))
    heard = listen(panel.changed)
    qtbot.mouseClick(reset_button(panel), Qt.MouseButton.LeftButton)
    assert heard == [SamplingSettings(temperature=0.2)]
    assert editor(panel, "temperature").text() == "0.20"
    assert not reset_button(panel).isEnabled()


def test_the_system_prompt_is_told_with_every_key(panel, qtbot):
    heard = listen(panel.system_prompt_changed)
    prompt = panel.findChild(QPlainTextEdit)
    qtbot.keyClicks(prompt, "Hi")
    assert heard == ["H", "Hi"]
    panel.show_conversation(SamplingSettings(), "Hi", "ask")  # as the owner may answer
    qtbot.keyClicks(prompt, "!")
    assert heard[-1] == "Hi!"  # the cursor stayed at the end


def test_every_overflow_policy_can_be_chosen(panel, qtbot):
    heard = listen(panel.overflow_changed)
    box = panel.findChild(QComboBox)
    for _ in range(len(OVERFLOWS) - 1):
        qtbot.keyClick(box, Qt.Key.Key_Down)
    assert ("ask", *heard) == OVERFLOWS


def test_it_says_what_has_no_effect(panel):
    assert not editor(panel, "repeat_last_n").isEnabled()
    panel.show_conversation(SamplingSettings(temperature=0.0, repeat_penalty=1.1), "", "ask")
    assert any(text.startswith("Greedy") for text in visible_texts(panel))
    assert editor(panel, "repeat_last_n").isEnabled()
    panel.show_conversation(SamplingSettings(), "", "ask")
    assert not any(text.startswith("Greedy") for text in visible_texts(panel))
    panel.set_theme(DARK)


def test_samplers_that_few_want_are_shown_when_asked_for_or_in_force(panel, qtbot):
    assert not editor(panel, "grammar").isVisible()
    assert editor(panel, "top_k").isVisible()
    qtbot.mouseClick(panel.findChild(QToolButton), Qt.MouseButton.LeftButton)
    assert editor(panel, "grammar").isVisible()
    qtbot.mouseClick(panel.findChild(QToolButton), Qt.MouseButton.LeftButton)
    assert not editor(panel, "grammar").isVisible()
    panel.show_conversation(SamplingSettings(xtc_probability=0.5), "", "ask")
    assert editor(panel, "xtc_probability").isVisible()
    assert editor(panel, "xtc_threshold").isVisible()
    assert not editor(panel, "dry_base").isVisible()


def test_what_cannot_be_used_is_said_under_it(panel, qtbot):
    panel.show_conversation(SamplingSettings(logit_bias=("cat=1",)), "", "ask")
    assert not any("TOKEN=BIAS" in text for text in visible_texts(panel))
    panel.show_conversation(SamplingSettings(logit_bias=("cat",), grammar="{"), "", "ask")
    assert any("is not TOKEN=BIAS" in text for text in visible_texts(panel))
    assert any("no JSON" in text for text in visible_texts(panel))


def test_mirostat_closes_what_it_takes_the_place_of(panel):
    panel.show_conversation(SamplingSettings(mirostat="2"), "", "ask")
    assert not editor(panel, "top_k").isEnabled()
    assert editor(panel, "mirostat_tau").isVisible()
    panel.show_conversation(SamplingSettings(), "", "ask")
    assert editor(panel, "top_k").isEnabled()
    assert not editor(panel, "mirostat_tau").isVisible()
