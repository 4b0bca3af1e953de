"""Code gets its colours in slices, beside the text, which stays as it is."""

from __future__ import annotations

import subprocess
import sys

import pytest
from PySide6.QtGui import QTextDocument
from PySide6.QtWidgets import QPlainTextEdit

from kvdesk.backend.code_lexer import CodeLexer
from kvdesk.ui.chat.highlighter import DARK_CODE, LIGHT_CODE, MAX_CHARS, Highlighter
from kvdesk.ui.widgets.theme import DARK, LIGHT

pytestmark = pytest.mark.usefixtures("lexer")


@pytest.fixture
def editor(qtbot) -> QPlainTextEdit:
    editor = QPlainTextEdit()
    qtbot.addWidget(editor)
    return editor


def colors_of(document: QTextDocument, line: int) -> dict[str, str]:
    block = document.findBlockByNumber(line)
    text = block.text()
    units = text.encode("utf-16-le")
    return {
        units[2 * span.start : 2 * (span.start + span.length)].decode("utf-16-le"): span.format.foreground()
        .color()
        .name()
        for span in block.layout().formats()
    }


def test_colours_a_language(qtbot, editor: QPlainTextEdit) -> None:
    editor.setPlainText("def f(x):\n    return 'a'  # why\n")
    highlighter = Highlighter(editor.document(), editor)
    with qtbot.waitSignal(highlighter.finished):
        highlighter.start("python", LIGHT)
    assert colors_of(editor.document(), 0)["def"] == LIGHT_CODE.keyword
    assert colors_of(editor.document(), 0)["f"] == LIGHT_CODE.function
    assert colors_of(editor.document(), 1)["# why"] == LIGHT_CODE.comment
    assert editor.toPlainText() == "def f(x):\n    return 'a'  # why\n"
    with qtbot.waitSignal(highlighter.finished):
        highlighter.start("python", DARK)
    assert colors_of(editor.document(), 0)["def"] == DARK_CODE.keyword


def test_counts_as_qt_does(qtbot, editor: QPlainTextEdit) -> None:
    editor.setPlainText("x = '👋👋' + 12  # 🙂 end")
    highlighter = Highlighter(editor.document(), editor)
    with qtbot.waitSignal(highlighter.finished):
        highlighter.start("python", LIGHT)
    colors = colors_of(editor.document(), 0)
    assert colors["12"] == LIGHT_CODE.number
    assert colors["# 🙂 end"] == LIGHT_CODE.comment


def test_string_over_several_lines(qtbot, editor: QPlainTextEdit) -> None:
    editor.setPlainText('x = """a\nb\nc"""\ny = 1')
    highlighter = Highlighter(editor.document(), editor)
    with qtbot.waitSignal(highlighter.finished):
        highlighter.start("py", LIGHT)
    assert colors_of(editor.document(), 1) == {"b": LIGHT_CODE.string}
    assert colors_of(editor.document(), 3)["1"] == LIGHT_CODE.number


@pytest.mark.parametrize("language", ["", "nosuchlanguage"])
def test_unknown_language_stays_plain(qtbot, editor: QPlainTextEdit, language: str) -> None:
    editor.setPlainText("def f(): pass")
    highlighter = Highlighter(editor.document(), editor)
    with qtbot.waitSignal(highlighter.finished):
        highlighter.start(language, LIGHT)
    assert colors_of(editor.document(), 0) == {}


def test_too_long_stays_plain(qtbot, editor: QPlainTextEdit) -> None:
    editor.setPlainText("x = 1\n" * (MAX_CHARS // 6 + 1))
    highlighter = Highlighter(editor.document(), editor)
    with qtbot.waitSignal(highlighter.finished):
        highlighter.start("python", LIGHT)
    assert colors_of(editor.document(), 0) == {}


def test_long_code_is_coloured_in_many_turns_of_the_loop(
    qtbot, editor: QPlainTextEdit, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_lines = 2000
    monkeypatch.setattr("kvdesk.ui.chat.highlighter.SLICE_S", 0.0)
    turns: list[bool] = []
    editor.setPlainText("value = function(1, 'text')\n" * n_lines)
    highlighter = Highlighter(editor.document(), editor)
    highlighter._timer.timeout.connect(lambda: turns.append(bool(colors_of(editor.document(), n_lines - 1))))
    with qtbot.waitSignal(highlighter.finished, timeout=60_000):
        highlighter.start("python", LIGHT)
    assert len(turns) >= n_lines, "a line a turn, when each turn is as short as can be"
    assert not any(turns[: n_lines - 1])
    assert colors_of(editor.document(), n_lines - 1)["1"] == LIGHT_CODE.number


def test_text_may_change_after_stop(qtbot, editor: QPlainTextEdit) -> None:
    editor.setPlainText("x = 1\n" * 3000)
    highlighter = Highlighter(editor.document(), editor)
    highlighter.start("python", LIGHT)
    qtbot.waitUntil(lambda: bool(colors_of(editor.document(), 0)))
    highlighter.stop()
    editor.setPlainText("y = 'b'")
    with qtbot.waitSignal(highlighter.finished):
        highlighter.start("python", LIGHT)
    assert colors_of(editor.document(), 0)["b"] == LIGHT_CODE.string


ENDLESS = "s{" * 8000
"""Perl's lexer takes over a minute for it, in one step that nothing can interrupt."""


def test_a_text_that_no_lexer_gets_done_with_stays_plain_and_holds_up_no_other(qtbot, editor: QPlainTextEdit) -> None:
    editor.setPlainText(ENDLESS)
    highlighter = Highlighter(editor.document(), editor)
    with qtbot.waitSignal(highlighter.finished, timeout=60_000):
        highlighter.start("perl", LIGHT)
    assert colors_of(editor.document(), 0) == {}
    editor.setPlainText("x = 1")
    with qtbot.waitSignal(highlighter.finished, timeout=60_000):
        highlighter.start("python", LIGHT)
    assert colors_of(editor.document(), 0)["1"] == LIGHT_CODE.number


def test_a_text_that_was_given_up_is_not_tried_again(qtbot, editor: QPlainTextEdit, lexer: CodeLexer) -> None:
    editor.setPlainText(ENDLESS)
    highlighter = Highlighter(editor.document(), editor)
    for _ in range(2):
        with qtbot.waitSignal(highlighter.finished, timeout=60_000):
            highlighter.start("perl", LIGHT)
    assert lexer._process is None  # ended with the first try, and not started again


def test_no_lexer_runs_in_the_windows_process(qtbot, editor: QPlainTextEdit) -> None:
    code = (
        "import sys; import kvdesk.ui.chat.code_view, kvdesk.ui.chat.transcript; "
        "sys.exit(any(name.startswith('pygments') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
