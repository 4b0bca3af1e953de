"""The app's side of the engine: spawns the worker process, talks to it, notices its death, ends it. No Qt.

One thread owns the process and both ends of every decision; callers only put wishes in a queue and never wait.
What happens is told through ``on_event``, called on that thread: the worker's events, and the three of this module.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from multiprocessing.connection import Connection, wait
from pathlib import Path

from kvdesk.backend.engine import crash_report
from kvdesk.backend.engine.engine_event import BUSY, Died, EngineEvent, EngineState, FellBack, StateChanged
from kvdesk.backend.engine.pipe_writer import PipeWriter
from kvdesk.backend.engine.pulse import PATIENCE_S, START_PATIENCE_S, URGENT_PATIENCE_S, Pulse
from kvdesk.backend.processes.engine_process import worker_main
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.settings import EngineSettings
from kvdesk.backend.system import huge_pages
from kvdesk.backend.system.cgroup import memory_groups
from kvdesk.backend.system.child_process import ChildProcess
from kvdesk.errors import EngineDied, EngineError
from kvdesk.shown_text import shown_text

log = logging.getLogger(__name__)

EXIT_WAIT_S = 5.0
"""How long an engine that was asked to leave may take before it is terminated."""
TERMINATE_WAIT_S = 2.0
"""How long a terminated one may take before it is killed."""
STOP_WAIT_S = 20.0
"""How long a stop may take, of an engine that answers, before it counts as hung."""
LOGS_KEPT = 20
"""Per-run engine logs that are kept."""


_DOING = {
    EngineState.STARTING: "starting",
    EngineState.EMPTY: "idle",
    EngineState.LOADING: "loading the model",
    EngineState.WARMING: "trying its first computation",
    EngineState.READY: "idle",
    EngineState.GENERATING: "writing a reply",
    EngineState.CHANGING: "changing the context",
    EngineState.MEASURING: "measuring its speed",
}


class Engine:
    """One engine process at a time. All methods return at once unless they say otherwise; any thread."""

    def __init__(
        self,
        on_event: Callable[[EngineEvent], None],
        log_dir: Path,
        snapshots: m.SnapshotPlace | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """``snapshots``: where the cells of conversations are kept, None for nowhere. ``environment`` is set in the child before it loads llama.cpp (CUDA_VISIBLE_DEVICES, GGML_*)."""
        self._on_event = on_event
        self._log_dir = log_dir
        self._snapshots = snapshots
        self._environment = environment or {}
        self.margin_bytes = m.Load.margin_bytes
        """What the engine should leave free; told to it with the next load."""
        self._wishes: queue.SimpleQueue[m.Command | None] = queue.SimpleQueue()
        self._wake_out, self._wake_in = multiprocessing.Pipe(duplex=False)
        self._state = EngineState.STOPPED
        self._process: ChildProcess | None = None
        self._pipe: Connection | None = None
        self._writer: PipeWriter | None = None
        self._pulse: Pulse | None = None
        self._log_path = log_dir / "engine.log"
        self._loading: m.Load | None = None
        self._warm_up_fault: EngineDied | None = None
        """Of the first try, while a second one without repacked weights is under way."""
        self._rpc_servers: set[str] = set()
        self._request_id = 0
        self._behind: collections.deque[tuple[EngineState, int]] = collections.deque()
        self._stop_sent: float | None = None
        self._oom_kills = 0
        self._leaving = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # --- wishes -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> EngineState:
        """The engine's state, as of the last event that was passed on."""
        return self._state

    @property
    def pid(self) -> int | None:
        """Of the engine process, while there is one."""
        process = self._process
        return process.pid if process else None

    @property
    def log_path(self) -> Path:
        """llama.cpp's log of this run."""
        return self._log_path

    def load(self, path: Path, settings: EngineSettings, template: m.TemplateChoice = m.OWN_TEMPLATE) -> None:
        """Load a model, after what is under way; starts the process when there is none. Ends in Loaded, Failed or Died."""
        self._wish(m.Load(str(path), settings, self._snapshots, self.margin_bytes, template))

    def send(self, command: m.Command) -> None:
        """Any other command; it waits behind what is under way. One that makes no sense then is answered with Failed."""
        self._wish(command)

    def stop(self) -> None:
        """Abort what is under way and what waits behind it; what is sent afterwards is not concerned."""
        self._wish(m.Stop())

    def shutdown(self) -> None:
        """End the process (ask, wait, terminate, kill) and this object. Waits until it is gone."""
        self._leaving = True
        self._wish(None)
        self._thread.join(EXIT_WAIT_S + 2 * TERMINATE_WAIT_S + 1)

    def _wish(self, command: m.Command | None) -> None:
        self._wishes.put(command)
        with contextlib.suppress(OSError):
            self._wake_in.send_bytes(b".")

    # --- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            sources: list[object] = [self._wake_out]
            process = self._process
            if process and self._pipe:
                sources += [self._pipe, process.sentinel]
            ready = wait(sources, timeout=1.0)  # type: ignore[arg-type]
            if self._pipe in ready:
                self._receive()
            # A process that was started since may have been given the sentinel's number of the one that just ended.
            is_gone = process is self._process and process is not None and process.sentinel in ready
            if is_gone and not (self._pipe and self._pipe.poll()):
                self._on_process_gone()
            if self._wake_out in ready:
                self._wake_out.recv_bytes()
                if self._take_wish() is None:
                    self._end()
                    return
            self._check_hang()

    def _take_wish(self) -> m.Command | None:
        command = self._wishes.get()
        if command is None:
            return None
        if isinstance(command, m.Load):
            self._loading, self._warm_up_fault = command, None
            self._let_go_of_workers(set(command.settings.model.rpc_servers))
            try:
                self._start()
            except EngineError as error:
                self._tell(m.Failed("EngineError", str(error), model_kept=False))
                return command
        if isinstance(command, m.Stop):
            if self._state not in BUSY:
                return command
            self._stop_sent = self._stop_sent or time.monotonic()
        self._forward(command)
        if isinstance(command, m.Stop | m.Unload) and self._pulse and self._pulse.has_spoken:
            self._ping(URGENT_PATIENCE_S)
        return command

    def _let_go_of_workers(self, wanted: set[str]) -> None:
        """End a process that knows network workers which are not ``wanted``: llama.cpp cannot forget a device and would
        put layers of the next model there."""
        if not self._rpc_servers <= wanted:
            self._end()
        self._rpc_servers = wanted

    def _forward(self, command: m.Command) -> None:
        if not self._writer:
            if isinstance(command, m.GrowAnswer):
                return  # the question has died with the process that asked it
            request_id = getattr(command, "request_id", 0)
            self._tell(m.Failed("EngineError", "No model is loaded; open one first.", request_id, model_kept=False))
            return
        becomes: dict[type[m.Command], EngineState] = {
            m.Load: EngineState.LOADING,
            m.Generate: EngineState.GENERATING,
            m.SetContext: EngineState.CHANGING,
            m.Measure: EngineState.MEASURING,
        }
        self._writer.send(command)
        if type(command) in becomes:
            self._behind.append((becomes[type(command)], getattr(command, "request_id", 0)))
            if self._state not in BUSY:
                self._begin_next()

    def _begin_next(self) -> None:
        state, self._request_id = self._behind.popleft()
        self._move(state)

    def _start(self) -> None:
        if self._process:
            return
        self._log_path = self._log_dir / f"engine-{datetime.now().astimezone():%Y%m%d-%H%M%S-%f}.log"
        with contextlib.suppress(OSError):
            for old in sorted(self._log_dir.glob("engine-*.log"))[:-LOGS_KEPT]:
                old.unlink(missing_ok=True)
        self._oom_kills = _oom_kills()
        self._process = ChildProcess(
            worker_main,
            "kvdesk engine",
            str(self._log_path),
            self._environment,
            environment=huge_pages.environment(),
        )
        self._pipe = self._process.connection
        self._writer = PipeWriter(self._pipe)
        self._pulse = Pulse()
        self._pulse.asked(time.monotonic(), START_PATIENCE_S)
        self._move(EngineState.STARTING)

    def _receive(self) -> None:
        assert self._pipe
        try:
            event: m.Event = self._pipe.recv()
        except (EOFError, OSError):
            self._on_process_gone()
            return
        if isinstance(event, m.Pong | m.Started) and self._pulse:
            self._pulse.answered()
        if isinstance(event, m.Pong):
            return
        if isinstance(event, m.Loaded) and self._warm_up_fault and self._loading:
            self._tell(FellBack(self._loading.settings, self._warm_up_fault))
            self._warm_up_fault = None
        self._follow(event)
        self._tell(event)

    def _follow(self, event: m.Event) -> None:
        """Move the state as ``event`` says."""
        match event:
            case m.Started() if self._state is EngineState.STARTING:
                self._move(EngineState.EMPTY)
            case m.LoadProgress():
                self._move(EngineState.LOADING)
            case m.Warming():
                self._move(EngineState.WARMING)
            case m.Loaded() | m.TurnFinished() | m.Measured():
                self._rest(EngineState.READY)
            case m.ContextMade() if self._state is EngineState.CHANGING:
                self._rest(EngineState.READY)  # otherwise cells were converted to make room for a running reply
            case m.Unloaded():
                self._rest(EngineState.EMPTY)
            case m.Failed():
                if self._state in BUSY and event.request_id in (0, self._request_id):  # else: of a count of tokens
                    self._rest(EngineState.READY if event.model_kept else EngineState.EMPTY)
            case _:
                pass

    def _rest(self, state: EngineState) -> None:
        """What was under way has ended; what waits behind it is begun by the process at once."""
        self._stop_sent = None
        self._request_id = 0
        if self._behind:
            self._begin_next()
        else:
            self._move(state)

    def _move(self, state: EngineState) -> None:
        before, self._state = self._state, state
        if before is not state:
            self._tell(StateChanged(before, state, self.pid))

    def _tell(self, event: EngineEvent) -> None:
        try:
            self._on_event(event)
        except Exception:
            log.exception("a listener failed on %s", type(event).__name__)

    # --- the end ------------------------------------------------------------------------------------------------

    def _on_process_gone(self, *, hung: bool = False) -> None:
        """The process is gone (or is hung and killed now): say why, and try once more if it was the warm-up."""
        assert self._process
        if hung:
            self._process.kill()
        self._process.wait(TERMINATE_WAIT_S)
        during, request_id = self._state, self._request_id
        error = crash_report.explain(
            self._process.exit_code,
            read_log(self._log_path),
            _DOING.get(during, "working"),
            oom_killed=_oom_kills() > self._oom_kills,
            hung=hung,
        )
        log.warning("engine %s: %s", self._process.pid, error)
        self._release()
        self._request_id, self._stop_sent = 0, None
        self._behind.clear()
        loading = self._loading
        is_first_try = loading is not None and loading.settings.model.use_extra_bufts and self._warm_up_fault is None
        if loading and is_first_try and during is EngineState.WARMING and crash_report.is_computing_fault(error):
            self._warm_up_fault = error
            model = replace(loading.settings.model, use_extra_bufts=False)
            self._loading = replace(loading, settings=replace(loading.settings, model=model))
            try:
                self._start()
            except EngineError as no_second_try:
                log.warning("%s", no_second_try)
            else:
                self._forward(self._loading)
                return
        self._warm_up_fault = None
        self._move(EngineState.DIED)
        self._tell(Died(error, during, request_id, self._log_path))

    def _release(self) -> None:
        if self._writer and self._pipe and self._writer.close():
            self._pipe.close()
        if self._process:
            self._process.release()
        self._process = self._pipe = self._writer = self._pulse = None

    def _check_hang(self) -> None:
        now = time.monotonic()
        if self._pulse:
            self._pulse.look(now)
            if self._pulse.is_due(now):
                self._ping()
        is_silent = self._pulse is not None and self._pulse.is_lost(now)
        is_deaf = self._stop_sent is not None and now - self._stop_sent > STOP_WAIT_S
        if self._process and (is_silent or is_deaf):
            self._on_process_gone(hung=True)

    def _ping(self, patience_s: float | None = None) -> None:
        """Ask the process whether it hears."""
        if self._pulse and self._writer:
            self._pulse.asked(time.monotonic(), PATIENCE_S if patience_s is None else patience_s)
            self._writer.send(m.Ping())

    def _end(self) -> None:
        """Ask, wait, terminate, wait, kill: named times, and the log says how far it had to go."""
        self._behind.clear()
        process = self._process
        if process and self._writer:
            self._writer.send(m.Shutdown())
            self._drain_until_gone(EXIT_WAIT_S)
            if not process.wait(TERMINATE_WAIT_S):
                log.warning("engine %s did not leave in %s s and is terminated", process.pid, EXIT_WAIT_S)
                process.terminate()
            if not process.wait(TERMINATE_WAIT_S):
                log.warning("engine %s ignored termination and is killed", process.pid)
                process.kill()
                process.wait(TERMINATE_WAIT_S)
            self._release()
        self._move(EngineState.STOPPED)

    def _drain_until_gone(self, timeout_s: float) -> None:
        """Keep taking its last events: a worker blocked on a full pipe could not leave; text in them is not lost."""
        assert self._process and self._pipe
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            ready = wait([self._pipe, self._process.sentinel], timeout=max(0.0, until - time.monotonic()))
            if self._pipe in ready:
                try:
                    self._tell(self._pipe.recv())
                except (EOFError, OSError):
                    return
            elif ready:
                return


def read_log(path: Path, last_bytes: int = 64 * 1024) -> str:
    """The end of a log, as it may be shown; "" when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - last_bytes))
            return shown_text(file.read().decode("utf-8", "replace"))
    except OSError:
        return ""


def _oom_kills() -> int:
    """How many processes the kernel has killed for memory in this process's own control group (the engine is in it); 0 where
    it does not say. The machine's own counter would blame another container's kill on us."""
    groups = memory_groups()
    return (groups[0].oom_kills() or 0) if groups else 0
