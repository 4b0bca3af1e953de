"""One question asked of the real window without a person: prints the answer and a picture's path. UI thread."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from PySide6.QtCore import QObject, Qt, QTimer

from kvdesk.backend.engine.engine_event import Died
from kvdesk.backend.protocol.messages import Loaded
from kvdesk.backend.session.session_event import Change
from kvdesk.terminal import say, say_beside
from kvdesk.ui.shell.application import App

PATIENCE_MS = 300_000
SETTLE_MS = 1500
"""After the reply: the chart's next samples and the footer are drawn."""


class Demo(QObject):
    """Asks when the model is ready, leaves when the reply is there."""

    def __init__(self, app: App, question: str, screenshot: Path) -> None:
        super().__init__(app)
        self._app = app
        self._question = question
        self._screenshot = screenshot
        self._code = 1
        app.bridge.changed.connect(self._on_changed, Qt.ConnectionType.QueuedConnection)
        app.chat.reply_finished.connect(lambda _: QTimer.singleShot(SETTLE_MS, self._finish))
        app.chat.noticed.connect(lambda text, kind: self._fail(text) if kind == "error" else None)
        app.models.noticed.connect(lambda text, kind: self._fail(text) if kind == "error" else None)
        QTimer.singleShot(PATIENCE_MS, lambda: self._fail("No answer came in five minutes."))

    def exit_code(self) -> int:
        """0 when an answer was printed."""
        return self._code

    def _on_changed(self, change: Change) -> None:
        if isinstance(change.event, Loaded):
            self._ask()
        elif isinstance(change.event, Died):
            self._fail(str(change.event.error))

    def _ask(self) -> None:
        self._app.window.resize(1440, 900)
        self._app.chat.new()
        greedy = dataclasses.replace(
            self._app.opened.conversation.sampling, temperature=0.0
        )  # the same answer each time
        self._app.chat_settings.set_sampling(greedy)
        self._app.chat.send(self._question)

    def _finish(self) -> None:
        transcript = self._app.window.transcript
        answer = transcript.text_of(transcript.message_ids[-1])
        say(f"Question: {self._question}\nAnswer: {answer}")
        self._screenshot.parent.mkdir(parents=True, exist_ok=True)
        self._app.window.grab().save(str(self._screenshot))
        say(f"Screenshot: {self._screenshot}")
        self._code = 0
        self._app.close()

    def _fail(self, sentence: str) -> None:
        say_beside(f"kvdesk: {sentence}")
        self._app.close()
