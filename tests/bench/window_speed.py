"""The real window, streaming: its speed against the barest loop, and how late its event loop comes meanwhile.

    python -m tests.bench.window_speed [--rounds 5] [--tokens 128] [--sentences 30] [--threads N]

The window runs in this process, offscreen; while the barest loop has its round, nothing streams.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import psutil
from PySide6.QtCore import QEventLoop, QTimer

from kvdesk import paths
from kvdesk.backend import preferences
from kvdesk.backend.engine.engine_event import EngineEvent
from kvdesk.backend.preferences import Preferences
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import TurnStats
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
from kvdesk.ui.shell.application import App
from kvdesk.ui.shell.open_window import make_application, open_window
from tests.bench.barest_loop import Barest, Speed
from tests.bench.engine_speed import N_CTX, as_prompt, load_words, processor_of, ratio, show, story
from tests.bench.kv_convert import starter
from tests.engine.harness import GREEDY

BEAT_MS = 40
SETTLE_MS = 300
MIB = 1024 * 1024


class Heartbeat:
    """How late a timer of the UI thread comes, in milliseconds, while it is on."""

    def __init__(self) -> None:
        self.late_ms: list[float] = []
        self._timer = QTimer(interval=BEAT_MS)
        self._timer.timeout.connect(self._on_beat)
        self._due = 0.0

    def start(self) -> None:
        self._due = time.perf_counter() + BEAT_MS / 1000
        self._timer.start()

    def stop(self) -> None:
        self._timer.stop()

    def _on_beat(self) -> None:
        now = time.perf_counter()
        self.late_ms.append(max(0.0, (now - self._due) * 1000))
        self._due = now + BEAT_MS / 1000


class Streamer:
    """Sends to the window's composer and follows the reply."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.beat = Heartbeat()
        self._texts: list[tuple[float, int]] = []
        app.bridge.changed.connect(lambda change: self._on_event(change.event))

    def _on_event(self, event: EngineEvent) -> None:
        if isinstance(event, m.TextGenerated):
            self._texts.append((time.perf_counter(), event.n_tokens))

    def run(self, content: str) -> Speed:
        """One new conversation with one question."""
        chat, pid = self._app.chat, self._app.engine.pid
        chat.new()
        settled = QEventLoop()
        QTimer.singleShot(SETTLE_MS, settled.quit)  # nobody asks in the moment in which they begin a conversation
        settled.exec()
        self._texts.clear()
        self.beat.start()
        stats: list[TurnStats] = []
        wait = QEventLoop()
        connection = chat.reply_finished.connect(lambda one: (stats.append(one), wait.quit()))
        begun, processor_s = time.perf_counter(), processor_of(pid)
        chat.send(content)
        wait.exec()
        chat.disconnect(connection)
        self.beat.stop()
        (first_s, first_n), (last_s, last_n) = self._texts[0], self._texts[-1]
        read = stats[0].prompt_tokens - stats[0].reused_tokens
        return Speed(
            prompt_tokens=read,
            prompt_per_s=read / (first_s - begun),
            decode_per_s=(last_n - first_n) / (last_s - first_s),
            processor_s=processor_of(pid) - processor_s,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--sentences", type=int, default=30)
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["KVDESK_HOME"] = home
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """Alternate between the window and the loop."""
    model = starter()
    context = ContextSettings(n_ctx=N_CTX, n_threads=options.threads)
    sampling = dataclasses.replace(GREEDY, max_tokens=options.tokens)
    chosen = Preferences(
        engine=EngineSettings(ModelSettings(use_extra_bufts=False), context),
        sampling=sampling,
        confirm_quit=False,
        snapshot_budget_bytes=0,
    )
    preferences.save_values(chosen, paths.config_dir() / preferences.FILE_NAME)
    application = make_application()
    app = App(application, open_window(application))
    ready = QEventLoop()
    app.bridge.changed.connect(lambda change: ready.quit() if isinstance(change.event, m.Loaded) else None)
    app.start(Path(model))
    ready.exec()
    streamer = Streamer(app)
    ours: list[Speed] = []
    barest: list[Speed] = []
    with Barest(model, N_CTX, options.threads) as loop:
        for number in range(options.rounds + 1):
            content = story(number, options.sentences)
            if number == 1:
                streamer.beat.late_ms.clear()
            sides = [
                lambda: ours.append(streamer.run(content)),  # noqa: B023 - called at once
                lambda: barest.append(loop.run(as_prompt(content), options.tokens)),  # noqa: B023
            ]
            for side in sides if number % 2 else sides[::-1]:
                side()
            for name, speed in (("window", ours[-1]), ("barest", barest[-1])):
                print(f"  {name} {speed.prompt_per_s:.1f} {speed.decode_per_s:.1f}", file=sys.stderr, flush=True)
    del ours[0], barest[0]
    print(f"{options.rounds} rounds, {options.threads} threads; {load_words()}")
    for what, field in (("prompt", "prompt_per_s"), ("decode", "decode_per_s")):
        pairs = [getattr(one, field) for one in ours], [getattr(one, field) for one in barest]
        ratio(f"{what}, window open and streaming, against the barest loop", *pairs, "tok/s", ">= 0.93")
    late = sorted(streamer.beat.late_ms)
    p99, worst = late[len(late) * 99 // 100], late[-1]
    show("event loop while streaming, 99th percentile", f"{p99:.1f} ms", f"< 16 ms (worst {worst:.0f})")
    app.close()


if __name__ == "__main__":
    main()
