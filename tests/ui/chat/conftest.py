"""What tests of the chat's widgets share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytestqt.qtbot import QtBot

from kvdesk.backend.code_lexer import CodeLexer
from kvdesk.ui.chat.code_questions import code_questions
from kvdesk.ui.controllers.bridge import Bridge


@pytest.fixture
def lexer(qtbot: QtBot) -> Iterator[CodeLexer]:
    """The real process, joined as the app joins it."""
    questions, bridge = code_questions(), Bridge()
    lexer = CodeLexer(bridge.here(questions.answered.emit))
    questions.asked.connect(lexer.ask)
    yield lexer
    questions.asked.disconnect(lexer.ask)
    lexer.close()
    bridge.close()
