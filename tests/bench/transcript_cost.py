"""What streaming into a long reply costs the window's thread, and what a long conversation costs to open and keep.

    python -m tests.bench.transcript_cost [--seconds 20] [--rate 60] [--kilobytes 64] [--shape mixed]

A reply that already holds most of its text gets tokens at ``--rate`` a second, as the engine would send them. Measured:
each flush; each stretch of work between two waits of the event loop (flush, layout, painting, all of it); and how late
a 10 ms heartbeat comes. Wall time includes what other programs take from this machine, thread time does not.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import time

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import psutil
from PySide6.QtCore import QEvent, QEventLoop, QObject, QTimer
from PySide6.QtWidgets import QApplication

from kvdesk.backend.protocol.facts import StopReason, TurnStats
from kvdesk.ui.chat.message_row import MessageRow
from kvdesk.ui.chat.transcript import Transcript
from kvdesk.ui.widgets.style_sheet import style_sheet
from kvdesk.ui.widgets.theme import LIGHT, body_font, palette

STATS = TurnStats(StopReason.EOS, 100, 0, 100, 300.0, 200.0, 60.0)
SENTENCE = "the model keeps a cache of keys and values for each token so that attention need not compute them again"
WORDS = SENTENCE.split()


def text_of(n_chars: int, seed: int = 1) -> str:
    """Markdown as models write it: headings, paragraphs, lists, tables, code."""
    rng = random.Random(seed)

    def sentence() -> str:
        words = [rng.choice(WORDS) for _ in range(rng.randint(8, 18))]
        words[rng.randrange(len(words))] = rng.choice(
            ["`n_ctx`", "**cache**", "*tokens*", "[docs](https://example.org)"]
        )
        return " ".join(words).capitalize() + "."

    blocks: list[str] = []
    while sum(map(len, blocks)) < n_chars:
        blocks += [f"## Part {len(blocks)}\n\n"]
        blocks += [" ".join(sentence() for _ in range(5)) + "\n\n" for _ in range(3)]
        blocks += ["".join(f"{n}. {sentence()}\n   - {sentence()}\n" for n in range(1, 8)) + "\n"]
        blocks += [
            "```python\n"
            + "".join(f"def f{n}(x: int) -> int:\n    return x * {n}  # {sentence()[:30]}\n" for n in range(12))
            + "```\n\n"
        ]
        blocks += [
            "| name | value |\n|---|---|\n" + "".join(f"| {rng.choice(WORDS)} | {n} |\n" for n in range(6)) + "\n"
        ]
    return "".join(blocks)[:n_chars]


def shaped(shape: str, n_chars: int) -> str:
    """Text of one kind only, the worst of each: one endless line, one list, one table, one code block."""
    mixed = text_of(n_chars * 2, 3).replace("\n", " ").replace("```", "").replace("|", " ").replace("#", "")
    words = mixed.split()[: n_chars // 4]
    lines = [" ".join(words[n : n + 12]) for n in range(0, len(words), 12)]
    return {
        "mixed": text_of(n_chars),
        "line": " ".join(lines),
        "list": "".join(f"- {line}\n" for line in lines),
        "table": "| a | b |\n|---|---|\n" + "".join(f"| {line[:30]} | {line[30:]} |\n" for line in lines),
        "code": "```python\n" + "".join(f"x = {line!r}\n" for line in lines),
    }[shape][:n_chars]


def tokens_of(text: str) -> list[str]:
    rng = random.Random(2)
    tokens, at = [], 0
    while at < len(text):
        n = rng.randint(2, 6)
        tokens.append(text[at : at + n])
        at += n
    return tokens


def line(name: str, values: list[float]) -> str:
    ranked = sorted(values)

    def at(share: float) -> float:
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))]

    return (
        f"{name:<34} n {len(values):>6}   median {statistics.median(values):6.2f}   p95 {at(0.95):6.2f}   "
        f"p99 {at(0.99):6.2f}   max {ranked[-1]:6.2f} ms"
    )


class MeteredApplication(QApplication):
    """Times every event that the loop hands out, with all that it brings about."""

    def __init__(self) -> None:
        super().__init__([])
        self.is_metering = False
        self.wall: list[float] = []
        self.thread: list[float] = []
        self._depth = 0

    def notify(self, receiver: QObject, event: QEvent) -> bool:
        if not self.is_metering or self._depth:
            return super().notify(receiver, event)
        self._depth += 1
        wall, thread = time.perf_counter(), time.thread_time()
        try:
            return super().notify(receiver, event)
        finally:
            self.wall.append((time.perf_counter() - wall) * 1000)
            self.thread.append((time.thread_time() - thread) * 1000)
            self._depth -= 1


def wait(ms: int) -> None:
    loop = QEventLoop()
    QTimer.singleShot(ms, loop.quit)
    loop.exec()


def stream(app: MeteredApplication, seconds: float, rate: float, kilobytes: int, shape: str) -> None:
    view = Transcript(LIGHT)
    view.resize(760, 900)
    view.show()
    wait(200)
    text = shaped(shape, kilobytes * 1024)
    tokens = tokens_of(text)
    n_stream = min(len(tokens), int(seconds * rate))
    head = "".join(tokens[:-n_stream])
    view.show_messages([MessageRow("u", "user", "Tell me all."), MessageRow("r", "assistant", head, is_complete=False)])
    view.begin_reply("r")
    wait(1000)
    flushes: list[float] = []
    view.flushed.connect(flushes.append)
    late: list[float] = []
    beat = QTimer()
    last = [time.perf_counter()]

    def on_beat() -> None:
        now = time.perf_counter()
        late.append(max(0.0, (now - last[0]) * 1000 - 10))
        last[0] = now

    beat.setTimerType(beat.timerType().PreciseTimer)
    beat.timeout.connect(on_beat)
    rest = iter(tokens[-n_stream:])
    sender = QTimer()
    sender.setTimerType(sender.timerType().PreciseTimer)
    loop = QEventLoop()
    sent = [0]

    def on_token() -> None:
        token = next(rest, None)
        if token is None:
            loop.quit()
            return
        sent[0] += 1
        view.append_text("r", token)
        view.show_speed("r", sent[0], rate)

    sender.timeout.connect(on_token)
    app.is_metering = True
    beat.start(10)
    sender.start(round(1000 / rate))
    began, used = time.perf_counter(), time.thread_time()
    loop.exec()
    share = (time.thread_time() - used) / (time.perf_counter() - began)
    beat.stop()
    app.is_metering = False
    view.finish_reply("r", STATS)
    assert view.text_of("r") == text
    print(
        f"streaming {n_stream} tokens at {rate:.0f} a second into a reply that ends at {len(text) / 1024:.0f} KiB ({shape})"
    )
    print(line("flush, wall", flushes))
    print(line("each event, wall", app.wall))
    print(line("each event, thread time", app.thread))
    busy = [ms for ms in app.thread if ms >= 1]
    print(line("events of 1 ms or more, thread time", busy))
    print(line("heartbeat of 10 ms late by", late))
    print(f"share of one core used by this thread: {share:.1%}")
    view.close()
    view.deleteLater()
    wait(50)


def conversation(n_messages: int) -> None:
    process = psutil.Process()
    view = Transcript(LIGHT)
    view.resize(760, 900)
    view.show()
    wait(200)
    rows = [
        MessageRow(str(n), "user", text_of(200, n))
        if n % 2 == 0
        else MessageRow(str(n), "assistant", text_of(2500, n), STATS)
        for n in range(n_messages)
    ]
    before = process.memory_info().rss
    began = time.thread_time()
    view.show_messages(rows)
    opened = time.thread_time() - began
    wait(500)
    shown = process.memory_info().rss
    bar = view.findChild(type(view._column)).verticalScrollBar()
    steps: list[float] = []
    while bar.value() > 0:
        began = time.thread_time()
        bar.setValue(max(0, bar.value() - 300))
        QApplication.processEvents()
        steps.append((time.thread_time() - began) * 1000)
        wait(1)  # widgets that were let go are deleted by a running loop only
    wait(500)
    scrolled = process.memory_info().rss
    print(f"\nconversation of {n_messages} messages")
    print(f"opening: {opened * 1000:.0f} ms of thread time")
    print(line("scrolling by 300 px, thread time", steps))
    print(
        f"memory a message: {(shown - before) / n_messages / 1024:.1f} KiB when opened, "
        f"{(scrolled - before) / n_messages / 1024:.1f} KiB after scrolling through all of it"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=20)
    options.add_argument("--rate", type=float, default=60)
    options.add_argument("--kilobytes", type=int, default=64)
    options.add_argument("--messages", type=int, default=500)
    options.add_argument("--shape", choices=("mixed", "line", "list", "table", "code"), default="mixed")
    options.add_argument("--conversation", action="store_true", help="only that part, in a process without meters")
    chosen = options.parse_args()
    app = QApplication([]) if chosen.conversation else MeteredApplication()
    app.setStyle("Fusion")
    app.setFont(body_font())
    app.setPalette(palette(LIGHT))
    app.setStyleSheet(style_sheet(LIGHT))
    if isinstance(app, MeteredApplication):
        stream(app, chosen.seconds, chosen.rate, chosen.kilobytes, chosen.shape)
        subprocess.run(
            [sys.executable, "-m", "tests.bench.transcript_cost", "--messages", str(chosen.messages), "--conversation"],
            check=True,
        )
    else:
        conversation(chosen.messages)


if __name__ == "__main__":
    main()
