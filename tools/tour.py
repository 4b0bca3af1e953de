"""Drives the real app through its features, offscreen, and keeps a picture of each: `make tour`, three minutes at most.

Everything happens in a throw-away home, so it finds no one's conversations and leaves none.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

if TYPE_CHECKING:
    from PySide6.QtWidgets import QWidget

    from kvdesk.backend.protocol.facts import ContextFacts
    from kvdesk.ui.shell.application import App

FOLDER = Path(__file__).parents[1] / "screenshots"
DOCS_FOLDER = Path(__file__).parents[1] / "docs" / "images"
IN_DOCS = {"main": "memory-live", "main-dark": "dark-live", "plan": "memory-plan", "crash": "crash"}
"""Pictures that the documents show, and what they are called here."""
PATIENCE_S = 170.0
SCREEN = {
    "name": "tour",
    "x": 0,
    "y": 0,
    "width": 1920,
    "height": 1200,
    "logicalDpi": 96,
    "logicalBaseDpi": 96,
    "dpr": 1,
}
ANSWER = """\
A **KV cache** keeps, for every token read, one key and one value per layer and head, so that nothing is computed twice.

1. *Keys* are compared with the query of the next token.
2. *Values* are what is mixed in the proportions that come out.

| cache type | bits per value | of `f16` |
|---|---:|---:|
| `f16` | 16 | 100 % |
| `q8_0` | 8.5 | 53 % |
| `q4_0` | 4.5 | 28 % |

```python
def kv_bytes(n_layer, n_head_kv, head_size, n_tokens, bits=16):
    \"\"\"Keys and values of all layers.\"\"\"
    return 2 * n_layer * n_head_kv * head_size * n_tokens * bits // 8

print(kv_bytes(32, 8, 128, 8192) / 2**30, "GiB")  # 1.0 GiB
```

