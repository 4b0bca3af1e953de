"""The real window without anything behind it: its menus and keys do what they say, for the mouse, the keyboard and a screen reader."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QPoint, QPointF, QSize, Qt
from PySide6.QtGui import QAccessible, QAction, QKeySequence, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractScrollArea,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLabel,
    QMenu,
    QScrollBar,
    QWidget,
)

from kvdesk.backend.preferences import THEMES, Preferences, zoomed
from kvdesk.ui.shell.help import about_words, shortcuts, show_shortcuts
from kvdesk.ui.shell.main_window import MainWindow, first_size
from kvdesk.ui.widgets.theme import LIGHT
from kvdesk.ui.windows.context_profile_window import ProfileWindow
from kvdesk.ui.windows.session_log_window import SessionLogWindow

UI = Path(__file__).parents[3] / "kvdesk" / "ui"


@pytest.fixture
def window(qtbot) -> MainWindow:
    window = MainWindow(LIGHT, "system")
    qtbot.addWidget(window)
    window.memory_dock.build_now()
    window.show()
    qtbot.waitExposed(window)
    return window


def actions_of(menus: tuple[QMenu, ...]) -> Iterator[QAction]:
    for menu in menus:
        for action in menu.actions():
            inner = action.menu()
            if isinstance(inner, QMenu):
                yield from actions_of((inner,))
            elif not action.isSeparator():
                yield action


def turn_wheel(widget: QWidget, up: int, modifiers: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
    """As the system does: to the widget under the pointer, then to its parents as long as nobody takes it."""
    middle = QPointF(widget.rect().center())
    event = QWheelEvent(
        middle,
        QPointF(widget.mapToGlobal(middle.toPoint())),
        QPoint(),
        QPoint(0, 120 * up),
        Qt.MouseButton.NoButton,
        modifiers,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    place: QWidget | None = widget
    while place is not None:
        event.accept()
        if QApplication.sendEvent(place, event) and event.isAccepted():
            return
        place = None if place.isWindow() else place.parentWidget()


# --- menus and keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", THEMES)
def test_each_entry_of_the_theme_menu_names_its_theme(window: MainWindow, qtbot, name: str) -> None:
    with qtbot.waitSignal(window.theme_chosen) as chosen:
        window.menus.theme_actions[name].trigger()
    assert chosen.args == [name]


def test_each_export_entry_names_its_format(window: MainWindow) -> None:
    kinds: list[str] = []
    window.export_requested.connect(kinds.append)
    for action in actions_of(window.menus.menus):
        if "Export" in action.text():
            action.trigger()
    assert kinds == ["markdown", "json"]


def connected_lambdas(tree: ast.AST) -> Iterator[ast.Lambda]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "connect":
            yield from (arg for arg in node.args if isinstance(arg, ast.Lambda))


def takes_what_the_signal_sends(found: ast.Lambda) -> bool:
    """Whether a signal's first argument would land in a parameter that was meant to keep a value of the loop."""
    first = next(iter(found.args.posonlyargs + found.args.args), None)
    every_one_has_a_default = len(found.args.defaults) == len(found.args.posonlyargs + found.args.args)
    return first is not None and every_one_has_a_default and not first.arg.startswith("_")


def test_no_connected_lambda_keeps_a_value_where_the_signal_puts_its_own() -> None:
    trap = ast.parse("for n in x:\n    action.triggered.connect(lambda n=n: f(n))")
    assert [takes_what_the_signal_sends(found) for found in connected_lambdas(trap)] == [True]
    for path in UI.rglob("*.py"):
        for found in connected_lambdas(ast.parse(path.read_text("utf-8"))):
            assert not takes_what_the_signal_sends(found), f"{path.name}:{found.lineno}"


def test_no_two_actions_share_a_key(window: MainWindow) -> None:
    keys = [
        key.toString() for action in window.findChildren(QAction) for key in action.shortcuts() if not key.isEmpty()
    ]
    assert len(keys) > 10
    assert len(set(keys)) == len(keys)


def test_the_list_of_keys_has_every_action_that_has_one(window: MainWindow) -> None:
    listed = {key for _, keys in shortcuts(window.menus.menus) for _, key in keys}
    for action in actions_of(window.menus.menus):
        key = action.shortcut().toString(QKeySequence.SequenceFormat.NativeText)
        assert not key or key in listed, action.text()
    dialog = show_shortcuts(window, window.menus.menus)
    assert "Ctrl+/" in {label.text() for label in dialog.findChildren(QLabel)}
    QTest.keyClick(dialog, Qt.Key.Key_Escape)
    assert not dialog.isVisible()


def test_about_names_versions_and_licences() -> None:
    _, text = about_words()
    for part in ("llama-cpp-python", "PySide6", "Qt 6", "MIT", "LGPL"):
        assert part in text


