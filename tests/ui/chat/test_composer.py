"""The composer as a user meets it."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QApplication, QLabel, QLineEdit, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

from kvdesk.backend.conversations.conversation import ConversationRow
from kvdesk.ui.chat.composer import Composer
from kvdesk.ui.chat.composer_field import MOST_LINES
from kvdesk.ui.chat.conversation_list import ConversationList
from kvdesk.ui.panels.options_card import PricedChoice
from kvdesk.ui.widgets.theme import DARK, LIGHT

GIB = 1024**3
CHOICES = (
    PricedChoice("grow", "Grow to 16k", 5 * GIB, GIB, True),
    PricedChoice("q8", "KV to q8_0", None, -400 * 1024**2, None, "reads 3,912 tokens again, about 7 s"),
    PricedChoice("trim", "Trim the oldest turns"),
    PricedChoice("anyway", "Send anyway", 9 * GIB, None, False, is_risky=True),
    PricedChoice("fifth", "One too many"),
)


@pytest.fixture
def composer(qtbot):
    composer = Composer(LIGHT)
    qtbot.addWidget(composer)
    composer.resize(700, composer.sizeHint().height())
    with qtbot.waitExposed(composer):
        composer.show()
    composer.activateWindow()
    composer.setFocus()
    return composer


@pytest.fixture
def field(composer, qtbot):
    field = composer.findChild(QPlainTextEdit)
    qtbot.waitUntil(field.hasFocus)
    return field


def button(composer, text):
    (found,) = [b for b in composer.findChildren(QPushButton) if b.text() == text and b.isVisible()]
    return found


def visible_texts(composer):
    return [label.text() for label in composer.findChildren(QLabel) if label.isVisible() and label.text()]


def listen(signal):
    heard = []
    signal.connect(lambda *args: heard.append(args[0] if len(args) == 1 else args))
    return heard


# --- writing and sending -------------------------------------------------------------------------------------------


def test_enter_sends_and_shift_enter_makes_a_line(composer, field, qtbot):
    sent = listen(composer.message_sent)
    qtbot.keyClicks(field, "one")
    qtbot.keyClick(field, Qt.Key.Key_Return, Qt.KeyboardModifier.ShiftModifier)
    qtbot.keyClicks(field, "two")
    assert sent == []
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert sent == ["one\ntwo"]
    assert composer.draft() == "one\ntwo"  # it stays until it is safe in the conversation
    composer.set_draft("")
    qtbot.keyClicks(field, "  \t")
    qtbot.keyClick(field, Qt.Key.Key_Enter)
    assert not button(composer, "Send").isEnabled()
    assert len(sent) == 1


def test_the_button_sends_too_and_the_field_keeps_the_focus(composer, field, qtbot):
    sent = listen(composer.message_sent)
    composer.set_draft("hello")
    qtbot.mouseClick(button(composer, "Send"), Qt.MouseButton.LeftButton)
    assert sent == ["hello"]
    assert field.hasFocus()


def test_half_a_character_is_never_sent(composer, field, qtbot):
    sent = listen(composer.message_sent)
    composer.set_draft("a\N{GRINNING FACE}b")
    cursor = field.textCursor()
    cursor.setPosition(1)
    cursor.setPosition(2, cursor.MoveMode.KeepAnchor)  # half of the face
    cursor.removeSelectedText()
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert sent == ["ab"]


def test_it_grows_with_its_text_up_to_a_limit(composer, field):
    heights = []
    for lines in (1, 2, 3, MOST_LINES, 50):
        composer.set_draft("\n".join("x" * lines))
        heights.append(field.height())
        assert (field.verticalScrollBar().maximum() > 0) == (lines > MOST_LINES)
    assert heights[0] == heights[1] < heights[2] < heights[3] == heights[4]
    composer.set_draft("word " * 80)  # wraps
    wide = field.height()
    composer.resize(350, composer.height())
    QApplication.processEvents()
    assert field.height() > wide
    composer.set_draft("")
    assert field.height() == heights[0]


def test_typing_is_told_once_after_the_last_key(composer, field, qtbot):
    drafts = listen(composer.draft_changed)
    with qtbot.waitSignal(composer.draft_changed):
        qtbot.keyClicks(field, "hello")
    assert drafts == ["hello"]
    with qtbot.waitSignal(composer.draft_changed):
        composer.set_draft("")
    assert drafts[-1] == ""


def test_drafts_can_be_put_away_and_back(composer, field, qtbot):
    qtbot.keyClicks(field, "for the first")
    kept = composer.draft()
    composer.set_draft("for the second")
    assert composer.draft() == "for the second"
    composer.set_draft(kept)
    qtbot.keyClicks(field, "!")
    assert composer.draft() == "for the first!"


# --- while a reply is written, and without a model -----------------------------------------------------------------


def test_send_becomes_stop_and_writing_goes_on(composer, field, qtbot):
    sent, stopped = listen(composer.message_sent), listen(composer.stop_requested)
    composer.show_generating(True)
    qtbot.keyClicks(field, "next")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert sent == []
    assert composer.draft() == "next"
    qtbot.mouseClick(button(composer, "Stop"), Qt.MouseButton.LeftButton)
    qtbot.keyClick(field, Qt.Key.Key_Escape)
    assert len(stopped) == 2
    composer.show_generating(False)
    qtbot.keyClick(field, Qt.Key.Key_Escape)
    assert len(stopped) == 2
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert sent == ["next"]


def test_esc_clears_a_search_before_it_stops_a_reply(qtbot):
    window = QWidget()
    qtbot.addWidget(window)
    panel, composer = ConversationList(LIGHT), Composer(LIGHT)
    layout = QVBoxLayout(window)
    layout.addWidget(panel)
    layout.addWidget(composer)
    with qtbot.waitExposed(window):
        window.show()
    window.activateWindow()
    panel.show_conversations((ConversationRow("a", "A", 1.0),))
    stopped = listen(composer.stop_requested)
    composer.show_generating(True)
    panel.focus_search()
    box = panel.findChild(QLineEdit)
    qtbot.waitUntil(box.hasFocus)
    qtbot.keyClicks(box, "abc")
    qtbot.keyClick(box, Qt.Key.Key_Escape)
    assert (box.text(), stopped) == ("", [])
    qtbot.keyClick(box, Qt.Key.Key_Escape)
    assert len(stopped) == 1


def test_without_a_model_it_says_why_and_keeps_what_is_written(composer, field, qtbot):
    sent = listen(composer.message_sent)
    composer.show_closed("No model is loaded")
    qtbot.keyClicks(field, "hello")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert sent == []
    assert "No model is loaded" in visible_texts(composer)
    assert not button(composer, "Send").isEnabled()
    assert button(composer, "Send").toolTip() == "No model is loaded"
    composer.show_closed("")
    assert "No model is loaded" not in visible_texts(composer)
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert sent == ["hello"]


# --- numbers and warnings ------------------------------------------------------------------------------------------


def test_the_drafts_tokens_are_shown_while_there_is_a_draft(composer):
    composer.show_draft_tokens(1212)
    assert not any("tok" in text for text in visible_texts(composer))
    composer.set_draft("some text")
    assert "draft 1,212 tok" in visible_texts(composer)
    composer.show_draft_tokens(None)
    assert not any("tok" in text for text in visible_texts(composer))


@pytest.mark.parametrize(
    ("used", "draft", "role"),
    [(6000, 500, "muted"), (6000, 560, "amber"), (7700, 60, "amber"), (7700, 90, "red"), (9000, 0, "red")],
)
def test_the_gauge_counts_the_draft_and_warns_at_80_and_95_percent(composer, used, draft, role):
    composer.set_draft("text")
    composer.show_draft_tokens(draft)
    composer.show_context(used, 8192)
    (label,) = [label for label in composer.findChildren(QLabel) if label.text().endswith("/ 8k")]
    assert label.property("role") == role
    composer.show_context(None, None)
    assert not label.isVisible()


def test_a_warning_has_priced_ways_out(composer, qtbot):
    chosen = listen(composer.option_chosen)
    composer.show_warning("The reply may not fit.", CHOICES)
    assert "The reply may not fit." in visible_texts(composer)
    assert [b.text() for b in composer.warning.buttons.values()] == [
        "Grow to 16k (+1.0 GiB, fits)",
        "KV to q8_0 (-400 MiB, reads 3,912 tokens again, about 7 s)",
        "Trim the oldest turns",
        "Send anyway (9.0 GiB, does not fit)",
    ]
    qtbot.mouseClick(composer.warning.buttons["q8"], Qt.MouseButton.LeftButton)
    assert chosen == [CHOICES[1]]
    composer.clear_warning()
    assert composer.warning.sentence == ""
    composer.show_warning("Another.")
    assert not [b for b in composer.warning.buttons.values() if b.isVisible()]


def test_a_draft_too_long_for_the_context_is_not_sent_and_not_lost(composer, field, qtbot):
    sent = listen(composer.message_sent)
    composer.set_draft("long")
    composer.show_warning("This is 1,204 tokens too long.", CHOICES[:1], is_blocking=True, tone="red")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert (sent, composer.draft()) == ([], "long")
    composer.clear_warning()
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert sent == ["long"]


def test_warnings_fit_narrow_windows(composer, qtbot):
    composer.show_warning("The reply may not fit.", CHOICES)
    composer.resize(300, 300)
    QApplication.processEvents()
    long = composer.warning.buttons["q8"]
    assert long.text().endswith("…")
    assert long.toolTip() == "KV to q8_0 (-400 MiB, reads 3,912 tokens again, about 7 s)"
    tops = {b.mapTo(composer, b.rect().topLeft()).y() for b in composer.warning.buttons.values()}
    assert len(tops) == 4  # below each other
    assert composer.minimumSizeHint().width() <= 300
    composer.resize(1400, 300)
    QApplication.processEvents()
    tops = {b.mapTo(composer, b.rect().topLeft()).y() for b in composer.warning.buttons.values()}
    assert len(tops) == 1
    assert long.text() == long.toolTip()


# --- files ---------------------------------------------------------------------------------------------------------


def mime(*paths):
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(path) for path in paths])
    return data


def test_files_are_told_apart_wherever_they_are_dropped(composer, field, tmp_path):
    models, texts = listen(composer.model_dropped), listen(composer.text_files_dropped)
    note, model = str(tmp_path / "note.txt"), str(tmp_path / "Model.GGUF")
    field.insertFromMimeData(mime(note))
    data = mime(model, note)
    at, copy, left, none = (
        QPointF(5, 5),
        Qt.DropAction.CopyAction,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    enter = QDragEnterEvent(at.toPoint(), copy, data, left, none)
    QApplication.sendEvent(composer, enter)
    assert enter.isAccepted()
    QApplication.sendEvent(composer, QDropEvent(at, copy, data, left, none))
    assert texts == [[note], [note]]
    assert models == [model]
    assert composer.draft() == ""
    text = QMimeData()
    text.setText("pasted")
    field.insertFromMimeData(text)
    assert composer.draft() == "pasted"


def test_a_files_text_lands_on_lines_of_its_own_and_can_be_undone(composer, field):
    composer.set_draft("Look at this:")
    composer.insert_text("note.txt:\n```\nhello\n```\n")
    assert composer.draft() == "Look at this:\nnote.txt:\n```\nhello\n```\n"
    field.undo()
    assert composer.draft() == "Look at this:"


# --- looks ---------------------------------------------------------------------------------------------------------


def test_everything_has_a_name_and_follows_the_theme(composer, field):
    assert field.accessibleName() == "Message"
    before = composer.grab().toImage()
    composer.show_warning("Words", CHOICES)
    composer.set_theme(DARK)
    assert composer.grab().toImage() != before
    assert composer.stop_action.shortcut().toString() == "Esc"
