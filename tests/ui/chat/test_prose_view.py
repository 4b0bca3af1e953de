"""A reply that streams in looks, after every piece, as if it had been there at once."""

from __future__ import annotations

import random
import re

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QTextDocument
from pytestqt.qtbot import QtBot

from kvdesk.ui.chat.prose_view import ProseView
from kvdesk.ui.widgets.theme import theme_named

TEXT = """Once upon a time there was a *small* house, and **nobody** lived in it.  It stood by the river.
The second line of the paragraph, don't ask "why", was short. 1. It went on
2. and on

# A heading with `code` in it
- an item of some words, and more of them
- [ ] a task that isn't done
  which goes on
1. one
2. two is **Bold:**then not

> A quotation of some length. It
> ends here

See www.example.org/some path, https://example.org/a_b_c now, or mail somebody@example.org today! It costs $5 and $6.
The formula $a_b$ and \\(x_i\\) and snake_case_names and 2 * 3 * 4 and ~~gone~~ words. &amp; more &am
[note]: here it is not a definition
[a link](https://example.org) and ![a picture](x.png) then some words

| a | b |
|---|---|
| one word | two words |

A title
===
***bold and italic*** words `code span of words` words   three blanks
    indented by four, which is code or not
The end of it_
"""


def pieces(text: str, seed: int) -> list[str]:
    """``text`` cut like a model's tokens, words with the blank before them; and some of those cut again."""
    chance = random.Random(seed)
    out: list[str] = []
    for word in re.findall(r"\s?\S+|\s", text):
        at = chance.randrange(len(word)) if chance.random() < 0.4 else 0
        out += [part for part in (word[:at], word[at:]) if part]
    return out


@pytest.mark.parametrize("seed", range(6))
def test_streamed_prose_is_the_same_as_prose_shown_at_once(qtbot: QtBot, seed: int) -> None:
    theme = theme_named("light")
    streamed, whole = ProseView(theme), ProseView(theme)
    qtbot.addWidget(streamed)
    qtbot.addWidget(whole)
    text, documents = "", set[QTextDocument]()
    cut = pieces(TEXT, seed)
    for piece in cut:
        text += piece
        streamed.show_text(text)
        documents.add(streamed.document())
        whole._text = ""
        whole.show_text(text)
        assert streamed.document().toHtml() == whole.document().toHtml(), text[-60:]
        assert streamed.height_for(400) == whole.height_for(400)
    assert len(documents) < 0.75 * len(cut)  # the rest were put at the end of the document that was there


@pytest.mark.parametrize(
    ("text", "directions"),
    [
        ("An English line\nשורה בעברית\nAnd English", "LRL"),
        ("مرحبا\nبالعالم", "R"),
        ("English\nand more", "L"),
        ("> English\n> שלום", "LR"),
        ("- item\n- פריט", "LR"),
        ("12\nשלום", "R"),
    ],
)
def test_each_line_runs_in_its_own_direction(qtbot: QtBot, text: str, directions: str) -> None:
    view = ProseView(theme_named("light", False))
    qtbot.addWidget(view)
    view.show_text(text)
    block, found = view.document().begin(), ""
    while block.isValid():
        found += "R" if block.textDirection() == Qt.LayoutDirection.RightToLeft else "L"
        block = block.next()
    assert found == directions


def test_a_table_with_both_directions_stays_a_table(qtbot: QtBot) -> None:
    view = ProseView(theme_named("light", False))
    qtbot.addWidget(view)
    view.show_text("| a | b |\n|---|---|\n| שלום | x |\n| y | z |")
    (table,) = view.document().rootFrame().childFrames()
    assert (table.rows(), table.columns()) == (3, 2)
