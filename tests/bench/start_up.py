"""From the start of the process to the window on screen, and what the window's process holds at rest.

    python -m tests.bench.start_up [--rounds 5] [--rest 8]

Each round is a process of its own. The clock starts before Python does; "shown" is the first paint of the main window.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from statistics import median

MIB = 1024 * 1024


def child(rest_s: float) -> None:
    """The app, painted once; then at rest for a while with the starter loaded; prints both figures."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from kvdesk import log, paths

    log.start(paths.log_dir())
    from PySide6.QtCore import QEvent, QObject, QTimer

    from kvdesk.ui.shell.open_window import make_application
    from kvdesk.ui.shell.start import open_app

    class FirstPaint(QObject):
        """Notes when the window has been painted for the first time."""

        at_s = processor_s = 0.0

        def eventFilter(self, watched: QObject, event: QEvent) -> bool:
            if event.type() == QEvent.Type.Paint and not self.at_s:
                QTimer.singleShot(0, self.note)
            return False

        def note(self) -> None:
            if not self.at_s:
                self.at_s, self.processor_s = time.time(), time.process_time()

    application = make_application()
    painted, apps = FirstPaint(), []
    open_app(application, None, (), apps.append).installEventFilter(painted)

    def finish() -> None:
        import psutil

        memory = psutil.Process().memory_full_info()
        state = apps[0].engine.state.value
        print(painted.at_s, painted.processor_s, memory.rss / MIB, memory.uss / MIB, state, flush=True)
        apps[0].close()

    QTimer.singleShot(int(rest_s * 1000), finish)
    application.exec()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rest", type=float, default=8.0)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.rest)
        return
    from tests.bench.engine_speed import load_words, show

    shown: list[float] = []
    processor: list[float] = []
    resident: list[float] = []
    own: list[float] = []
    with tempfile.TemporaryDirectory() as home:
        kept = {
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": home + "/code",
        }  # warm: compiled once, as installed
        environment = {**os.environ, "KVDESK_HOME": home, **kept}
        for number in range(options.rounds + 1):
            last = number == options.rounds
            rest_s = options.rest if last else 3.0
            begun = time.time()
            command = [sys.executable, "-m", "tests.bench.start_up", "--child", "--rest", str(rest_s)]
            ran = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
            )
            at_s, processor_s, rss, uss, state = ran.stdout.split()
            if number:
                shown.append(float(at_s) - begun)
                processor.append(float(processor_s))
            if last:
                resident.append(float(rss))
                own.append(float(uss))
    print(f"{options.rounds} warm starts; {load_words()}")
    spread = f"{min(shown):.2f} to {max(shown):.2f}"
    show(
        "window shown after a warm start",
        f"{median(shown):.2f} s",
        f"< 1 s ({spread}; processor time {median(processor):.2f} s)",
    )
    show(
        f"window's process at rest, engine {state}",
        f"{resident[0]:.0f} MiB",
        f"< 220 MiB resident ({own[0]:.0f} its own)",
    )


if __name__ == "__main__":
    main()
