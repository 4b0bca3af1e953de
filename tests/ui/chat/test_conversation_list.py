"""The list of conversations as a user meets it."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QLabel, QLineEdit, QListView, QMenu, QPushButton

from kvdesk.backend.conversations.conversation import ConversationRow
from kvdesk.ui.chat.conversation_list import ConversationList
from kvdesk.ui.chat.conversation_rows import heading_of, title_text
from kvdesk.ui.widgets.theme import DARK, LIGHT

NOW = dt.datetime.fromisoformat("2025-06-15 12:00").astimezone().timestamp()
HOUR = 3600.0
ROWS = (
    ConversationRow("a", "KV cache in three sentences", NOW - HOUR, "/models/gemma.gguf", snapshot_bytes=12_400_000),
    ConversationRow("b", "", NOW - 2 * HOUR),
    ConversationRow("c", "Trip to Lisbon", NOW - 24 * HOUR),
    ConversationRow("d", "Old plans", NOW - 90 * 24 * HOUR),
)


@pytest.fixture
def panel(qtbot):
    panel = ConversationList(LIGHT)
    qtbot.addWidget(panel)
    panel.resize(260, 500)
    panel.show_conversations(ROWS, NOW)
    with qtbot.waitExposed(panel):
        panel.show()
    panel.activateWindow()
    return panel


@pytest.fixture
def view(panel):
    return panel.findChild(QListView)


def lines(view):
    model = view.model()
    return [model.index(i).data() for i in range(model.rowCount())]


def point_of(panel, view, conversation_id):
    return view.visualRect(view.model().index_of(conversation_id)).center()


def click(qtbot, panel, view, conversation_id):
    at = point_of(panel, view, conversation_id)
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=at)


def visible_texts(panel):
    return [label.text() for label in panel.findChildren(QLabel) if label.isVisible()]


def undo_button(panel):
    (button,) = [b for b in panel.findChildren(QPushButton) if b.text() == "Undo"]
    return button


def test_conversations_stand_under_their_days(view):
    assert lines(view) == [
        "Today", "KV cache in three sentences", "New chat", "Yesterday", "Trip to Lisbon", "Older", "Old plans",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("when", "heading"),
    [
        ("2025-06-15 00:00", "Today"),
        ("2025-06-16 09:00", "Today"),  # a clock that was set back
        ("2025-06-14 23:59", "Yesterday"),
        ("2025-06-13 23:59", "Previous 7 days"),
        ("2025-06-08 00:00", "Previous 7 days"),
        ("2025-06-07 23:59", "Older"),
    ],
)
def test_days_are_days_of_the_calendar(when, heading):
    assert heading_of(dt.datetime.fromisoformat(when).astimezone().timestamp(), NOW) == heading


def test_a_click_opens_a_conversation_and_a_heading_opens_nothing(qtbot, panel, view):
    chosen = []
    panel.conversation_chosen.connect(chosen.append)
    click(qtbot, panel, view, "c")
    heading = view.visualRect(view.model().index(0)).center()
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=heading)
    assert chosen == ["c"]


def test_the_keyboard_walks_past_headings_and_enter_opens(qtbot, panel, view):
    chosen = []
    panel.conversation_chosen.connect(chosen.append)
    panel.show_current("b")
    assert chosen == []
    view.setFocus()
    qtbot.keyClick(view, Qt.Key.Key_Down)
    qtbot.keyClick(view, Qt.Key.Key_Return)
    assert chosen == ["c"]


def test_searching_tells_once_after_the_last_key_and_says_when_nothing_is_found(qtbot, panel):
    box = panel.findChild(QLineEdit)
    heard = []
    panel.search_changed.connect(heard.append)
    with qtbot.waitSignal(panel.search_changed):
        qtbot.keyClicks(box, "lisbon")
    assert heard == ["lisbon"]
    panel.show_conversations((), NOW)
    assert "Nothing found for “lisbon”." in visible_texts(panel)
    with qtbot.waitSignal(panel.search_changed):
        qtbot.keyClick(box, Qt.Key.Key_Escape)
    assert heard == ["lisbon", ""]
    panel.show_conversations((), NOW)
    assert any(text.startswith("No conversations yet.") for text in visible_texts(panel))
    panel.show_conversations(ROWS, NOW)
    assert not any("No conversations" in text for text in visible_texts(panel))


def test_ctrl_k_searches_down_goes_to_the_list_and_ctrl_n_begins_anew(qtbot, panel, view):
    box = panel.findChild(QLineEdit)
    view.setFocus()
    qtbot.keyClick(panel, Qt.Key.Key_K, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(box.hasFocus)
    qtbot.keyClick(box, Qt.Key.Key_Down)
    assert view.hasFocus()
    assert view.currentIndex().data() == "KV cache in three sentences"
    with qtbot.waitSignal(panel.new_requested):
        qtbot.keyClick(panel, Qt.Key.Key_N, Qt.KeyboardModifier.ControlModifier)


def rename(qtbot, view, text):
    view.setFocus()
    qtbot.keyClick(view, Qt.Key.Key_F2)
    editor = view.viewport().findChild(QLineEdit)
    assert editor is not None
    editor.selectAll()
    qtbot.keyClicks(editor, text)
    return editor


def test_a_title_is_edited_in_place(qtbot, panel, view):
    panel.show_current("c")
    editor = rename(qtbot, view, "  Porto   instead ")
    with qtbot.waitSignal(panel.rename_requested) as asked:
        qtbot.keyClick(editor, Qt.Key.Key_Return)
    assert asked.args == ["c", "Porto instead"]


def test_escape_and_an_empty_title_change_nothing(qtbot, panel, view):
    wanted = []
    panel.rename_requested.connect(lambda *args: wanted.append(args))
    panel.show_current("c")
    for text, key in (("Porto", Qt.Key.Key_Escape), (" ", Qt.Key.Key_Return)):
        editor = rename(qtbot, view, text)
        with qtbot.waitSignal(editor.destroyed):
            qtbot.keyClick(editor, key)
    assert wanted == []
    assert view.currentIndex().data() == "Trip to Lisbon"


def test_new_rows_wait_until_a_title_is_edited(qtbot, panel, view):
    panel.show_current("c")
    editor = rename(qtbot, view, "Por")
    panel.show_conversations((ConversationRow("e", "New arrival", NOW), *ROWS), NOW)
    assert editor.text() == "Por"
    assert "New arrival" not in lines(view)
    qtbot.keyClicks(editor, "to")
    with qtbot.waitSignal(panel.rename_requested) as asked:
        qtbot.keyClick(editor, Qt.Key.Key_Return)
    assert asked.args == ["c", "Porto"]
    qtbot.waitUntil(lambda: "New arrival" in lines(view))


def test_a_draft_names_what_has_no_title_yet():
    row = ConversationRow("x", "", 0.0, draft="# Why is the sky\nblue?")
    assert title_text(row) == "Draft: Why is the sky"
    assert title_text(dataclasses.replace(row, title="Sky")) == "Sky"
    assert title_text(dataclasses.replace(row, draft=" \n")) == "New chat"


def test_deleting_hides_at_once_and_can_be_undone(qtbot, panel, view):
    deleted, undone = [], []
    panel.delete_requested.connect(deleted.append)
    panel.undo_requested.connect(undone.append)
    panel.show_current("c")
    view.setFocus()
    qtbot.keyClick(view, Qt.Key.Key_Delete)
    assert deleted == ["c"]
    assert lines(view) == ["Today", "KV cache in three sentences", "New chat", "Older", "Old plans"]
    assert "Deleted “Trip to Lisbon”" in visible_texts(panel)
    panel.show_conversations(ROWS, NOW)  # rows that were on their way already
    assert "Trip to Lisbon" not in lines(view)
    qtbot.mouseClick(undo_button(panel), Qt.MouseButton.LeftButton)
    assert undone == ["c"]
    assert not undo_button(panel).isVisible()
    panel.show_conversations(ROWS, NOW)
    assert "Trip to Lisbon" in lines(view)


@pytest.mark.qt_log_ignore("This plugin does not support", extend=True)  # menus grab the keyboard, offscreen cannot
def test_the_menu_renames_exports_and_deletes(qtbot, panel, view):
    exported = []
    panel.export_requested.connect(lambda *args: exported.append(args))
    view.customContextMenuRequested.emit(point_of(panel, view, "a"))
    menu = panel.findChild(QMenu)
    actions = {action.text(): action for action in menu.actions() if action.text()}
    assert list(actions) == ["Rename", "Export as Markdown…", "Export as JSON…", "Delete"]
    actions["Export as Markdown…"].trigger()
    actions["Export as JSON…"].trigger()
    assert exported == [("a", "markdown"), ("a", "json")]
    with qtbot.waitSignal(panel.delete_requested) as asked:
        actions["Delete"].trigger()
    assert asked.args == ["a"]
    menu.close()
    view.customContextMenuRequested.emit(QPoint(5, view.height() - 2))  # below the rows: no menu
    assert not [m for m in panel.findChildren(QMenu) if m.isVisible()]


def test_a_refresh_keeps_the_mark_and_the_place(qtbot, panel, view):
    rows = tuple(ConversationRow(str(i), f"Chat {i}", NOW - i) for i in range(200))
    panel.show_conversations(rows, NOW)
    panel.show_current("100")
    place = view.verticalScrollBar().value()
    assert place > 0
    panel.show_conversations((dataclasses.replace(rows[0], title="Renamed"), *rows[1:]), NOW)
    assert view.currentIndex().data() == "Chat 100"
    assert view.verticalScrollBar().value() == place


def test_a_tool_tip_tells_the_model_and_the_snapshot(view):
    tip = view.model().index_of("a").data(Qt.ItemDataRole.ToolTipRole)
    assert "gemma.gguf" in tip
    assert "KV snapshot on disk: 12 MB" in tip


def test_both_themes_paint_every_kind_of_row(panel, view):
    row = dataclasses.replace(ROWS[1], excerpt="…the needle in a long line of text…")
    panel.show_conversations((ROWS[0], row), NOW)
    pictures = set()
    for theme in (LIGHT, DARK):
        panel.set_theme(theme)
        for busy in (None, "a"):
            panel.show_busy(busy)
            pictures.add(bytes(view.grab().toImage().constBits()))
    assert len(pictures) == 4  # theme and dot can both be seen


def test_everything_has_a_name(panel, view):
    assert panel.findChild(QLineEdit).accessibleName() == "Search conversations"
    assert view.accessibleName() == "Conversations"
    assert isinstance(panel.new_action, QAction)
    assert panel.new_action.text() == "New chat"
