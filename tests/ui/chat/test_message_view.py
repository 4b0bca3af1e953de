"""One message, as a user sees it and works with it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import pytest
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QColor, QEnterEvent, QImage, QTextCursor, QTextDocument
from PySide6.QtWidgets import QApplication, QLabel, QPlainTextEdit, QProgressBar, QPushButton, QWidget

from kvdesk.backend.protocol.facts import StopReason, TurnStats
from kvdesk.ui.chat.code_view import CodeView
from kvdesk.ui.chat.message_editor import MessageEditor
from kvdesk.ui.chat.message_footer import MessageFooter
from kvdesk.ui.chat.message_row import MessageRow, MessageState
from kvdesk.ui.chat.message_view import MessageView
from kvdesk.ui.chat.prose_view import ProseView
from kvdesk.ui.chat.render_step import RenderStep
from kvdesk.ui.chat.reply_stats import details, stop_words, summary
from kvdesk.ui.widgets.theme import DARK, LIGHT

STATS = TurnStats(StopReason.EOS, 1237, 1204, 41, 310.0, 250.0, 18.24)
Show = Callable[..., MessageView]
W = TypeVar("W", bound=QWidget)


@pytest.fixture
def show(qtbot) -> Show:
    """Shows a message at a width, all of it or what lies above ``bottom``."""

    def make(row: MessageRow | MessageState, width: int = 600, bottom: int = 100_000) -> MessageView:
        state = row if isinstance(row, MessageState) else MessageState(row)
        view = MessageView(state, LIGHT)
        qtbot.addWidget(view)
        view.show()
        settle(view, width, bottom)
        return view

    return make


def settle(view: MessageView, width: int = 600, bottom: int = 100_000) -> int:
    height = view.arrange(width)
    while view.realise(0, bottom, RenderStep()):
        height = view.arrange(width)
    view.resize(width, height)
    return height


def reply(text: str, **fields: object) -> MessageRow:
    return MessageRow("r1", "assistant", text, **fields)  # type: ignore[arg-type]


def user(text: str, **fields: object) -> MessageRow:
    return MessageRow("u1", "user", text, **fields)  # type: ignore[arg-type]


def shown(view: QWidget, kind: type[W]) -> list[W]:
    """The visible descendants of this kind, from the top down."""
    found = [widget for widget in view.findChildren(kind) if widget.isVisibleTo(view)]
    return sorted(found, key=lambda widget: widget.mapTo(view, QPoint(0, 0)).y())


def prose_text(view: MessageView) -> str:
    return "\n".join(prose.toPlainText() for prose in shown(view, ProseView))


def footer(view: MessageView) -> MessageFooter:
    return shown(view, MessageFooter)[0]


# --- text -------------------------------------------------------------------------------------------------------


def test_prose_and_code_come_in_order(show: Show) -> None:
    view = show(reply("Before\n```python\nx = 1\n```\nAfter"))
    tops = [
        (widget.mapTo(view, QPoint(0, 0)).y(), widget.height())
        for widget in (shown(view, ProseView)[0], shown(view, CodeView)[0], shown(view, ProseView)[1])
    ]
    assert all(top + height <= below for (top, height), (below, _) in pairwise(tops))
    assert prose_text(view) == "Before\nAfter"
    assert shown(view, CodeView)[0].text == "x = 1"
    assert shown(view, CodeView)[0].language == "python"


def test_markdown_is_rendered(show: Show) -> None:
    view = show(reply("# Title\n\n**bold** and `code`\n\n1. one\n2. two\n\n| a | b |\n|---|---|\n| 1 | 2 |"))
    document = shown(view, ProseView)[0].document()
    assert "**" not in document.toPlainText()
    assert document.firstBlock().blockFormat().headingLevel() == 1
    assert len(document.rootFrame().childFrames()) == 1
    numbers = [block.textList().itemText(block) for block in blocks(document) if block.textList()]
    assert numbers == ["1.", "2."]


def test_list_goes_on_after_code_with_its_number(show: Show) -> None:
    view = show(reply("1. one\n   ```\n   x\n   ```\n2. two"))
    document = shown(view, ProseView)[1].document()
    assert [block.textList().itemText(block) for block in blocks(document)] == ["2."]


def test_html_is_text(show: Show) -> None:
    text = "a <b>bold</b> <script>alert(1)</script>\n\n<table><tr><td>x</td></tr></table>"
    assert prose_text(show(reply(text))) == text.replace("\n\n", "\n")


def test_what_a_user_wrote_is_text(show: Show) -> None:
    text = "# no title\n* no *list* <b>x</b>\n  indented ![x](y)"
    assert prose_text(show(user(text))) == text


def test_formulas_are_text(show: Show) -> None:
    assert prose_text(show(reply(r"So \(a_1 * b_1 * c\) and $$x^*_1$$"))) == r"So \(a_1 * b_1 * c\) and $$x^*_1$$"


def test_lines_of_a_poem_stay_apart(show: Show) -> None:
    assert prose_text(show(reply("Roses are red,\nviolets are blue"))) == "Roses are red,\nviolets are blue"


def test_right_to_left(show: Show) -> None:
    view = show(reply("سلام دنیا\n\nHello"))
    first, second = blocks(shown(view, ProseView)[0].document())
    assert first.textDirection() is Qt.LayoutDirection.RightToLeft
    assert second.textDirection() is Qt.LayoutDirection.LeftToRight
    assert first.layout().lineAt(0).naturalTextRect().left() > second.layout().lineAt(0).naturalTextRect().left()


@pytest.mark.parametrize(
    "text", ["x" * 2000, "你好" * 600, "👋" * 500, "| " + "x" * 500 + " | b |\n|---|---|\n| 1 | 2 |"]
)
@pytest.mark.parametrize("make", [reply, user])
def test_nothing_is_wider_than_the_view(show: Show, text: str, make: Callable[[str], MessageRow]) -> None:
    view = show(make(text), width=300)
    for prose in shown(view, ProseView):
        assert prose.document().size().width() <= prose.width()
        assert prose.document().size().height() <= prose.height()
        assert prose.geometry().right() <= view.width()


def test_long_code_lines_scroll_sideways(show: Show) -> None:
    view = show(reply("```\n" + "x" * 500 + "\n```\n```\nshort\n```"))
    long, short = (code.findChild(QPlainTextEdit) for code in shown(view, CodeView))
    assert long.horizontalScrollBar().isVisibleTo(view)
    assert long.horizontalScrollBar().maximum() > 0
    assert not short.horizontalScrollBar().isVisibleTo(view)
    for code in (long, short):
        assert code.verticalScrollBar().maximum() == 0


def test_wider_view_is_not_higher(show: Show) -> None:
    view = show(reply("word " * 300), width=300)
    narrow = view.height()
    assert settle(view, 900) < narrow


def test_users_short_message_has_a_small_card(show: Show) -> None:
    view = show(user("Hi"))
    prose = shown(view, ProseView)[0]
    assert prose.width() < 60
    assert prose.geometry().right() > 560
    image = view.grab().toImage()
    x, y = prose.x() - 5, prose.y() + 5
    assert image.pixelColor(round(x * image.devicePixelRatio()), round(y * image.devicePixelRatio())) == QColor(
        LIGHT.surface_raised
    )


# --- links and resources ----------------------------------------------------------------------------------------


def blocks(document: QTextDocument) -> list:
    found, block = [], document.begin()
    while block.isValid():
        found.append(block)
        block = block.next()
    return found


def click_on(qtbot, prose: ProseView, word: str) -> None:
    cursor = prose.document().find(word)
    cursor.setPosition(cursor.selectionStart() + 1)
    qtbot.mouseClick(prose.viewport(), Qt.MouseButton.LeftButton, pos=prose.cursorRect(cursor).center())


def test_click_on_a_link_only_says_so(qtbot, show: Show) -> None:
    view = show(reply("See [the docs](https://example.org/a?b=c) now"))
    prose = shown(view, ProseView)[0]
    with qtbot.waitSignal(view.link_activated) as caught:
        click_on(qtbot, prose, "docs")
    assert caught.args == ["https://example.org/a?b=c"]
    assert prose.toPlainText() == "See the docs now"


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "javascript:alert(1)", "other.md", "ftp://x/y", "data:text/html,x"]
)
def test_other_links_do_nothing(qtbot, show: Show, address: str) -> None:
    view = show(reply(f"See [the docs]({address}) now"))
    prose = shown(view, ProseView)[0]
    opened: list[str] = []
    view.link_activated.connect(opened.append)
    click_on(qtbot, prose, "docs")
    assert opened == []
    assert prose.toPlainText() == "See the docs now"


def test_no_file_is_loaded(show: Show, tmp_path: Path) -> None:
    picture = QImage(50, 50, QImage.Format.Format_RGB32)
    picture.fill(QColor("red"))
    path = tmp_path / "x.png"
    assert picture.save(str(path))
    url = QUrl.fromLocalFile(str(path))
    view = show(reply(f"![cat]({url.toString()}) <img src='{url.toString()}'>\n\n![dog][d]\n\n[d]: {url.toString()}"))
    prose = shown(view, ProseView)[0]
    assert prose.document().resource(QTextDocument.ResourceType.ImageResource, url) is None
    assert "image: cat" in prose.toPlainText()
    assert "image: dog" in prose.toPlainText()
    image = prose.grab().toImage()
    pixels = {image.pixelColor(x, y).name() for x in range(0, image.width(), 5) for y in range(0, image.height(), 5)}
    assert "#ff0000" not in pixels


def test_text_can_be_selected_and_copied(qtbot, show: Show, qapp: QApplication) -> None:
    view = show(reply("Some **bold** text\nand more"))
    prose = shown(view, ProseView)[0]
    prose.selectAll()
    prose.setFocus()
    qtbot.keyClick(prose, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert qapp.clipboard().text() == "Some bold text\nand more"


# --- code -------------------------------------------------------------------------------------------------------


def test_copy_button_of_code(qtbot, show: Show) -> None:
    view = show(reply("```sh\nls -l\n\n  pwd\n```"))
    button = next(w for w in shown(view, CodeView)[0].findChildren(QWidget) if w.accessibleName() == "Copy code")
    with qtbot.waitSignal(view.copy_requested) as caught:
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert caught.args == ["ls -l\n\n  pwd"]


def test_code_that_turns_text_around_is_shown_as_it_will_run(show: Show) -> None:
    """CVE-2021-42574: an override makes a reader see other code than the compiler."""
    source = "if a != 'u\u202e \u2066# admin\u2069 \u2066':\x1b[2J\n    return"
    view = show(reply(f"```py\n{source}\n```"))
    code = shown(view, CodeView)[0]
    sign = "\N{REPLACEMENT CHARACTER}"
    text = code.findChild(QPlainTextEdit).toPlainText()
    assert text == f"if a != 'u{sign} {sign}# admin{sign} {sign}':␛[2J\n    return"
    assert code.text == source, "it is copied as it is"


@pytest.mark.usefixtures("lexer")
def test_finished_code_gets_colours_growing_code_does_not(qtbot, show: Show) -> None:
    state = MessageState(reply(""))
    state.begin()
    view = show(state)
    state.append("```python\ndef f():\n")
    state.take_waiting()
    view.refresh()
    settle(view)
    code = shown(view, CodeView)[0]
    document = code.findChild(QPlainTextEdit).document()
    assert not document.begin().layout().formats()
    state.append("    return 1\n```\n")
    state.take_waiting()
    view.refresh()
    assert code.text == "def f():\n    return 1"
    qtbot.waitUntil(lambda: bool(document.begin().layout().formats()))


def test_growing_code_keeps_a_selection(show: Show) -> None:
    state = MessageState(reply(""))
    state.begin()
    view = show(state)
    for text in ("```\nfirst line\n", "second line\n"):
        state.append(text)
        state.take_waiting()
        view.refresh()
        settle(view)
        editor = shown(view, CodeView)[0].findChild(QPlainTextEdit)
        if not editor.textCursor().hasSelection():
            cursor = editor.textCursor()
            cursor.setPosition(0)
            cursor.setPosition(5, QTextCursor.MoveMode.KeepAnchor)
            editor.setTextCursor(cursor)
    assert editor.toPlainText() == "first line\nsecond line"
    assert editor.textCursor().selectedText() == "first"


# --- thinking ---------------------------------------------------------------------------------------------------


def thinking_button(view: MessageView) -> QPushButton:
    return next(button for button in shown(view, QPushButton) if button.objectName() == "thinking")


def test_thinking_is_folded_and_opens(qtbot, show: Show) -> None:
    view = show(reply("Answer", thought="secret plan"))
    assert thinking_button(view).text() == "Thought"
    assert prose_text(view) == "Answer"
    with qtbot.waitSignal(view.height_changed):
        qtbot.mouseClick(thinking_button(view), Qt.MouseButton.LeftButton)
    settle(view)
    assert prose_text(view) == "secret plan\nAnswer"
    qtbot.mouseClick(thinking_button(view), Qt.MouseButton.LeftButton)
    settle(view)
    assert prose_text(view) == "Answer"


def test_thinking_is_open_while_it_streams(show: Show) -> None:
    state = MessageState(reply(""))
    state.begin()
    view = show(state)
    for text, is_thought, title, text_shown in (
        ("let me", True, "Thinking…", "let me"),
        (" see", True, "Thinking…", "let me see"),
        ("So: yes", False, "Thought", "So: yes"),
    ):
        state.append(text, is_thought=is_thought)
        state.take_waiting()
        view.refresh()
        settle(view)
        assert thinking_button(view).text() == title
        assert prose_text(view) == text_shown


def test_thinking_that_the_user_opened_stays_open(qtbot, show: Show) -> None:
    state = MessageState(reply(""))
    state.begin()
    view = show(state)
    state.append("plan", is_thought=True)
    state.append("a")
    state.take_waiting()
    view.refresh()
    settle(view)
    qtbot.mouseClick(thinking_button(view), Qt.MouseButton.LeftButton)
    state.append(" b")
    state.take_waiting()
    view.refresh()
    settle(view)
    assert prose_text(view) == "plan\na b"


# --- footer and actions -----------------------------------------------------------------------------------------


def test_summary_and_details() -> None:
    assert summary(STATS) == "41 tokens · 18.2 tok/s · first token 0.3 s · finished · 1,204 reused, 33 read"
    plain = TurnStats(StopReason.LENGTH, 40, 0, 1, 82.0, None, None)
    assert summary(plain) == "1 token · first token 82 ms · stopped at Max Tokens"
    lines = details(TurnStats(StopReason.EOS, 1237, 1204, 41, 310.0, 250.0, 18.24, reread_tokens=12)).splitlines()
    assert "Prompt: 1,237 tokens" in lines
    assert "  33 were read at 250 tok/s" in lines
    assert "  12 of these had been read before and were read again" in lines


@pytest.mark.parametrize("reason", StopReason)
def test_every_end_has_words(reason: StopReason) -> None:
    assert stop_words(reason)


def test_footer_shows_figures(show: Show) -> None:
    label = footer(show(reply("x", stats=STATS), width=800)).stats_label
    assert label.text() == summary(STATS)
    assert label.toolTip() == details(STATS)


def test_narrow_footer_is_shortened(show: Show) -> None:
    label = footer(show(reply("x", stats=STATS), width=300)).stats_label
    assert label.text().endswith("…")
    assert label.accessibleName() == summary(STATS)


def test_unfinished_reply_says_so(show: Show) -> None:
    assert footer(show(reply("x", is_complete=False))).stats_label.full_text == "not finished"
    assert footer(show(reply("x", stop_note="The engine died."))).stats_label.full_text == "The engine died."


def test_actions_appear_on_hover(qtbot, show: Show) -> None:
    view = show(reply("x", stats=STATS))
    button = footer(view).copy_button
    assert not button.is_revealed
    place = QPointF(5, 5)
    QApplication.sendEvent(view, QEnterEvent(place, place, place))
    assert button.is_revealed
    QApplication.sendEvent(view, QEvent(QEvent.Type.Leave))
    assert not button.is_revealed


def test_actions_can_be_reached_by_keyboard(qtbot, show: Show) -> None:
    view = show(reply("x", stats=STATS))
    buttons = footer(view)
    buttons.regenerate_button.setFocus()
    qtbot.waitUntil(lambda: buttons.copy_button.is_revealed)
    with qtbot.waitSignal(view.regenerate_requested) as caught:
        qtbot.keyClick(buttons.regenerate_button, Qt.Key.Key_Space)
    assert caught.args == ["r1"]


def test_every_button_has_a_name(show: Show) -> None:
    view = show(reply("y\n```\nz\n```", thought="x", stats=STATS, n_versions=2))
    for button in shown(view, QPushButton) + [w for w in view.findChildren(QWidget) if w.inherits("QToolButton")]:
        assert button.accessibleName() or button.text()


def test_copy_is_the_whole_answer_without_thoughts(qtbot, show: Show) -> None:
    text = "# b\n```\nc\n```"
    view = show(reply(text, thought="a"))
    with qtbot.waitSignal(view.copy_requested) as caught:
        footer(view).copy_button.click()
    assert caught.args == [text]


def test_versions(qtbot, show: Show) -> None:
    view = show(reply("x", version=2, n_versions=3))
    switcher = footer(view).versions
    assert switcher is not None
    assert switcher.label.text() == "2/3"
    with qtbot.waitSignal(view.version_requested) as caught:
        switcher.previous_button.click()
    assert caught.args == ["r1", -1]
    with qtbot.waitSignal(view.version_requested) as caught:
        switcher.next_button.click()
    assert caught.args == ["r1", 1]


def test_no_versions_no_switcher_and_ends(show: Show) -> None:
    assert footer(show(reply("x"))).versions is None
    last = footer(show(reply("x", version=3, n_versions=3))).versions
    assert last is not None
    assert not last.next_button.isEnabled()
    assert last.previous_button.isEnabled()


@pytest.mark.parametrize(
    ("reason", "offered"),
    [(StopReason.EOS, False), (StopReason.CANCELLED, True), (StopReason.LENGTH, True), (StopReason.CONTEXT_FULL, True)],
)
def test_only_a_stopped_last_reply_can_be_continued(qtbot, show: Show, reason: StopReason, offered: bool) -> None:
    view = show(reply("x", stats=TurnStats(reason, 1, 0, 1, 1.0, 1.0, 1.0)))
    button = footer(view).continue_button
    assert not button.isVisibleTo(view)
    view.set_last(True)
    assert button.isVisibleTo(view) is offered
    if offered:
        with qtbot.waitSignal(view.continue_requested) as caught:
            button.click()
        assert caught.args == ["r1"]


def test_busy_disables_what_would_ask_the_engine(show: Show) -> None:
    view = show(reply("x", stats=STATS, version=1, n_versions=2))
    view.set_busy(True)
    buttons = footer(view)
    assert buttons.versions is not None
    assert not buttons.regenerate_button.isEnabled()
    assert not buttons.versions.next_button.isEnabled()
    assert buttons.copy_button.isEnabled()
    view.set_busy(False)
    assert buttons.regenerate_button.isEnabled()


# --- editing ----------------------------------------------------------------------------------------------------


def test_edit_becomes_a_signal(qtbot, show: Show) -> None:
    view = show(user("old text"))
    footer(view).edit_button.click()
    settle(view)
    editor = shown(view, MessageEditor)[0]
    assert prose_text(view) == ""
    assert editor.field.toPlainText() == "old text"
    editor.field.setPlainText("new text")
    with qtbot.waitSignal(view.edit_submitted) as caught:
        qtbot.keyClick(editor.field, Qt.Key.Key_Return)
    assert caught.args == ["u1", "new text"]
    settle(view)
    assert prose_text(view) == "old text"


def test_edit_can_be_cancelled(qtbot, show: Show) -> None:
    view = show(user("old text"))
    submitted: list[str] = []
    view.edit_submitted.connect(lambda _id, text: submitted.append(text))
    view.begin_edit()
    settle(view)
    assert view.is_in_use
    editor = shown(view, MessageEditor)[0]
    editor.field.setPlainText("new text")
    qtbot.keyClick(editor.field, Qt.Key.Key_Escape)
    settle(view)
    assert submitted == []
    assert prose_text(view) == "old text"
    assert not view.is_in_use


def test_unchanged_and_empty_edits_are_none(qtbot, show: Show) -> None:
    view = show(user("old text"))
    submitted: list[str] = []
    view.edit_submitted.connect(lambda _id, text: submitted.append(text))
    view.begin_edit()
    settle(view)
    editor = shown(view, MessageEditor)[0]
    editor.field.setPlainText("  ")
    assert not editor.send_button.isEnabled()
    qtbot.keyClick(editor.field, Qt.Key.Key_Return)
    assert shown(view, MessageEditor)
    editor.field.setPlainText("old text")
    qtbot.mouseClick(editor.send_button, Qt.MouseButton.LeftButton)
    assert submitted == []


def test_shift_enter_makes_a_line(qtbot, show: Show) -> None:
    view = show(user("a"))
    view.begin_edit()
    settle(view)
    field = shown(view, MessageEditor)[0].field
    qtbot.keyClick(field, Qt.Key.Key_Return, Qt.KeyboardModifier.ShiftModifier)
    qtbot.keyClicks(field, "b")
    assert field.toPlainText() == "a\nb"


# --- progress and failure ---------------------------------------------------------------------------------------


def test_prompt_progress(show: Show) -> None:
    state = MessageState(reply(""))
    state.begin()
    view = show(state)
    assert "Waiting for the first word…" in [label.text() for label in shown(view, QLabel)]
    state.prompt_done, state.prompt_total = 512, 2048
    view.refresh()
    assert "Reading prompt 512 / 2,048" in [label.text() for label in shown(view, QLabel)]
    bar = shown(view, QProgressBar)[0]
    assert (bar.value(), bar.maximum()) == (512, 2048)
    state.append("Hello")
    state.take_waiting()
    view.refresh()
    settle(view)
    assert shown(view, QProgressBar) == []
    assert prose_text(view) == "Hello"


def test_failure_stands_under_the_text(show: Show) -> None:
    state = MessageState(reply(""))
    state.begin()
    view = show(state)
    state.append("Half a rep")
    state.end(failure="The engine was killed.")
    view.refresh()
    settle(view)
    assert prose_text(view) == "Half a rep"
    label = next(label for label in shown(view, QLabel) if label.text() == "The engine was killed.")
    assert label.mapTo(view, QPoint(0, 0)).y() > shown(view, ProseView)[0].geometry().bottom()
    assert footer(view).regenerate_button.isVisibleTo(view)


# --- cost and colours -------------------------------------------------------------------------------------------


def test_long_message_has_widgets_only_where_it_is_seen(show: Show) -> None:
    view = show(reply(("A paragraph of some length. " * 12 + "\n\n") * 150), bottom=900)
    assert view.height() > 5000
    assert len(view.findChildren(ProseView)) < 8


def test_streaming_touches_the_last_segment_only(show: Show) -> None:
    state = MessageState(reply(("A paragraph of some length. " * 12 + "\n\n") * 10))
    state.begin()
    view = show(state)
    before = shown(view, ProseView)
    documents = [prose.document() for prose in before]
    state.append("More.")
    state.take_waiting()
    view.refresh()
    settle(view)
    after = shown(view, ProseView)
    assert len(before) > 2
    assert [prose.document() for prose in after[: len(before) - 1]] == documents[:-1]
    assert after[-1].toPlainText().endswith("More.")


def test_theme_can_change(show: Show) -> None:
    view = show(reply("[link](https://x.y) and text\n```python\nx = 1\n```"))
    view.set_theme(DARK)
    settle(view)
    document = shown(view, ProseView)[0].document()
    assert document.firstBlock().begin().fragment().charFormat().foreground().color().name() == DARK.accent
