"""A thread that takes Samples at a steady cadence and hands them to callbacks.

It knows neither engine nor recorder: ``ui/shell/application.py`` and ``cli.py`` join them. Callbacks run in the monitor's thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from kvdesk.backend.protocol.facts import Buffer, Device, KvState
from kvdesk.backend.settings import AUTOMATIC_MARGIN
from kvdesk.backend.system.samples import MachineReading, Sample

log = logging.getLogger(__name__)

Read = Callable[[int | None, Sequence[Device], Sequence[Buffer]], MachineReading]
"""``Machine.read``: engine pid, the engine's devices, llama.cpp's buffers."""


class Monitor:
    """Samples every ``interval_s`` seconds from ``start`` to ``stop``.

    The setters may be called from any thread: each swaps one attribute, and the next sample has it. A reading or a
    callback that fails is logged once, and the cadence goes on.
    """

    def __init__(self, read: Read, interval_s: float = 0.5) -> None:
        self._read = read
        self._interval_s = interval_s
        self._callbacks: tuple[Callable[[Sample], None], ...] = ()
        self._engine_pid: int | None = None
        self._devices: tuple[Device, ...] = ()
        self._buffers: tuple[Buffer, ...] = ()
        self._kv: KvState | None = None
        self._tokens_per_second: float | None = None
        self._state = ""
        self._predicted: tuple[tuple[str, int], ...] | None = None
        self._must_hold: tuple[tuple[str, int], ...] = ()
        self._margin_bytes = AUTOMATIC_MARGIN
        self._latest: Sample | None = None
        self._reported: set[str] = set()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    @property
    def latest(self) -> Sample | None:
        """The last sample; None before the first."""
        return self._latest

    def held(self) -> dict[str, int | None]:
        """What the engine holds in each domain by the last sample (bytes; None: it cannot be told)."""
        return {domain.name: domain.engine_bytes for domain in self._latest.domains} if self._latest else {}

    def add_callback(self, callback: Callable[[Sample], None]) -> None:
        """``callback`` gets every further sample, in the monitor's thread; it must return at once."""
        self._callbacks = (*self._callbacks, callback)

    def remove_callback(self, callback: Callable[[Sample], None]) -> None:
        """``callback`` gets no further sample; harmless when it was never added."""
        self._callbacks = tuple(known for known in self._callbacks if known != callback)

    def set_engine(self, pid: int | None) -> None:
        """The engine runs as process ``pid``; None: there is none, and what belonged to it is forgotten."""
        self._engine_pid = pid
        if pid is None:
            self._kv, self._tokens_per_second, self._buffers = None, None, ()

    def set_devices(self, devices: Sequence[Device]) -> None:
        """The engine's device list (messages.Started); call again whenever it is listed anew."""
        self._devices = tuple(devices)

    def set_buffers(self, buffers: Sequence[Buffer]) -> None:
        """llama.cpp's own accounting (messages.ContextFacts)."""
        self._buffers = tuple(buffers)

    def set_kv(self, kv: KvState | None) -> None:
        """Occupancy of the KV cache."""
        self._kv = kv

    def set_speed(self, tokens_per_second: float | None) -> None:
        """Tokens a second of the reply under way; None when there is none."""
        self._tokens_per_second = tokens_per_second

    def set_state(self, state: str) -> None:
        """The engine's state in the app's word for it."""
        self._state = state

    def set_predicted(
        self, predicted_bytes: Sequence[tuple[str, int]] | None, must_hold_bytes: Sequence[tuple[str, int]] = ()
    ) -> None:
        """(domain name, bytes at the full context length) pairs, and the part of them that must be held; None when nothing
        is predicted."""
        self._predicted = None if predicted_bytes is None else tuple(predicted_bytes)
        self._must_hold = tuple(must_hold_bytes)

    def set_margin(self, margin_bytes: int) -> None:
        """What the OOM line keeps free in each domain."""
        self._margin_bytes = margin_bytes

    def start(self) -> None:
        """Begin, with a sample at once; harmless when running."""
        if self._thread is None:
            self._stopping = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(self._stopping,), name="monitor", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End; no callback runs after this returns, unless it is a callback that calls it. Harmless when stopped."""
        thread, self._thread = self._thread, None
        self._stopping.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def sample(self) -> Sample:
        """Read now, in the caller's thread; the callbacks do not get it."""
        time_s, monotonic_s, pid = time.time(), time.monotonic(), self._engine_pid
        return Sample(
            time_s,
            monotonic_s,
            self._read_machine(pid),
            pid,
            self._kv,
            self._tokens_per_second,
            self._state,
            self._predicted,
            self._margin_bytes,
            self._must_hold,
        )

    def _read_machine(self, pid: int | None) -> MachineReading:
        try:
            return self._read(pid, self._devices, self._buffers)
        except Exception as error:  # noqa: BLE001  whatever it is, the chart goes on with unknowns
            self._report("Reading memory", error)
            return MachineReading()

    def _run(self, stopping: threading.Event) -> None:
        begin, tick = time.monotonic(), 0
        while not stopping.wait(max(0.0, begin + tick * self._interval_s - time.monotonic())):
            self._latest = sample = self.sample()
            for callback in self._callbacks:
                try:
                    callback(sample)
                except Exception as error:  # noqa: BLE001  one listener's fault is not the others'
                    self._report(f"A listener of the monitor ({callback!r})", error)
            tick = next_tick(tick, time.monotonic() - begin, self._interval_s)

    def _report(self, what: str, error: Exception) -> None:
        if what not in self._reported:
            self._reported.add(what)
            log.warning("%s failed; this is said once", what, exc_info=error)


def next_tick(tick: int, elapsed_s: float, interval_s: float) -> int:
    """Which sample comes after sample ``tick``, ``elapsed_s`` after the start; it is due ``interval_s`` times its number.

    Ticks lie on an absolute grid, so lateness never adds up; those missed (a suspended machine) are skipped.
    """
    return max(tick + 1, int(elapsed_s / interval_s) + 1)