> Grouped-query attention shares one key head among several query heads: that is why `n_head_kv` stands there.
"""
TALKS = (
    ("Plan a week in the Alps", "Day one: Innsbruck, the old town and an early night."),
    ("Why is the sky blue?", "Short waves are scattered more than long ones."),
    ("Regular expression for ISO dates", "`\\d{4}-\\d{2}-\\d{2}` finds them; it does not check them."),
)


class Tour:
    """One app, one picture after another."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.window = app.window
        self.until_s = time.monotonic() + PATIENCE_S
        self.files: list[Path] = []

    # --- means --------------------------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], object], at_most_s: float = 60.0) -> bool:
        """Let the app live until ``condition`` holds; False when it did not in time."""
        from PySide6.QtCore import QEventLoop
        from PySide6.QtWidgets import QApplication

        until_s = min(self.until_s, time.monotonic() + at_most_s)
        while time.monotonic() < until_s:
            QApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 20)
            if condition():
                return True
            time.sleep(0.005)
        print(f"  gave up waiting after {at_most_s:.0f} s")
        return False

    def settle(self, seconds: float = 0.6) -> None:
        """Let timers run out and the next sample come."""
        end_s = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= end_s, seconds + 1)

    def shoot(self, name: str, widget: QWidget | None = None, *, settle_s: float = 0.6) -> None:
        """A picture of ``widget``, or of the window."""
        self.settle(settle_s)
        path = FOLDER / f"{len(self.files) + 1:02d}-{name}.png"
        (widget or self.window).grab().save(str(path))
        self.files.append(path)

    def wait_ready(self) -> bool:
        """Until the model can be asked."""
        return self.wait(lambda: self.app.engine.state.value == "ready" and self.context)

    @property
    def context(self) -> ContextFacts | None:
        """The context that exists now."""
        return self.app.session.state.context

    def wait_reply(self, at_most_s: float = 30.0) -> None:
        """Until the reply is whole; stopped when it takes too long."""
        if not self.wait(lambda: not self.app.chat.is_replying, at_most_s):
            self.app.engine.stop()
            self.wait(lambda: not self.app.chat.is_replying, 10)

    def ask(self, text: str) -> None:
        """Send a message and wait until the reply has begun."""
        self.app.chat.send(text)
        self.wait(lambda: not self.app.chat.is_replying or self.window.transcript.text_of(self.last), 30)

    @property
    def last(self) -> str:
        """Id of the last message."""
        return self.window.transcript.message_ids[-1]

    def sample(self, **changes: object) -> None:
        """Change how this conversation's replies are made."""
        sampling = dataclasses.replace(self.app.opened.conversation.sampling, **changes)
        self.app.chat_settings.set_sampling(sampling)

    def edit(self, **changes: object) -> None:
        """Change context settings in the panel, as typing there does, and wait for the price."""
        panel = self.window.settings_panel
        before = panel.price
        panel.edit(dataclasses.replace(panel.edited, context=dataclasses.replace(panel.edited.context, **changes)))
        self.wait(lambda: panel.price != before, 8)
        self.settle(0.8)  # the curve follows

    def apply(self) -> None:
        """Put the edited settings in force."""
        panel = self.window.settings_panel
        wanted = panel.edited
        panel.apply_requested.emit(wanted)
        self.wait(lambda: self.app.session.state.in_force.settings == wanted, 30)

    def tab(self, index: int) -> None:
        """Show a tab of the memory page."""
        self.window.show_memory_page(True)
        self.window.memory_dock.page.setCurrentIndex(index)

    # --- the walk ---------------------------------------------------------------------------------------------------

    def begin(self, starter: Path | None) -> None:
        """Nothing loaded, then loading."""
        self.window.resize(1440, 900)
        self.app.start(Path("/nowhere/model.gguf"))
        self.settle(1.5)
        self.window.transcript.show_messages(())
        self.app._on_starter_found(None)
        self.shoot("welcome-no-model", settle_s=0.2)
        self.window.transcript.show_messages(())
        if starter is None:
            sys.exit("The starter package is not installed: make setup")
        self.app.models.open(starter)
        self.wait(lambda: self.app.engine.state.value in ("loading", "warming", "ready"))
        self.shoot("loading", settle_s=0.0)
        self.wait_ready()
        self.shoot("ready-empty", settle_s=1.5)

    def chat(self) -> None:
        """Markdown, a short answer, a long one that grows the context and is stopped."""
        self.app.chat.open(self.markdown_id)
        self.wait(lambda: self.app.opened.conversation.id == self.markdown_id)
        self.shoot("markdown")
        self.app.chat.new()
        self.sample(temperature=0.0, max_tokens=12)
        self.ask("What is the capital of France?")
        self.wait_reply()
        self.shoot("answer")
        self.sample(temperature=0.9, max_tokens=0)
        self.ask("Write a long story about a lighthouse keeper.")
        self.settle(1.0)
        self.window.composer.set_draft("And then? " * 12)
        self.shoot("streaming", settle_s=0.4)
        self.window.composer.set_draft("")
        self.app.engine.stop()
        self.wait_reply()
        self.shoot("stopped")
        self.app.chat._on_regenerate_requested(self.last)
        self.settle(1.0)
        self.app.engine.stop()
        self.wait_reply()
        self.shoot("versions")
        self.app.chat.open(self.markdown_id)
        self.wait(lambda: self.app.opened.conversation.id == self.markdown_id)
        self.sample(temperature=0.0, max_tokens=40)
        self.ask("Say it in one sentence.")
        self.wait(lambda: self.context and self.context.n_ctx > 256, 25)
        self.wait_reply(20)
        self.shoot("grown")

    def memory(self) -> None:
        """The chart's ways to draw, the tabs of the memory page, small windows."""
        self.shoot("memory-live")
        view = self.window.memory_dock.live_chart.view
        for name in ("all", "without weights"):
            view.setCurrentIndex(view.findData(name))
            self.shoot(f"memory-{name.replace(' ', '-')}")
        view.setCurrentIndex(0)
        self.window.resize(1280, 720)
        self.shoot("main-1280x720")
        self.window.resize(1440, 900)
        for index, name in enumerate(("plan", "curve", "why")):
            self.tab(index)
            self.shoot(f"memory-{name}")
        self.window.show_memory_page(False)

    def settings(self) -> None:
        """A priced change, an impossible one, one that is applied, sampling."""
        from kvdesk.ui.settings.field_editor import ChoiceBox

        self.edit(type_k="q8_0", type_v="q8_0", n_ctx=32768)
        self.shoot("settings-priced")
        types = self.window.settings_panel.findChild(ChoiceBox, "type_k")
        types.showPopup()
        self.shoot("settings-choices", types.view().window())
        types.hidePopup()
        self.edit(flash_attn="off")
        self.shoot("settings-impossible", self.window.settings_panel)
        self.edit(flash_attn="auto")
        self.apply()
        self.shoot("settings-applied", settle_s=1.0)
        self.window.settings_panel.show_more(True)
        self.shoot("settings-more")
        self.window.settings_panel.show_more(False)
        self.window.chat_head.open_settings()
        self.shoot("sampling")
        self.window.chat_head.close_settings()
        box = self.window.conversation_list
        box.focus_search()
        box._search.setText("dates")
        self.shoot("search", settle_s=1.0)
        box._search.clear()
        self.window.composer.setFocus()

    def dark(self) -> None:
        """The main pictures in the dark theme."""
        self.app._on_theme_chosen("dark")
        self.app.chat.open(self.markdown_id)
        self.shoot("dark-live", settle_s=1.0)
        for index, name in enumerate(("plan", "curve", "why")):
            self.tab(index)
            self.shoot(f"dark-{name}")
        self.window.show_memory_page(False)
        self.window.resize(1280, 720)
        self.shoot("dark-1280x720")
        self.window.resize(900, 560)
        self.shoot("dark-narrow")
        self.app._on_theme_chosen("light")
        self.shoot("narrow")
        self.window.resize(1440, 900)

    def trouble(self) -> None:
        """What does not fit, a killed engine, the session's log."""
        margin = self.app.preferences.margin_bytes
        self.app._on_margin_chosen(int(self.app.monitor.latest.domains[0].capacity_bytes * 0.97))
        self.settle(1.0)
        self.app.models.open(self.app.session.state.file.path)
        self.wait(self.window.options_card.isVisible, 20)
        self.shoot("options")
        self.app._on_margin_chosen(margin)
        self.window.options_card.dismiss()
        self.settle(1.2)
        self.app.chat.new()
        self.sample(temperature=0.9, max_tokens=0)
        self.ask("Tell me everything about the sea.")
        self.settle(1.0)
        os.kill(self.app.engine.pid, signal.SIGKILL)
        self.wait(self.window.crash_card.isVisible, 20)
        self.shoot("crash", settle_s=1.0)
        self.app._on_theme_chosen("dark")
        self.shoot("dark-crash")
        self.app._on_theme_chosen("light")
        self.app.session.reload()
        self.wait_ready()
        self.app.logs.show()
        log = self.app.logs.window
        log.resize(1200, 800)
        self.shoot("session-log", log, settle_s=2.0)
        log.close()

    def walk(self, starter: Path | None) -> None:
        """All of it."""
        self.markdown_id = seed(self.app)
        for part in (lambda: self.begin(starter), self.chat, self.memory, self.settings, self.dark, self.trouble):
            part()


