"""The real window driven at random, faster than a person could: no exception, nothing lost, and it still answers at the end.

    python -m tests.bench.at_random [--seed N] [--seconds 60]

Prints what was done and what went wrong; exits with 1 if anything did. Which race comes up is chance, also with one seed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QEventLoop, Qt, QTimer
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QPlainTextEdit

from kvdesk import paths
from kvdesk.backend import preferences
from kvdesk.backend.conversations.store import FILE_NAME
from kvdesk.backend.engine.engine_event import EngineState
from kvdesk.backend.preferences import Preferences
from kvdesk.backend.protocol.messages import Loaded
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import OVERFLOWS, ContextSettings, EngineSettings, ModelSettings
from kvdesk.ui.shell.application import App
from kvdesk.ui.shell.open_window import make_application, open_window
from tests.tiny_models import write_tiny

PATIENCE_S = 30.0
PAUSES_S = (0.0, 0.0, 0.02, 0.1, 0.3, 0.8)
MARGINS = (0, 1 << 30, 1 << 50)
AT_REST = (EngineState.READY, EngineState.EMPTY, EngineState.DIED, EngineState.STOPPED)


class Hands:
    """Everything one can do to the window, and what was sent with it."""

    def __init__(self, app: App, models: list[Path], chance: random.Random) -> None:
        self.app, self._models, self._chance = app, models, chance
        self._window = app.window
        self._field = self._window.composer.findChildren(QPlainTextEdit)[0]
        self.sent: list[str] = []
        self._n_texts = 0

    def wait(self, condition: Callable[[], object], at_most_s: float) -> bool:
        """Let the window run until ``condition``; whether it came."""
        loop, timer = QEventLoop(), QTimer(interval=10)
        until = time.monotonic() + at_most_s
        timer.timeout.connect(lambda: loop.quit() if condition() or time.monotonic() > until else None)
        timer.start()
        loop.exec()
        return bool(condition())

    def _text(self) -> str:
        self._n_texts += 1
        return f"text {self._n_texts}: tell me more"

    def _any_conversation(self) -> str:
        rows = self._window.conversation_list._rows
        return self._chance.choice(rows).id if rows else ""

    def write(self) -> None:
        self._field.setFocus()
        QTest.keyClicks(self._field, self._text())

    def send(self) -> None:
        if self.app.chat.can_send and not self.app.chat.is_replying:
            self.write()
            text = self._field.toPlainText()
            QTest.keyClick(self._field, Qt.Key.Key_Return)
            if not self._field.toPlainText():
                self.sent.append(text)

    def stop(self) -> None:
        QTest.keyClick(self._field, Qt.Key.Key_Escape)

    def new(self) -> None:
        self._window.conversation_list.new_action.trigger()

    def switch(self) -> None:
        if one := self._any_conversation():
            self._window.conversation_list.conversation_chosen.emit(one)

    def delete_and_undo(self) -> None:
        if one := self._any_conversation():
            self._window.conversation_list.delete_requested.emit(one)
            self.wait(lambda: False, self._chance.random() / 4)
            self._window.conversation_list.undo_requested.emit(one)

    def search(self) -> None:
        self._window.conversation_list.search_changed.emit(self._chance.choice(("", "more", "text 1")))

    def regenerate(self) -> None:
        for one in self._window.transcript.message_ids[-1:]:
            self._window.transcript.regenerate_requested.emit(one)

    def go_on(self) -> None:
        for one in self._window.transcript.message_ids[-1:]:
            self._window.transcript.continue_requested.emit(one)

    def edit(self) -> None:
        if ids := self._window.transcript.message_ids:
            text = self._text()
            self._window.transcript.message_edited.emit(self._chance.choice(ids), text)
            self.sent.append(text)

    def open(self) -> None:
        self.app.models.open(self._chance.choice(self._models))

    def open_nothing(self) -> None:
        self.app.models.open(Path("missing.gguf"))

    def eject(self) -> None:
        self.app.session.eject()

    def reload(self) -> None:
        self.app.session.reload()

    def apply(self) -> None:
        panel, pick = self._window.settings_panel, self._chance.choice
        context = dataclasses.replace(
            panel.edited.context,
            type_k=pick(("f16", "q8_0")),
            type_v=pick(("f16", "q8_0")),
            n_ctx=pick((512, 1024, 2048)),
            allocation=pick(("grow", "reserve")),
        )
        panel.edit(dataclasses.replace(panel.edited, context=context))
        self.app.models.apply(panel.edited)

    def margin(self) -> None:
        self._window.settings_panel.margin_chosen.emit(self._chance.choice(MARGINS))

    def overflow(self) -> None:
        self.app.chat_settings.set_overflow(self._chance.choice(OVERFLOWS))

    def theme(self) -> None:
        self.app._on_theme_chosen(self._chance.choice(("light", "dark")))

    def answer_card(self) -> None:
        for card in (self._window.growth_card, self._window.options_card):
            if card.isVisible() and card.buttons:
                self._chance.choice(list(card.buttons.values())).click()

    def kill(self) -> None:
        if self.app.engine.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.app.engine.pid, signal.SIGKILL)


WEIGHTS = {
    "write": 6, "send": 14, "stop": 6, "new": 3, "switch": 6, "delete_and_undo": 2, "search": 1, "regenerate": 4,
    "go_on": 3, "edit": 3, "open": 2, "open_nothing": 0.5, "eject": 0.5, "reload": 1, "apply": 3, "margin": 1.5,
    "overflow": 2, "theme": 0.5, "answer_card": 8, "kill": 0.4,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        os.environ["KVDESK_HOME"] = home
        return drive(Path(home), random.Random(options.seed), options.seconds)


def drive(home: Path, chance: random.Random, seconds: float) -> int:
    """Do it, then see whether all is well."""
    models = [
        write_tiny("llama", home, n_layer=8, n_embd=512, n_ff=1024, file_name="a.gguf"),
        write_tiny("gemma3", home, file_name="b.gguf"),
        write_tiny("lfm2", home, file_name="c.gguf"),
    ]
    chosen = Preferences(
        engine=EngineSettings(
            ModelSettings(use_extra_bufts=False), ContextSettings(1024, n_threads=1, initial_ctx=256)
        ),
        sampling=SamplingSettings(max_tokens=300),
        confirm_quit=False,
    )
    preferences.save_values(chosen, paths.config_dir() / preferences.FILE_NAME)
    wrong: list[str] = []
    sys.excepthook = lambda *error: wrong.append("".join(traceback.format_exception(*error)))
    application = make_application()
    app = App(application, open_window(application))
    app.start(models[0])
    hands = Hands(app, models, chance)
    hands.wait(lambda: app.chat.can_send, PATIENCE_S)
    done: list[str] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until and not wrong:
        done += chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
        getattr(hands, done[-1])()
        hands.wait(lambda: False, chance.choice(PAUSES_S))
        if app.session.state.file is None and chance.random() < 0.2:
            hands.open()
    if wrong:
        wrong.append(f"after {', '.join(done[-8:])}")
    wrong += settle(hands, models[0])
    app.close()
    with contextlib.closing(sqlite3.connect(paths.data_dir() / FILE_NAME)) as database:
        kept = "\n".join(content for (content,) in database.execute("SELECT content FROM messages"))
    wrong += [f"lost: {text}" for text in hands.sent if text not in kept]
    print(f"{len(done)} things done, {len(hands.sent)} messages sent, {len(wrong)} things wrong")
    print("\n".join(wrong))
    return 1 if wrong else 0


def settle(hands: Hands, model: Path) -> list[str]:
    """Come to rest, open ``model``, ask once more; what did not work."""
    app = hands.app
    app.window.settings_panel.margin_chosen.emit(0)

    def is_at_rest() -> bool:
        hands.answer_card()
        return app.engine.state in AT_REST and not app.chat.is_replying

    hands.stop()
    if not hands.wait(is_at_rest, PATIENCE_S):
        return [f"does not come to rest: {app.engine.state}"]
    opened: list[object] = []
    app.bridge.changed.connect(
        lambda change: opened.append(change.event.model.path) if isinstance(change.event, Loaded) else None
    )
    app.models.open(model)
    if not hands.wait(lambda: str(model) in opened, PATIENCE_S):
        return [f"does not open a model: {app.engine.state}, {app.session.state.file}"]
    hands.new()
    transcript = app.window.transcript

    def is_asked() -> bool:  # a load that was still wanted may close the composer once more
        if not transcript.message_ids and app.chat.can_send:
            hands.send()
        return bool(transcript.message_ids)

    if not hands.wait(is_asked, PATIENCE_S):
        return ["takes no message"]
    answered = hands.wait(lambda: is_at_rest() and len(transcript.message_ids) == 2, PATIENCE_S)
    return [] if answered else ["does not answer"]


if __name__ == "__main__":
    sys.exit(main())
