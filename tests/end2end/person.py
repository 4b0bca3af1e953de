"""Somebody at the window: types, clicks, reads what it shows, waits until it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QPlainTextEdit, QPushButton, QWidget
from pytestqt.qtbot import QtBot

from kvdesk import paths
from kvdesk.backend import preferences
from kvdesk.backend.engine.engine_event import EngineState
from kvdesk.backend.preferences import Preferences
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
from kvdesk.ui.chat.message_column import Notice
from kvdesk.ui.chat.message_footer import MessageFooter
from kvdesk.ui.chat.message_view import MessageView
from kvdesk.ui.settings.field_editor import ChoiceBox
from kvdesk.ui.shell.application import App
from kvdesk.ui.shell.open_window import open_window

PATIENCE_MS = 60_000
MODEL = ModelSettings(use_extra_bufts=False)
CONTEXT = ContextSettings(n_ctx=2048, n_threads=1)
SAMPLING = SamplingSettings(temperature=0.0, max_tokens=24)


class Person:
    """One app and its user. ``app`` is the real one: engine process, store, recorder and all."""

    def __init__(
        self,
        qtbot: QtBot,
        application: QApplication,
        home: Path,
        model: Path | None,
        *,
        context: ContextSettings = CONTEXT,
        sampling: SamplingSettings = SAMPLING,
        **chosen: object,
    ) -> None:
        self._qtbot = qtbot
        self.home = home
        path = paths.config_dir() / preferences.FILE_NAME
        if not path.exists():
            values = Preferences(engine=EngineSettings(MODEL, context), sampling=sampling, confirm_quit=False)
            preferences.save_values(dataclasses.replace(values, **chosen), path)  # type: ignore[arg-type]
        self.app = App(application, open_window(application))
        self.window = self.app.window
        self.app.start(model or home / "no-model.gguf")
        if model:
            self.wait_until_ready()
        else:
            self.wait_until(lambda: bool(self.notices))

    # --- waiting ------------------------------------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Until ``condition`` is true; the test fails when it never is."""
        self._qtbot.waitUntil(lambda: bool(condition()), timeout=PATIENCE_MS)

    def wait_until_ready(self) -> None:
        """Until a model is loaded and the composer says nothing against sending."""
        self.wait_until(lambda: self.app.engine.state is EngineState.READY and self.can_send)

    def wait_for_store(self) -> None:
        """Until all that was handed to the conversations' store so far is done."""
        done: list[object] = []
        self.app.store.submit(lambda _: None, done.append)
        self.wait_until(lambda: done)

    def wait_for_notice(self, *words: str) -> str:
        """Until a notice has all of ``words``; returns it."""

        def found() -> list[str]:
            return [notice for notice in self.notices if all(word in notice for word in words)]

        self.wait_until(found)
        return found()[-1]

    # --- chatting -----------------------------------------------------------------------------------------------

    @property
    def field(self) -> QPlainTextEdit:
        """Where messages are written."""
        return self.window.composer.findChildren(QPlainTextEdit)[0]

    def type(self, text: str) -> None:
        """Type into the composer."""
        self.field.setFocus()
        QTest.keyClicks(self.field, text)

    @property
    def can_send(self) -> bool:
        """Whether a message would be answered now."""
        return self.app.chat.can_send and not self.window.composer._closed_reason

    def send(self, text: str) -> None:
        """Type and press Enter."""
        self.type(text)
        QTest.keyClick(self.field, Qt.Key.Key_Return)

    def ask(self, text: str) -> str:
        """Send and wait for the whole reply; returns it."""
        before = len(self.messages)
        self.send(text)
        self.wait_until(lambda: len(self.messages) == before + 2)
        return self.wait_for_reply()

    def wait_for_reply(self) -> str:
        """Until no reply is being written; returns the last message."""
        self.wait_until(lambda: not self.app.chat.is_replying)
        return self.messages[-1]

    def wait_for_text(self) -> None:
        """Until a reply has begun."""
        self.wait_until(lambda: self.app.chat.is_replying and self.messages[-1])

    def stop(self) -> None:
        """Press Esc."""
        QTest.keyClick(self.field, Qt.Key.Key_Escape)

    # --- what is on screen -----------------------------------------------------------------------------------------

    @property
    def messages(self) -> list[str]:
        """The text of every message in the transcript."""
        transcript = self.window.transcript
        return [transcript.text_of(one) for one in transcript.message_ids]

    @property
    def notices(self) -> list[str]:
        """The lines between messages."""
        rows = self.window.transcript._column.rows
        return [row.content.text for row in rows if isinstance(row.content, Notice)]

    def forget_notices(self) -> None:
        """Take them all away."""
        transcript = self.window.transcript
        for row in list(transcript._column.rows):
            if isinstance(row.content, Notice):
                transcript.remove_notice(row.content.notice_id)

    @property
    def footers(self) -> list[MessageFooter]:
        """The lines under the messages, first to last."""
        views = [row.view for row in self.window.transcript._column.rows if isinstance(row.view, MessageView)]
        return [footer for view in views for footer in view.findChildren(MessageFooter)]

    @property
    def titles(self) -> list[str]:
        """The conversations in the list, the newest first."""
        return [row.title for row in self.window.conversation_list._rows]

    @property
    def drafts(self) -> list[str]:
        """What is typed and not sent in each of them."""
        return [row.draft for row in self.window.conversation_list._rows]

    def choose_conversation(self, title: str) -> None:
        """Click a conversation in the list."""
        row = next(row for row in self.window.conversation_list._rows if row.title == title)
        self.window.conversation_list.conversation_chosen.emit(row.id)
        self.wait_until(lambda: self.app.opened.conversation.id == row.id)

    def editor(self, field: str) -> ChoiceBox:
        """The settings panel's editor of ``field``."""
        return self.window.settings_panel.findChild(ChoiceBox, field)

    @property
    def model_name(self) -> str:
        """What the bar calls the model."""
        return self.window.model_bar._model.text()

    def button(self, inside: QWidget, text: str) -> QPushButton:
        """The button that says ``text``."""
        return next(button for button in inside.findChildren(QPushButton) if button.text() == text)

    def click(self, inside: QWidget, text: str) -> None:
        """Click the button that says ``text``."""
        QTest.mouseClick(self.button(inside, text), Qt.MouseButton.LeftButton)

    def said(self, words: str) -> bool:
        """Whether ``words`` stand in a notice, a warning above the composer, or under a message."""
        failures = [row.content.failure for row in self.window.transcript._messages.values()]
        strip = self.window.composer.warning
        texts = [*self.notices, *failures, strip.sentence if strip.isVisible() else ""]
        return any(words in text for text in texts)