def seed(app: App) -> str:
    """Conversations of other days; returns the id of the one with Markdown in it."""
    from kvdesk.backend.conversations import conversation
    from kvdesk.backend.conversations.store import ConversationStore

    now = time.time()
    talks = [(question, answer, now - 90_000 * n) for n, (question, answer) in enumerate(TALKS, 1)]
    talks.append(("What is a KV cache?", ANSWER, now - 60))
    made = []
    for question, answer, at in talks:
        asked = conversation.new_message("user", question, None, at)
        told = conversation.new_message("assistant", answer, asked.id, at, model_name="Gemma 3 270m")
        talk = dataclasses.replace(conversation.new_conversation(at), title=question, active_leaf_id=told.id)
        made.append((talk, (asked, told)))

    def work(store: ConversationStore) -> None:
        for talk, messages in made:
            store.keep(talk, messages)

    app.keeper.keep(work)
    return made[-1][0].id


def keep_for_docs(files: list[Path]) -> None:
    """Small copies of the pictures that the documents show: with the 256 colours that stand for most of their pixels."""
    import numpy as np
    from PySide6.QtGui import QImage

    for name, shown in IN_DOCS.items():
        file = next(file for file in files if file.stem[3:] == shown)
        image = QImage(str(file)).convertToFormat(QImage.Format.Format_RGB32)
        pixels = np.frombuffer(image.constBits(), np.uint32).reshape(image.height(), image.width()) & 0xFFFFFF
        colors, places, counts = np.unique(pixels, return_inverse=True, return_counts=True)
        palette = colors[np.argsort(counts)[-256:]]
        channels = [[(values >> shift & 0xFF).astype(int) for shift in (16, 8, 0)] for values in (colors, palette)]
        distance = sum((mine[:, None] - theirs[None, :]) ** 2 for mine, theirs in zip(*channels, strict=True))
        rows = np.argmin(distance, axis=1).astype(np.uint8)[places].reshape(pixels.shape)
        small = QImage(rows.tobytes(), image.width(), image.height(), image.width(), QImage.Format.Format_Indexed8)
        small.setColorTable([0xFF000000 | int(color) for color in palette])
        target = DOCS_FOLDER / f"{name}.png"
        small.save(str(target), "PNG", 0)  # 0: smallest
        print(f"{target.relative_to(DOCS_FOLDER.parents[1])}: {target.stat().st_size // 1000} kB")


def main() -> int:
    """Take all pictures and list them; with --docs, also keep small copies of some in docs/images."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        screens = Path(home) / "screen.json"
        screens.write_text(json.dumps({"screens": [SCREEN]}))
        os.environ["QT_QPA_PLATFORM"] = f"offscreen:configfile={screens}"
        os.environ["KVDESK_HOME"] = home
        from kvdesk import paths
        from kvdesk.backend import preferences
        from kvdesk.backend.library import models
        from kvdesk.backend.preferences import Preferences
        from kvdesk.backend.settings import ContextSettings, EngineSettings
        from kvdesk.ui.shell.application import App
        from kvdesk.ui.shell.open_window import make_application, open_window

        engine = EngineSettings(context=ContextSettings(initial_ctx=256))
        chosen = Preferences(theme="light", engine=engine, confirm_quit=False)
        preferences.save_values(chosen, paths.config_dir() / preferences.FILE_NAME)
        FOLDER.mkdir(exist_ok=True)
        for old in FOLDER.glob("[0-9][0-9]-*.png"):
            old.unlink()
        application = make_application()
        app = App(application, open_window(application))
        tour = Tour(app)
        try:
            tour.walk(models.starter_model())
        finally:
            app.close()
        for file in tour.files:
            print(file.relative_to(FOLDER.parent))
        if "--docs" in sys.argv:
            keep_for_docs(tour.files)
    return 0


if __name__ == "__main__":
    sys.exit(main())
