"""What watching costs: monitor and recorder together, in processor time and memory, their cadence while every core and the
interpreter lock are busy, the size of an hour on disk, and the opening of a 12-hour session. Prints a table.

    python -m tests.bench.monitor_cost [--seconds 30]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

INTERVAL_S = 0.5
MIB = 1024 * 1024

BURN = "while True: sum(range(1000))"
ENGINE = """
import sys
block = bytearray(1 << 30)
block[::4096] = b"1" * len(block[::4096])
print("ready", flush=True)
sys.stdin.read()
"""


def main() -> None:
    """Measure in this process, which therefore imports nothing of kvdesk before its own size is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    seconds = parser.parse_args().seconds
    engine = subprocess.Popen([sys.executable, "-c", ENGINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert engine.stdin is not None
    assert engine.stdout is not None
    engine.stdout.readline()
    with tempfile.TemporaryDirectory() as folder:
        try:
            watch(Path(folder), engine.pid, seconds)
        finally:
            engine.stdin.close()
            engine.wait()
        reading(Path(folder))


def watch(folder: Path, engine_pid: int, seconds: float) -> None:
    """A 1 GiB engine, watched: first on a machine at rest, then with every core and this process's lock taken."""
    before = resident_bytes()
    from kvdesk.backend.protocol.facts import KvState
    from kvdesk.backend.session_log.recorder import Recorder
    from kvdesk.backend.system.machine import Machine
    from kvdesk.backend.system.monitor import Monitor

    times: list[float] = []
    monitor = Monitor(Machine().read, INTERVAL_S)
    monitor.set_engine(engine_pid)
    monitor.set_kv(KvState(1000, 8192, 8 * MIB, 64 * MIB))
    monitor.set_predicted([("RAM", 1 << 30)])
    monitor.add_callback(lambda sample: times.append(sample.monotonic_s))
    recorder = Recorder(folder, "window", "bench")
    monitor.add_callback(recorder.sample)
    monitor.start()
    threading.Event().wait(2)
    n_before, processor_s = len(times), time.process_time()
    threading.Event().wait(seconds)
    processor_s = time.process_time() - processor_s
    show("processor time, of one core", f"{100 * processor_s / seconds:.2f} %", "under 1 %")
    show("the same, a sample", f"{1000 * processor_s / (len(times) - n_before):.2f} ms", "")
    show("memory", f"{(resident_bytes() - before) / MIB:.1f} MiB", "under 15 MiB")
    show("cadence at rest, worst", f"{1000 * jitter(times):.1f} ms", "under 50 ms")

    times.clear()
    burners = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(os.cpu_count() or 1)]
    threading.Event().wait(seconds)
    show("cadence, every core at work, worst", f"{1000 * jitter(times):.1f} ms", "under 50 ms")
    times.clear()
    done = threading.Event()
    threading.Thread(target=hold_the_lock, args=(done,), daemon=True).start()
    threading.Event().wait(seconds)
    done.set()
    show("cadence, the interpreter lock taken too, worst", f"{1000 * jitter(times):.1f} ms", "")
    for burner in burners:
        burner.kill()
        burner.wait()
    monitor.stop()
    recorder.close()


def reading(folder: Path) -> None:
    """Twelve hours of one GPU, made up, written and read."""
    from kvdesk.backend.session_log.export import export
    from kvdesk.backend.session_log.reader import open_session
    from kvdesk.backend.session_log.recorder import Recorder
    from tests.fakes.made_up_session import sample

    for gpu in (False, True):
        recorder = Recorder(folder, "window", "bench")
        for i in range(86_400):
            recorder.sample(sample(i, gpu=gpu, state="generating" if i % 50 < 25 else "ready"))
            if i % 5000 == 0:
                recorder.flush(60)
        recorder.close(timeout_s=60)
        size = recorder.path.stat().st_size / 12 / 1e6
        show(f"an hour on disk, RAM{' and a GPU' if gpu else ''}", f"{size:.2f} MB", "about 1 MB")
    import numpy as np  # noqa: F401  the window has it already

    opened: list[float] = []
    for _ in range(5):
        begun = time.perf_counter()
        session = open_session(recorder.path)
        assert session.columns.time_s.size == 86_400
        opened.append(time.perf_counter() - begun)
    show("12 hours opened, arrays made", f"{1000 * median(opened):.0f} ms", "under 500 ms")
    raw = recorder.path.read_bytes()
    recorder.path.write_bytes(raw[: len(raw) * 9 // 10])
    begun = time.perf_counter()
    assert open_session(recorder.path).damaged
    show("the same, truncated at 90 %", f"{1000 * (time.perf_counter() - begun):.0f} ms", "")
    for kind in ("csv", "jsonl", "md"):
        begun = time.perf_counter()
        export(session, kind, folder / f"log.{kind}")
        show(f"12 hours exported as {kind}", f"{time.perf_counter() - begun:.1f} s", "")


def hold_the_lock(until: threading.Event) -> None:
    """Python at work in this process, as a window that draws and highlights."""
    while not until.is_set():
        sum(range(10_000))


def jitter(times: list[float]) -> float:
    """The largest distance of a sample from the steady grid that the first one began."""
    return max(abs(one - times[0] - INTERVAL_S * round((one - times[0]) / INTERVAL_S)) for one in times)


def resident_bytes() -> int:
    """This process's own resident size."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS")


def show(what: str, figure: str, goal: str) -> None:
    """One line of the table."""
    print(f"{what:<46} {figure:>12}   {goal}", flush=True)


if __name__ == "__main__":
    main()
