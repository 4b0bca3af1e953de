"""The longest step of the window's thread while a reply that is one big table is streamed, opened and scrolled through.

    python -m tests.bench.table_cost

Every event is timed with all that it brings about: parsing, layout, painting.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtWidgets import QApplication

from kvdesk.ui.chat.message_row import MessageRow
from kvdesk.ui.chat.transcript import Transcript
from kvdesk.ui.widgets.style_sheet import style_sheet
from kvdesk.ui.widgets.theme import LIGHT, body_font, palette
from tests.bench.transcript_cost import STATS, MeteredApplication, wait

TABLES = ((20, 2000), (1000, 50), (3, 2000))
"""Columns and rows."""
PIECE = 24
"""Characters that arrive at once while streaming."""
STREAMED = 24_000
"""Of the table's end this much is streamed."""


def table(columns: int, rows: int) -> str:
    """A table as Markdown, words of a few letters in its cells."""

    def line(cells: list[str]) -> str:
        return f"| {' | '.join(cells)} |\n"

    head = line([f"h{column}" for column in range(columns)]) + line(["---"] * columns)
    return head + "".join(line([f"c{row} {column}" for column in range(columns)]) for row in range(rows))


def step(app: MeteredApplication, work: Callable[[], object]) -> None:
    """Do ``work`` as an event would have it done: timed in one piece."""
    wall, thread = time.perf_counter(), time.thread_time()
    work()
    app.wall.append((time.perf_counter() - wall) * 1000)
    app.thread.append((time.thread_time() - thread) * 1000)
    wait(1)


def longest(app: MeteredApplication, what: str) -> None:
    """Print the longest step since the last call."""
    print(
        f"  {what:<10} {max(app.wall):7.1f} ms wall, {max(app.thread):7.1f} ms of the thread, {len(app.wall):>6} steps"
    )
    app.wall.clear()
    app.thread.clear()


def main() -> None:
    """Prints two lines for each table."""
    app = MeteredApplication()
    app.setStyle("Fusion")
    app.setFont(body_font())
    app.setPalette(palette(LIGHT))
    app.setStyleSheet(style_sheet(LIGHT))
    for columns, rows in TABLES:
        text = table(columns, rows)
        view = Transcript(LIGHT)
        view.resize(760, 900)
        view.show()
        view.show_messages([MessageRow("w", "assistant", "Fonts are loaded **once**.\n\n" + table(2, 2), STATS)])
        wait(300)
        print(f"{columns} columns, {rows} rows, {len(text):,} characters")
        app.is_metering = True
        row = MessageRow("r", "assistant", text, STATS)
        step(app, partial(view.show_messages, [row]))
        wait(500)
        longest(app, "opened")
        bar = view.findChild(type(view._column)).verticalScrollBar()
        while bar.value() > 0:
            step(app, partial(bar.setValue, max(0, bar.value() - 600)))
        longest(app, "scrolled")
        head, rest = text[:-STREAMED], text[-STREAMED:]
        view.show_messages([MessageRow("s", "assistant", head, is_complete=False)])
        view.begin_reply("s")
        wait(500)
        app.wall.clear()
        app.thread.clear()
        for at in range(0, len(rest), PIECE):
            view.append_text("s", rest[at : at + PIECE])
            QApplication.processEvents()
        view.finish_reply("s", STATS)
        wait(200)
        longest(app, "streamed")
        app.is_metering = False
        view.close()
        view.deleteLater()
        wait(50)


if __name__ == "__main__":
    main()
