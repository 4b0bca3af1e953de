"""The real window with a model whose names would be obeyed: everywhere they are letters, and few of them."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QApplication, QLabel, QWidget

from kvdesk.backend.conversations.store import FILE_NAME, ConversationStore
from kvdesk.paths import data_dir
from kvdesk.ui.widgets.plain_text import LONGEST
from tests.end2end.conftest import StartApp
from tests.end2end.person import Person
from tests.tiny_models import write_tiny

HTML = "<b>Big</b><img src='file:///icon.png'>\x1b]52;c;aGVsbG8=\x07\u202egpj.exe"
OBEYED = {"\x1b", "\x07", "\u202e"}
WRITTEN = (
    "text",
    "toolTip",
    "statusTip",
    "whatsThis",
    "accessibleName",
    "accessibleDescription",
    "windowTitle",
    "title",
)


def texts_of(one: QWidget | QAction) -> list[str]:
    """All that is written on ``one`` or said of it."""
    texts = [getattr(one, name)() for name in WRITTEN if hasattr(one, name)]
    return [text for text in texts if isinstance(text, str)]


def everything(person: Person) -> list[QWidget | QAction]:
    windows = [person.window, *QApplication.topLevelWidgets()]
    return [one for window in windows for kind in (QWidget, QAction) for one in (window, *window.findChildren(kind))]


def test_a_models_name_is_letters_wherever_it_is_written(start_app: StartApp, tmp_path: Path) -> None:
    model = write_tiny("llama", tmp_path, file_name="<img src=x> \u202efugg.gguf", **{"/general.name": HTML * 30_000})
    person = start_app(model)
    person.ask("Hello")
    person.window.show_memory_page(True)
    foreign = [one for one in everything(person) if any("Big" in text or "fugg" in text for text in texts_of(one))]
    assert foreign
    for one in everything(person):
        for text in texts_of(one):
            assert len(text) <= 2 * LONGEST
            assert not OBEYED & set(text), ascii(text)
        if isinstance(one, QLabel) and one.objectName() != "label":  # pyqtgraph's own menu
            assert one.textFormat() == Qt.TextFormat.PlainText, one.text()
        if isinstance(one, QWidget):
            assert "<img" not in one.toolTip()
    person.app.close()
    with ConversationStore(data_dir() / FILE_NAME) as store:
        (row,) = store.conversations()
        names = [message.model_name for message in store.messages(row.id)]
    assert max(map(len, names)) <= 200
    assert "Big" in names[-1]
    assert not OBEYED & set("".join(names))