def test_the_first_window_is_no_larger_than_what_the_screen_has_free() -> None:
    assert first_size(QSize(1920, 1080)) == QSize(1440, 900)
    small = first_size(QSize(1280, 720))
    assert small.width() < 1280
    assert small.height() < 720


# --- zoom and wheel ---------------------------------------------------------------------------------------------------


def test_zoom_by_keys_menu_and_wheel(window: MainWindow) -> None:
    asked: list[int] = []
    window.zoom_requested.connect(asked.append)
    for key in (Qt.Key.Key_Plus, Qt.Key.Key_Equal, Qt.Key.Key_Minus, Qt.Key.Key_0):
        QTest.keyClick(window, key, Qt.KeyboardModifier.ControlModifier)
    assert asked == [1, 1, -1, 0]
    asked.clear()
    for place in (window.transcript, window.model_bar, window.conversation_list):
        turn_wheel(place, 1, Qt.KeyboardModifier.ControlModifier)
    turn_wheel(window.transcript, -1, Qt.KeyboardModifier.ControlModifier)
    turn_wheel(window.transcript, 1)
    assert asked == [1, 1, 1, -1]


def test_zoom_stays_within_what_preferences_may_hold() -> None:
    percent = 100
    for _ in range(20):
        percent = zoomed(percent, 1)
    assert percent == 200
    assert Preferences.from_dict({"zoom_percent": percent}).zoom_percent == percent
    for _ in range(20):
        percent = zoomed(percent, -1)
    assert percent == 50
    assert zoomed(percent, 0) == 100


def test_the_wheel_changes_no_box_that_has_not_the_keyboard(window: MainWindow, qtbot) -> None:
    profile, logs = ProfileWindow(LIGHT), SessionLogWindow(LIGHT)
    for other in (profile, logs):
        qtbot.addWidget(other)
    checked = 0
    for top in (window, profile, logs):
        for box in top.findChildren(QWidget):
            is_box = isinstance(box, QAbstractSpinBox | QComboBox | QAbstractSlider) and not isinstance(box, QScrollBar)
            if not is_box or box.hasFocus():
                continue
            before = box.currentIndex() if isinstance(box, QComboBox) else box.property("value")
            for up in (1, -1):  # at either end one of them would do nothing
                turn_wheel(box, up)
                after = box.currentIndex() if isinstance(box, QComboBox) else box.property("value")
                assert after == before, (box.objectName(), box.accessibleName())
            checked += 1
    assert checked > 10


# --- Esc --------------------------------------------------------------------------------------------------------------


def test_esc_closes_what_is_open_before_it_stops_the_reply(window: MainWindow) -> None:
    stopped: list[bool] = []
    window.composer.stop_requested.connect(lambda: stopped.append(True))
    window.composer.show_generating(True)
    window.composer.show_warning("The draft is long.")
    window.options_card.show_choices("It does not fit", "", ())
    window.composer.setFocus()
    field = QApplication.focusWidget()
    assert field is not None
    QTest.keyClick(field, Qt.Key.Key_Escape)
    assert not window.composer.warning.isVisible()
    assert window.options_card.isVisible()
    QTest.keyClick(field, Qt.Key.Key_Escape)
    assert not window.options_card.isVisible()
    assert not stopped
    QTest.keyClick(field, Qt.Key.Key_Escape)
    assert stopped == [True]


def test_a_question_that_waits_for_an_answer_is_not_closed_by_esc(window: MainWindow) -> None:
    window.options_card.show_choices("It does not fit", "", (), can_dismiss=False)
    QTest.keyClick(window, Qt.Key.Key_Escape)
    assert window.options_card.isVisible()


# --- for everyone -----------------------------------------------------------------------------------------------------


def test_everything_the_keyboard_reaches_has_a_name(window: MainWindow) -> None:
    nameless = []
    for widget in window.findChildren(QWidget):
        is_part = isinstance(widget.parent(), QComboBox | QAbstractSpinBox)
        is_part |= isinstance(widget.window().parent(), QComboBox)  # the list that drops down has the box's name
        is_part |= isinstance(parent := widget.parent(), QAbstractScrollArea) and parent.viewport() is widget
        is_part |= isinstance(widget, QLabel)  # whose text is its name
        if is_part or widget.isHidden() or widget.focusPolicy() == Qt.FocusPolicy.NoFocus:
            continue
        interface = QAccessible.queryAccessibleInterface(widget)
        if interface is not None and not interface.text(QAccessible.Text.Name).strip():
            nameless.append(f"{type(widget).__name__} {widget.objectName()} in {type(widget.parent()).__name__}")
    assert nameless == []
