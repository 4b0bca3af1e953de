"""A conversation on screen: streaming, staying at the end, notices, and what a long one costs."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from PySide6.QtCore import QEvent, QPoint, Qt
from PySide6.QtWidgets import QApplication, QLabel, QPlainTextEdit, QPushButton, QScrollArea, QScrollBar, QWidget

from kvdesk.backend.protocol.facts import StopReason, TurnStats
from kvdesk.ui.chat.message_column import MessageColumn
from kvdesk.ui.chat.message_editor import MessageEditor
from kvdesk.ui.chat.message_footer import MessageFooter
from kvdesk.ui.chat.message_row import MessageRow
from kvdesk.ui.chat.message_view import MessageView
from kvdesk.ui.chat.notice_view import NoticeView
from kvdesk.ui.chat.prose_view import ProseView
from kvdesk.ui.chat.render_step import CELLS_A_STEP
from kvdesk.ui.chat.transcript import Transcript
from kvdesk.ui.widgets.theme import DARK, LIGHT

STATS = TurnStats(StopReason.EOS, 40, 0, 9, 300.0, 100.0, 18.2)
PARAGRAPH = "A paragraph of some length, about nothing. " * 12 + "\n\n"


@pytest.fixture
def transcript(qtbot) -> Transcript:
    view = Transcript(LIGHT)
    qtbot.addWidget(view)
    view.resize(600, 500)
    view.show()
    qtbot.waitExposed(view)
    return view


def conversation(n: int, text: str = PARAGRAPH) -> list[MessageRow]:
    return [
        MessageRow(f"m{i}", "assistant", f"Reply {i}. {text}", STATS)
        if i % 2
        else MessageRow(f"m{i}", "user", f"Question {i}")
        for i in range(n)
    ]


def bar_of(view: Transcript) -> QScrollBar:
    return view.findChild(QScrollArea).verticalScrollBar()


def in_view(view: Transcript, kind: type = ProseView) -> list:
    """The widgets of this kind of which something can be seen, from the top down."""
    area = view.findChild(QScrollArea).viewport()
    found = [
        widget for widget in area.findChildren(kind) if widget.isVisible() and not widget.visibleRegion().isEmpty()
    ]
    return sorted(found, key=lambda widget: widget.mapTo(area, QPoint(0, 0)).y())


def seen_text(view: Transcript) -> str:
    return "\n".join(prose.toPlainText() for prose in in_view(view))


def jump_button(view: Transcript) -> QPushButton:
    return next(button for button in view.findChildren(QPushButton) if button.objectName() == "jump")


def stream(qtbot, view: Transcript, message_id: str, text: str) -> None:
    with qtbot.waitSignal(view.flushed):
        view.append_text(message_id, text)


# --- empty ------------------------------------------------------------------------------------------------------


def test_empty_says_what_this_is(transcript: Transcript) -> None:
    texts = " ".join(label.text() for label in transcript.findChildren(QLabel) if label.isVisible())
    assert "kvdesk" in texts
    assert ".gguf" in texts


def test_starter_questions_are_signals(qtbot, transcript: Transcript) -> None:
    starters = [b for b in transcript.findChildren(QPushButton) if b.objectName() == "starter" and b.isVisible()]
    assert len(starters) == 3
    for starter in starters:
        with qtbot.waitSignal(transcript.starter_chosen) as caught:
            qtbot.mouseClick(starter, Qt.MouseButton.LeftButton)
        assert caught.args == [starter.text()]


def test_first_message_ends_the_emptiness(transcript: Transcript) -> None:
    transcript.add_message(MessageRow("a", "user", "Hello"))
    assert not [b for b in transcript.findChildren(QPushButton) if b.objectName() == "starter" and b.isVisible()]
    assert seen_text(transcript) == "Hello"
    transcript.show_messages([])
    assert [b for b in transcript.findChildren(QPushButton) if b.objectName() == "starter" and b.isVisible()]


def test_notice_without_messages_leaves_the_starters(qtbot, transcript: Transcript) -> None:
    transcript.add_notice("No model is loaded.", "warning", "Open…")
    qtbot.waitUntil(lambda: bool(in_view(transcript, QLabel)))
    assert [b for b in transcript.findChildren(QPushButton) if b.objectName() == "starter" and b.isVisible()]
    assert "No model is loaded." in [label.text() for label in in_view(transcript, QLabel)]


# --- streaming --------------------------------------------------------------------------------------------------


def test_reply_streams_in(qtbot, transcript: Transcript) -> None:
    transcript.add_message(MessageRow("u", "user", "Hi"))
    transcript.begin_reply("r")
    assert "Waiting for the first word…" in [label.text() for label in in_view(transcript, QLabel)]
    transcript.show_prompt_progress("r", 512, 2048)
    assert "Reading prompt 512 / 2,048" in [label.text() for label in in_view(transcript, QLabel)]
    stream(qtbot, transcript, "r", "Hel")
    assert seen_text(transcript) == "Hi\nHel"
    transcript.show_speed("r", 2, 18.24)
    stream(qtbot, transcript, "r", "lo **you**")
    assert seen_text(transcript) == "Hi\nHello you"
    footer = in_view(transcript, MessageFooter)[-1]
    assert footer.stats_label.full_text == "2 tokens · 18.2 tok/s"
    transcript.finish_reply("r", STATS)
    assert footer.stats_label.full_text.endswith("finished")
    assert transcript.text_of("r") == "Hello **you**"


def test_text_is_drawn_in_flushes(qtbot, transcript: Transcript) -> None:
    transcript.begin_reply("r")
    flushes: list[float] = []
    transcript.flushed.connect(flushes.append)
    for _ in range(500):
        transcript.append_text("r", "word ")
    assert flushes == []
    qtbot.waitUntil(lambda: seen_text(transcript).count("word") == 500)
    assert len(flushes) == 1


def test_finish_shows_what_was_not_drawn_yet(transcript: Transcript) -> None:
    transcript.begin_reply("r")
    transcript.append_text("r", "all of it")
    transcript.finish_reply("r", STATS)
    assert seen_text(transcript) == "all of it"


def test_stop_reason_can_be_overruled(transcript: Transcript) -> None:
    transcript.begin_reply("r")
    transcript.append_text("r", "x")
    transcript.finish_reply("r", STATS, StopReason.CANCELLED)
    footer = in_view(transcript, MessageFooter)[-1]
    assert "stopped by you" in footer.stats_label.full_text
    assert footer.continue_button.isVisible()


def test_failure_keeps_the_text(transcript: Transcript) -> None:
    transcript.begin_reply("r")
    transcript.append_text("r", "half a rep")
    transcript.fail_reply("r", "The engine was killed.")
    assert seen_text(transcript) == "half a rep"
    assert "The engine was killed." in [label.text() for label in in_view(transcript, QLabel)]
    assert transcript.text_of("r") == "half a rep"


def test_continued_reply_grows_on(qtbot, transcript: Transcript) -> None:
    transcript.show_messages([MessageRow("r", "assistant", "One two", STATS)])
    transcript.begin_reply("r")
    stream(qtbot, transcript, "r", " three")
    assert seen_text(transcript) == "One two three"
    transcript.finish_reply("r", STATS)
    assert transcript.message_ids == ("r",)
    assert transcript.text_of("r") == "One two three"


def test_other_conversations_messages_are_ignored(transcript: Transcript) -> None:
    transcript.show_messages(conversation(2))
    before = seen_text(transcript)
    transcript.append_text("elsewhere", "x")
    transcript.show_prompt_progress("elsewhere", 1, 2)
    transcript.show_speed("elsewhere", 1, 1.0)
    transcript.finish_reply("elsewhere", STATS)
    transcript.fail_reply("m1", "not streaming")
    assert seen_text(transcript) == before
    assert transcript.text_of("elsewhere") == ""


def test_while_streaming_nothing_else_can_be_asked(transcript: Transcript) -> None:
    transcript.show_messages([MessageRow("u", "user", "Hi"), MessageRow("a", "assistant", "Yes", STATS)])
    transcript.begin_reply("r")
    first, second, _ = in_view(transcript, MessageFooter)
    assert not first.edit_button.isEnabled()
    assert not second.regenerate_button.isEnabled()
    transcript.append_text("r", "x")
    transcript.finish_reply("r", STATS)
    assert first.edit_button.isEnabled()
    assert second.regenerate_button.isEnabled()


def test_streamed_markdown_ends_as_if_shown_at_once(qtbot, transcript: Transcript) -> None:
    text = (
        "<think>plan</think># Title\n\n- a\n  ```py\n  x = 1\n  ```\n- b\n\n" + PARAGRAPH * 3 + "| a |\n|---|\n| 1 |\n"
    )
    transcript.show_messages([MessageRow("whole", "assistant", text, STATS)])
    whole = [prose.toHtml() for prose in transcript.findChildren(ProseView) if prose.isVisible()]
    transcript.show_messages([])
    transcript.begin_reply("r")
    for at in range(0, len(text), 9):
        transcript.append_text("r", text[at : at + 9])
        if at % 180 == 0:
            qtbot.waitSignal(transcript.flushed).wait()
    transcript.finish_reply("r", STATS)
    streamed = [
        prose.toHtml() for prose in transcript.findChildren(ProseView) if prose.isVisible() and prose.shown_text
    ]
    assert sorted(streamed) == sorted(whole)


# --- scrolling --------------------------------------------------------------------------------------------------


def test_conversation_opens_at_its_end(transcript: Transcript) -> None:
    transcript.show_messages(conversation(40))
    assert bar_of(transcript).value() == bar_of(transcript).maximum() > 0
    assert "Reply 39." in seen_text(transcript)
    assert not jump_button(transcript).isVisible()


def test_follows_new_text_at_the_end(qtbot, transcript: Transcript) -> None:
    transcript.show_messages(conversation(10))
    transcript.begin_reply("r")
    for _ in range(8):
        stream(qtbot, transcript, "r", PARAGRAPH)
        assert bar_of(transcript).value() == bar_of(transcript).maximum()
    assert transcript.follows


def test_stays_where_the_user_reads(qtbot, transcript: Transcript) -> None:
    transcript.show_messages(conversation(30))
    transcript.begin_reply("r")
    stream(qtbot, transcript, "r", PARAGRAPH)
    bar_of(transcript).setValue(bar_of(transcript).maximum() - 700)
    QApplication.processEvents()
    assert not transcript.follows
    assert jump_button(transcript).isVisible()
    reading = in_view(transcript)[0]
    place = reading.mapTo(transcript, QPoint(0, 0)).y()
    for _ in range(5):
        stream(qtbot, transcript, "r", PARAGRAPH)
        assert reading.mapTo(transcript, QPoint(0, 0)).y() == place
    transcript.finish_reply("r", STATS)
    assert reading.mapTo(transcript, QPoint(0, 0)).y() == place


def test_jump_to_latest(qtbot, transcript: Transcript) -> None:
    transcript.show_messages(conversation(30))
    bar_of(transcript).setValue(0)
    qtbot.mouseClick(jump_button(transcript), Qt.MouseButton.LeftButton)
    assert transcript.follows
    assert "Reply 29." in seen_text(transcript)
    assert not jump_button(transcript).isVisible()


def test_scrolling_back_to_the_end_follows_again(transcript: Transcript) -> None:
    transcript.show_messages(conversation(30))
    bar_of(transcript).setValue(100)
    assert not transcript.follows
    bar_of(transcript).setValue(bar_of(transcript).maximum())
    assert transcript.follows


def test_a_new_reply_brings_the_end_into_view(transcript: Transcript) -> None:
    transcript.show_messages(conversation(30))
    bar_of(transcript).setValue(0)
    transcript.add_message(MessageRow("u", "user", "One more"))
    transcript.begin_reply("r")
    assert transcript.follows
    assert "One more" in seen_text(transcript)


def test_keys_reach_both_ends(qtbot, transcript: Transcript) -> None:
    transcript.show_messages(conversation(30))
    area = transcript.findChild(QScrollArea)
    qtbot.keyClick(area, Qt.Key.Key_Home)
    assert "Question 0" in seen_text(transcript)
    qtbot.keyClick(area, Qt.Key.Key_PageDown)
    assert bar_of(transcript).value() > 0
    qtbot.keyClick(area, Qt.Key.Key_End)
    assert "Reply 29." in seen_text(transcript)


def test_keys_scroll_also_from_within_text(qtbot, transcript: Transcript) -> None:
    transcript.show_messages(conversation(30))
    prose = in_view(transcript)[-1]
    prose.setFocus()
    before = bar_of(transcript).value()
    qtbot.keyClick(prose, Qt.Key.Key_PageUp)
    assert bar_of(transcript).value() < before


def test_every_message_is_met_on_the_way_up(transcript: Transcript) -> None:
    transcript.show_messages(conversation(60, "short"))
    met: set[str] = set()
    while True:
        met |= {word for line in seen_text(transcript).splitlines() for word in [line.rstrip(". short")]}
        if bar_of(transcript).value() == 0:
            break
        bar_of(transcript).setValue(bar_of(transcript).value() - 200)
        QApplication.processEvents()
    assert {f"Question {i}" for i in range(0, 60, 2)} <= met
    assert {f"Reply {i}" for i in range(1, 60, 2)} <= met


def test_scrolling_up_does_not_jump(transcript: Transcript) -> None:
    transcript.show_messages(conversation(40))
    bar = bar_of(transcript)
    for _ in range(25):
        reading = in_view(transcript)[0]
        place = reading.mapTo(transcript, QPoint(0, 0)).y()
        bar.setValue(bar.value() - 60)
        if bar.value() == 0:
            break
        assert reading.mapTo(transcript, QPoint(0, 0)).y() == place + 60


def test_rows_do_not_overlap(transcript: Transcript) -> None:
    transcript.show_messages(conversation(20))
    transcript.add_notice("A notice")
    views = in_view(transcript, MessageView)
    for view, below in pairwise(views):
        assert view.geometry().bottom() < below.geometry().top()
    for prose in in_view(transcript):
        assert prose.document().size().height() <= prose.height() + 1


def test_narrower_window_breaks_lines_anew(qtbot, transcript: Transcript) -> None:
    transcript.show_messages(conversation(6))
    before = in_view(transcript)[-1].height()
    transcript.resize(320, 500)
    qtbot.waitUntil(lambda: in_view(transcript)[-1].height() > before)
    assert bar_of(transcript).value() == bar_of(transcript).maximum()
    assert all(prose.geometry().right() <= 320 for prose in in_view(transcript))


def test_messages_given_before_the_first_showing(qtbot) -> None:
    view = Transcript(LIGHT)
    qtbot.addWidget(view)
    view.resize(600, 400)
    view.show_messages(conversation(20))
    view.begin_reply("r")
    view.append_text("r", "hidden at first")
    view.finish_reply("r", STATS)
    view.show()
    assert "hidden at first" in seen_text(view)


# --- notices ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["note", "warning", "error"])
def test_notice(qtbot, transcript: Transcript, kind: str) -> None:
    transcript.show_messages(conversation(10))
    notice_id = transcript.add_notice("Context recreated: 1,204 cells <b>moved</b>.", kind, "Undo")
    assert "Context recreated: 1,204 cells <b>moved</b>." in [label.text() for label in in_view(transcript, QLabel)]
    button = next(button for button in in_view(transcript, QPushButton) if button.text() == "Undo")
    with qtbot.waitSignal(transcript.notice_action_triggered) as caught:
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert caught.args == [notice_id]
    transcript.remove_notice(notice_id)
    assert "Context recreated: 1,204 cells <b>moved</b>." not in [label.text() for label in in_view(transcript, QLabel)]
    transcript.remove_notice(notice_id)


def test_the_same_again_is_counted_not_repeated(qtbot, transcript: Transcript) -> None:
    first = transcript.add_notice("The disk is full.", "error")
    for _ in range(3):
        assert transcript.add_notice("The disk is full.", "error") == first
    transcript.add_notice("Something else.", "error")
    transcript.add_notice("The disk is full.", "error")
    texts = [view.label.text() for view in transcript.findChildren(NoticeView) if view.isVisibleTo(transcript)]
    assert texts == ["The disk is full. (4 times)", "Something else.", "The disk is full."]


def test_unknown_kind_of_notice(transcript: Transcript) -> None:
    transcript.show_messages(conversation(2))
    with pytest.raises(ValueError, match="shout"):
        transcript.add_notice("x", "shout")


def test_notices_do_not_take_the_view_away(transcript: Transcript) -> None:
    transcript.show_messages(conversation(30))
    bar_of(transcript).setValue(50)
    transcript.add_notice("x")
    assert bar_of(transcript).value() == 50


# --- messages ---------------------------------------------------------------------------------------------------


def test_message_signals_carry_ids(qtbot, transcript: Transcript) -> None:
    rows = [
        MessageRow("u", "user", "Hi"),
        MessageRow(
            "r", "assistant", "Yes", TurnStats(StopReason.LENGTH, 1, 0, 1, 1.0, 1.0, 1.0), version=1, n_versions=2
        ),
    ]
    transcript.show_messages(rows)
    question, answer = in_view(transcript, MessageFooter)
    with qtbot.waitSignal(transcript.regenerate_requested) as caught:
        answer.regenerate_button.click()
    assert caught.args == ["r"]
    with qtbot.waitSignal(transcript.continue_requested) as caught:
        answer.continue_button.click()
    assert caught.args == ["r"]
    with qtbot.waitSignal(transcript.version_requested) as caught:
        answer.versions.next_button.click()
    assert caught.args == ["r", 1]
    question.edit_button.click()
    editor = in_view(transcript, MessageEditor)[0]
    editor.field.setPlainText("Hello")
    with qtbot.waitSignal(transcript.message_edited) as caught:
        editor.send_button.click()
    assert caught.args == ["u", "Hello"]


def test_copy_reaches_the_clipboard(transcript: Transcript, qapp: QApplication) -> None:
    transcript.show_messages([MessageRow("r", "assistant", "**Yes**", STATS)])
    in_view(transcript, MessageFooter)[0].copy_button.click()
    assert qapp.clipboard().text() == "**Yes**"


def test_link_is_passed_on(qtbot, transcript: Transcript) -> None:
    transcript.show_messages([MessageRow("r", "assistant", "[docs](https://example.org)", STATS)])
    prose = in_view(transcript)[0]
    with qtbot.waitSignal(transcript.link_activated) as caught:
        qtbot.mouseClick(prose.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(8, 8))
    assert caught.args == ["https://example.org"]


def test_message_can_be_replaced(transcript: Transcript) -> None:
    transcript.show_messages([MessageRow("r", "assistant", "Old", STATS)])
    transcript.update_message(MessageRow("r", "assistant", "New", STATS, version=2, n_versions=2))
    assert seen_text(transcript) == "New"
    assert in_view(transcript, MessageFooter)[0].versions.label.text() == "2/2"
    transcript.update_message(MessageRow("elsewhere", "assistant", "x"))
    assert transcript.message_ids == ("r",)


def test_edit_by_id_far_up(transcript: Transcript) -> None:
    transcript.show_messages(conversation(40))
    transcript.begin_edit("m0")
    assert in_view(transcript, MessageEditor)[0].field.toPlainText() == "Question 0"


def test_message_being_edited_keeps_its_draft_out_of_view(qtbot, transcript: Transcript) -> None:
    transcript.show_messages(conversation(60))
    transcript.begin_edit("m0")
    in_view(transcript, MessageEditor)[0].field.setPlainText("draft")
    transcript.jump_to_latest()
    transcript.begin_reply("r")
    stream(qtbot, transcript, "r", PARAGRAPH * 20)
    bar_of(transcript).setValue(0)
    assert in_view(transcript, MessageEditor)[0].field.toPlainText() == "draft"


def test_thinking_stays_open_when_scrolled_away_and_back(qtbot, transcript: Transcript) -> None:
    rows = [MessageRow("t", "assistant", "So.", STATS, thought="plan"), *conversation(60)]
    transcript.show_messages(rows)
    bar_of(transcript).setValue(0)
    button = next(button for button in in_view(transcript, QPushButton) if button.objectName() == "thinking")
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert "plan" in seen_text(transcript)
    transcript.jump_to_latest()
    bar_of(transcript).setValue(0)
    assert "plan" in seen_text(transcript)


def test_theme_change_reaches_everything(transcript: Transcript) -> None:
    transcript.show_messages([MessageRow("r", "assistant", "[docs](https://example.org)", STATS)])
    transcript.add_notice("x", "error")
    transcript.set_theme(DARK)
    fragment = in_view(transcript)[0].document().firstBlock().begin().fragment()
    assert fragment.charFormat().foreground().color().name() == DARK.accent


def test_controls_have_names(transcript: Transcript) -> None:
    transcript.show_messages(conversation(4, "```\nx\n```"))
    transcript.add_notice("x", "note", "Do")
    for widget in transcript.findChildren(QWidget):
        if widget.isVisible() and widget.focusPolicy() & Qt.FocusPolicy.TabFocus:
            named = widget.accessibleName() or getattr(widget, "text", str)()
            assert named, widget


# --- cost -------------------------------------------------------------------------------------------------------


def test_five_hundred_messages_make_few_widgets(transcript: Transcript) -> None:
    transcript.show_messages(conversation(500))
    assert len(transcript.findChildren(MessageView)) < 15
    for place in (0, 5_000, 20_000, 1_000):
        bar_of(transcript).setValue(place)
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    assert len(transcript.findChildren(MessageView)) < 30


def test_memory_of_a_message_is_modest(transcript: Transcript) -> None:
    tracemalloc.start()
    try:
        rows = conversation(500, PARAGRAPH * 4)
        size = sum(len(row.text) for row in rows)
        before = tracemalloc.get_traced_memory()[0]
        transcript.show_messages(rows)
        bar_of(transcript).setValue(bar_of(transcript).maximum() // 2)
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert size > 500_000
    assert (after - before) / len(rows) < 4096


def test_long_reply_makes_few_widgets(qtbot, transcript: Transcript) -> None:
    transcript.begin_reply("r")
    stream(qtbot, transcript, "r", PARAGRAPH * 120)
    assert len(transcript.text_of("r")) > 60_000
    stream(qtbot, transcript, "r", "```\nlast\n```\n")
    assert any(editor.toPlainText() == "last" for editor in in_view(transcript, QPlainTextEdit))
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    assert len(transcript.findChildren(ProseView)) < 20


# --- big tables ---------------------------------------------------------------------------------------------------


def big_table(columns: int, rows: int) -> str:
    lines = [[f"h{n}" for n in range(columns)], ["---"] * columns, *([f"r{row}"] * columns for row in range(rows))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells_in(proses: list[ProseView]) -> int:
    return sum(prose.shown_text.count("|") for prose in proses)


@pytest.mark.parametrize(("columns", "rows"), [(20, 200), (1000, 5)])
def test_a_big_table_is_laid_out_in_steps_until_all_of_it_that_is_near_is_there(
    qtbot, transcript: Transcript, monkeypatch: pytest.MonkeyPatch, columns: int, rows: int
) -> None:
    steps: list[int] = []
    arrange = MessageColumn.arrange

    def counted(column: MessageColumn) -> None:
        before = cells_in(transcript.findChildren(ProseView))
        arrange(column)
        steps.append(cells_in(transcript.findChildren(ProseView)) - before)

    monkeypatch.setattr(MessageColumn, "arrange", counted)
    transcript.show_messages([MessageRow("m", "assistant", big_table(columns, rows), STATS)])
    view = transcript.findChildren(MessageView)[0]
    parts = view._parts
    qtbot.waitUntil(lambda: parts[-2].widget is not None)
    qtbot.waitUntil(lambda: all(part.widget for part in parts if part.y + part.height > view.height() - 500))
    assert len([cells for cells in steps if cells]) > 1
    assert max(steps) <= max(CELLS_A_STEP, *(part.segment.text.count("|") for part in parts if part.segment))
    assert f"r{rows - 1}" in seen_text(transcript)
