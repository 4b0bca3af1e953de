"""A grammar in the chat settings of the window: answers follow it; one that cannot be used is said, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtWidgets import QPlainTextEdit

from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings
from tests.end2end.conftest import StartApp


def test_answers_follow_the_grammar_in_the_chat_settings(start_app: StartApp, starter: Path) -> None:
    context = ContextSettings(n_ctx=1024, n_threads=2)
    person = start_app(starter, context=context, sampling=SamplingSettings(max_tokens=16, seed=1))
    grammar = person.window.sampling_panel.findChild(QPlainTextEdit, "grammar")
    grammar.setPlainText('root ::= "certainly" | "never"')
    assert person.ask("Is water wet?") in ("certainly", "never")
    grammar.setPlainText('root ::= ("certainly"')
    person.send("And is fire?")
    person.wait_until(lambda: person.said("expecting ')' in line 1"))
    assert "And is fire?" in person.messages
    grammar.setPlainText("")
    assert person.ask("Hello?")
