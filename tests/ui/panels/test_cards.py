"""The cards that appear when memory does not suffice, and when the engine is gone."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QPushButton

from kvdesk.ui.panels.crash_card import CrashCard
from kvdesk.ui.panels.options_card import OptionsCard, PricedChoice, choices_of
from kvdesk.ui.widgets.theme import DARK, LIGHT
from tests.fakes import memory_pictures as pictures

GIB = 1024**3


@pytest.fixture
def options(qtbot):
    card = OptionsCard(LIGHT)
    qtbot.addWidget(card)
    return card


@pytest.fixture
def crash(qtbot):
    card = CrashCard(LIGHT)
    qtbot.addWidget(card)
    card.resize(500, 400)
    return card


def shown(card):
    return [
        w.text() for kind in (QLabel, QPushButton) for w in card.findChildren(kind) if w.isVisibleTo(card) and w.text()
    ]


def click(qtbot, card, text):
    button = next(b for b in card.findChildren(QPushButton) if b.isVisibleTo(card) and b.text() == text)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def ask(card, **more):
    plan = pictures.plan(line=4 * GIB)
    choices = (
        *choices_of(plan.options),
        PricedChoice("anyway", "Grow anyway", plan.total_bytes, 2 * GIB, False, is_risky=True),
    )
    card.show_choices("The context cannot grow", "It would take 1.1 GiB more.", choices, **more)


def test_every_option_has_its_new_total_its_difference_and_whether_it_fits(options):
    assert options.isHidden()
    ask(options)
    assert not options.isHidden()
    assert options.row_texts() == [
        "K and V cache as q8_0: 3.7 GiB (-1.4 GiB), fits",
        "K and V cache as q4_0: 3.0 GiB (-2.2 GiB), fits",
        "Context length 24,576: 4.4 GiB (-768 MiB), does not fit",
        "Physical batch size 256: 5.0 GiB (-110 MiB), does not fit",
        "Grow anyway: 5.1 GiB (+2.0 GiB), does not fit",
    ]
    for text in options.row_texts():
        assert text.split(": ")[1] in shown(options)


def test_options_that_fit_come_first_and_keep_their_place_as_key(options, qtbot):
    plan = pictures.plan(line=4 * GIB)
    reordered = choices_of(plan.options[::-1])
    assert [choice.key for choice in reordered] == ["2", "3", "0", "1"]


def test_one_click_takes_an_option_and_one_undoes_it(options, qtbot):
    ask(options)
    taken, undone = [], []
    options.choice_taken.connect(taken.append)
    options.undo_requested.connect(lambda: undone.append(True))
    click(qtbot, options, "K and V cache as q8_0")
    click(qtbot, options, "K and V cache as q4_0")  # an answer was given: the others are closed
    assert [choice.key for choice in taken] == ["0"]
    assert taken[0].answer.context.type_k == "q8_0"
    options.show_taken(taken[0])
    assert "Done: K and V cache as q8_0" in shown(options)
    assert "K and V cache as q4_0" not in shown(options)
    click(qtbot, options, "Undo")
    assert undone == [True]
    assert options.isHidden()


def test_load_anyway_is_always_there_and_drawn_as_a_risk(options, qtbot):
    ask(options, can_dismiss=False)
    assert options.buttons["anyway"].isEnabled()
    assert options.buttons["anyway"].property("role") == "danger"
    assert "Dismiss" not in shown(options)
    with qtbot.waitSignal(options.choice_taken, check_params_cb=lambda choice: choice.key == "anyway"):
        qtbot.mouseClick(options.buttons["anyway"], Qt.MouseButton.LeftButton)


def test_a_choice_without_a_price_shows_none_and_its_note(options, qtbot):
    options.show_choices("Full", "", [PricedChoice("trim", "Trim the oldest turns", note="Forgets 6 messages")])
    assert "Forgets 6 messages" in shown(options)
    assert "unknown" not in " ".join(shown(options))
    with qtbot.waitSignal(options.dismissed):
        click(qtbot, options, "Dismiss")


SENTENCE = "The engine ran out of memory: it asked for 3.0 GiB, 2.2 GiB was free while growing the context."


def test_a_crash_is_told_in_words_with_its_last_minute_drawn(crash, qtbot):
    assert crash.isHidden()
    samples = [sample for sample, _ in pictures.chat(60)]
    crash.show_crash(SENTENCE, samples[-1].time_s, samples, pictures.buffers(2048))
    crash.show()
    assert crash.sentence == SENTENCE
    assert "RAM in the last 60 s" in shown(crash)
    plot = crash._plot
    assert len(plot.history) == 120
    assert plot.moment_at(1059.5).event.label == SENTENCE
    crash.set_theme(DARK)


def test_a_crash_before_any_sample_is_told_all_the_same(crash):
    crash.show_crash(SENTENCE, pictures.START_S)
    assert crash.sentence == SENTENCE
    assert crash._plot is None
    crash.show_crash(SENTENCE, pictures.START_S, [pictures.sample(), pictures.sample(0.5)], domain="CUDA0")
    assert crash._plot is None


def test_the_offer_that_fits_is_priced_and_comes_when_the_plan_does(crash, qtbot):
    crash.show_crash(SENTENCE, pictures.START_S)
    assert not any("context" in text and "Reload" in text for text in shown(crash))
    crash.show_smaller(8192, 3 * GIB, True)
    with qtbot.waitSignal(crash.reload_smaller_requested, check_params_cb=lambda n: n == 8192):
        click(qtbot, crash, "Reload with context 8,192 (3.0 GiB, fits)")


@pytest.mark.parametrize(
    ("text", "signal"),
    [
        ("Reload", "reload_requested"),
        ("Go on without the GPU", "reload_without_gpu_requested"),
        ("Copy report", "copy_report_requested"),
        ("Show log", "show_log_requested"),
        ("Dismiss", "dismissed"),
    ],
)
def test_every_button_says_what_is_wanted(crash, qtbot, text, signal):
    crash.show_crash(SENTENCE, pictures.START_S)
    crash.offer_without_gpu(offered=True)
    with qtbot.waitSignal(getattr(crash, signal)):
        click(qtbot, crash, text)
    assert crash.isHidden() == (text == "Dismiss")


def test_while_a_reload_runs_there_is_no_second_one(crash):
    crash.show_crash(SENTENCE, pictures.START_S)
    crash.show_smaller(8192)
    crash.set_busy(True)
    assert not [b for b in crash.findChildren(QPushButton) if b.text().startswith("Reload") and b.isEnabled()]
