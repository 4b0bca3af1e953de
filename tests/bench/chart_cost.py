"""What the live chart and a recorded session cost on screen: milliseconds, no assertions (python tests/bench/chart_cost.py).

Offscreen, raster. "frame" is redrawing and painting a plot of 400 x 190 pixels (live) or 900 x 300 (session).
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, str(Path(__file__).parents[2]))

import psutil
from PySide6.QtWidgets import QApplication

from kvdesk.ui.memory.live_chart import LiveChart
from kvdesk.ui.widgets.style_sheet import style_sheet
from kvdesk.ui.widgets.theme import LIGHT
from tests.fakes import memory_pictures as pictures

HOURS_12 = 86_400


def timed(action: Callable[[], object], times: int) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        took.append((time.perf_counter() - start) * 1000)
    took.sort()
    return statistics.median(took), took[min(len(took) - 1, int(len(took) * 0.99))]


def report(what: str, took: tuple[float, float]) -> None:
    print(f"{what:<58} median {took[0]:7.2f} ms   p99 {took[1]:7.2f} ms")


def rss_mib() -> float:
    return psutil.Process().memory_info().rss / 2**20


def main() -> None:
    app = QApplication([])
    app.setStyleSheet(style_sheet(LIGHT))
    print(f"resident with Qt alone {rss_mib():.0f} MiB")
    chart = LiveChart(LIGHT)
    chart.resize(420, 760)
    chart.show()
    chart.add_sample(pictures.sample(gpu=True))
    app.processEvents()
    print(f"resident with the placeholder {rss_mib():.0f} MiB")
    report("build both plots (imports pyqtgraph)", timed(chart.build_now, 1))
    app.processEvents()
    print(f"resident with plots {rss_mib():.0f} MiB")
    samples = [(replace(s, monotonic_s=s.monotonic_s + 1), cells) for s, cells in pictures.chat(700, gpu=True)]

    def tick(at: list[int] = [0]) -> None:  # noqa: B006
        sample, cells = samples[at[0] % len(samples)]
        at[0] += 1
        chart.show_buffers(pictures.buffers(cells, gpu=True))
        chart.add_sample(replace(sample, monotonic_s=1001.0 + at[0] / 2))
        app.processEvents()

    report("one sample, two domains, drawn (10 minutes in sight)", timed(tick, len(samples)))
    session(app)


def session(app: QApplication) -> None:
    """A made-up 12-hour session straight into a plot, as the session window does."""
    import numpy as np

    from kvdesk.ui.memory.plots.domain_plot import DomainPlot
    from kvdesk.ui.memory.plots.series import SERIES

    times = 1000.0 + np.arange(HOURS_12) / 2
    noise = np.random.default_rng(1).random(HOURS_12)
    rows = np.vstack([(i + 1) * 0.3e9 + noise * 1e8 for i in range(len(SERIES))])
    rows[-1] = 16e9
    plot = DomainPlot(LIGHT)
    plot.resize(900, 300)
    plot.show()

    def open_session() -> None:
        plot.show_rows(1.7e9, times, rows)
        plot.show_all()
        plot.redraw_now()
        app.processEvents()

    report("open 12 hours (86,400 samples) in one plot", timed(open_session, 5))
    position = [0.0]

    def pan() -> None:
        position[0] = (position[0] + 97) % 30_000
        plot.show_range(1000 + position[0], 11_000 + position[0])
        plot.redraw_now()
        plot.viewport().repaint()
        app.processEvents()

    took = timed(pan, 150)
    report("pan a frame, three hours in sight", took)

    def whole() -> None:
        plot.show_range(1000, 1000 + HOURS_12 / 2 + position[0] % 7)
        position[0] += 1
        plot.redraw_now()
        plot.viewport().repaint()
        app.processEvents()

    worst = timed(whole, 60)
    report("a frame with all twelve hours in sight", worst)
    print(f"frames per second: {1000 / took[0]:.0f} panning, {1000 / worst[0]:.0f} with all in sight")
    print(f"resident at the end {rss_mib():.0f} MiB")


if __name__ == "__main__":
    main()
