"""The engine process: takes commands from the pipe, works them off one by one, sends events. No Qt, no storage.

Threads: the main one owns model and context and is in llama.cpp most of the time; the reader takes commands off the
pipe at once, so that a stop never waits for a decode; the counter counts tokens, with the vocabulary alone. When the app is gone, the pipe ends and so does this process.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from kvdesk.backend.processes.compute_threads import share_processors
from kvdesk.backend.processes.output import print_to
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.settings import ContextSettings
from kvdesk.errors import ContextFailed, EngineError, KvdeskError, LoadCancelled, PromptTooLong

if TYPE_CHECKING:
    from kvdesk.backend.llama.abort_flag import AbortFlag
    from kvdesk.backend.llama.kv.conversation_cells import ConversationCells
    from kvdesk.backend.llama.model import Model
    from kvdesk.backend.llama.prompt import Prompt
    from kvdesk.backend.llama.snapshot_cache import SnapshotCache

IDLE_S = 5.0
"""After this long without a command the open conversation's cells are kept: what a crash later can cost."""
UNFORESEEN = "The engine failed in a way that was not foreseen; its log has the details."
PROGRESS_STEP = 0.01
"""Load progress goes up in steps of one percent."""


def worker_main(connection: Connection, log_path: str, environment: dict[str, str]) -> None:
    """Entry of the engine process. Everything it or llama.cpp prints, and a fault's stack, goes to ``log_path``."""
    os.environ.update(environment)
    share_processors()
    print_to(log_path, append=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C in a terminal is the app's to answer
    EngineProcess(connection).run()
    sys.stderr.flush()
    os._exit(0)  # model and context are freed; finalizing an interpreter with a thread in a read can hang


class EngineProcess:
    """One model and one session at most."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._inbox: queue.SimpleQueue[tuple[int, m.Command]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[m.GrowAnswer] = queue.SimpleQueue()
        self._stopping = threading.Lock()
        self._n_received = 0
        self._n_stopped = 0
        self._counts: queue.SimpleQueue[m.CountTokens] = queue.SimpleQueue()
        self._vocabulary = threading.Lock()
        """Held while the counter uses the vocabulary, and to replace it."""
        self._model: Model | None = None
        self._prompt: Prompt | None = None
        self._session: ConversationCells | None = None
        self._keeper: SnapshotCache | None = None
        self._request_id = 0
        self._abort: AbortFlag

    def run(self) -> None:
        """Work until Shutdown or until the app is gone."""
        from kvdesk.backend.llama import library
        from kvdesk.backend.llama.abort_flag import AbortFlag

        self._abort = AbortFlag()
        library.start()
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        threading.Thread(target=self._count, name="counter", daemon=True).start()
        self._send(
            m.Started(os.getpid(), library.devices(), library.system_info(), library.has_rpc(), library.backends())
        )
        while True:
            try:
                number, command = self._inbox.get(timeout=IDLE_S)
            except queue.Empty:
                self._keep()
                continue
            with self._stopping:
                if number > self._n_stopped:
                    self._abort.clear()
            if isinstance(command, m.Shutdown):
                self._unload()
                return
            self._guarded(command)

    # --- the pipe -----------------------------------------------------------------------------------------------

    def _send(self, event: m.Event) -> None:
        with self._sending:
            try:
                self._connection.send(event)
            except (BrokenPipeError, ConnectionError):
                os._exit(0)  # the app is gone: nobody is left to work for

    def _read(self) -> None:
        while True:
            try:
                command: m.Command = self._connection.recv()
            except (EOFError, OSError):
                os._exit(0)  # from a thread, at once: the main thread may be deep in a decode
            match command:
                case m.Stop():
                    self._stop()
                case m.Ping():
                    self._send(m.Pong())
                case m.CountTokens():
                    self._counts.put(command)
                case m.GrowAnswer():
                    self._answers.put(command)
                case _:
                    if isinstance(command, m.Shutdown):
                        self._stop()
                    self._n_received += 1
                    self._inbox.put((self._n_received, command))

    def _stop(self) -> None:
        """End all that was received so far: what is under way at its next look at the flag, what waits at its first.
        What comes after it takes the flag down when its turn comes."""
        with self._stopping:
            self._n_stopped = self._n_received
            self._abort.set()

    def _count(self) -> None:
        """Count what was asked about last, as a prompt and plainly; older questions that still wait are passed over."""
        while True:
            waiting = [self._counts.get()]
            while not self._counts.empty():
                waiting.append(self._counts.get())
            for command in {one.is_plain: one for one in waiting}.values():
                try:
                    with self._vocabulary:
                        n = self._counted(command)
                except Exception as error:  # noqa: BLE001 - one question is not worth the process
                    traceback.print_exc()
                    sentence = str(error) if isinstance(error, KvdeskError) else UNFORESEEN
                    self._send(m.Failed("EngineError", sentence, command.request_id))
                else:
                    self._send(m.TokensCounted(command.request_id, n))
            self._warm()

    def _warm(self) -> None:
        """Somebody types: have the template's process there for what is sent next. What goes wrong is said then."""
        with contextlib.suppress(KvdeskError, ValueError), self._vocabulary:
            if self._prompt:
                self._prompt.warm()

    def _counted(self, command: m.CountTokens) -> int:
        if self._prompt is None:
            return 0
        if command.is_plain:
            return sum(self._prompt.count(turn.content) for turn in command.turns)
        return len(self._prompt.tokens(command.turns))

    # --- commands -----------------------------------------------------------------------------------------------

    def _guarded(self, command: m.Command) -> None:
        """Run ``command``; whatever goes wrong becomes one Failed event and the process lives on."""
        request_id = getattr(command, "request_id", 0)
        try:
            self._run(command)
        except KvdeskError as error:
            self._let_go_if_lost()
            self._send(
                m.Failed(
                    kind=type(error).__name__,
                    sentence=str(error),
                    request_id=request_id,
                    asked_bytes=error.asked_bytes if isinstance(error, ContextFailed) else None,
                    model_kept=self._session is not None,
                    prompt_tokens=error.prompt_tokens if isinstance(error, PromptTooLong) else 0,
                    n_ctx=error.n_ctx if isinstance(error, PromptTooLong) else 0,
                )
            )
        except Exception:  # noqa: BLE001 - a bug of ours must not take the conversation's cells with it
            traceback.print_exc()
            self._let_go_if_lost()
            self._send(m.Failed("EngineError", UNFORESEEN, request_id, model_kept=self._session is not None))

    def _let_go_if_lost(self) -> None:
        """Without a context there is nothing to chat with: give the weights' memory back too."""
        if self._session and self._session.is_lost:
            self._unload()

    def _run(self, command: m.Command) -> None:
        match command:
            case m.Load():
                self._load(command)
            case m.SetContext():
                self._set_context(command.settings)
            case m.Generate():
                self._generate(command)
            case m.Measure():
                self._measure(command)
            case m.Unload():
                self._unload()
                self._send(m.Unloaded())
            case _:
                raise EngineError(f"{type(command).__name__} is no command.")

    def _load(self, command: m.Load) -> None:
        from kvdesk.backend.gguf.model_file import read_model_file
        from kvdesk.backend.llama import library
        from kvdesk.backend.llama.kv.conversation_cells import ConversationCells
        from kvdesk.backend.llama.model import Model, check_accepted
        from kvdesk.backend.llama.prompt import Prompt, check_known
        from kvdesk.backend.llama.snapshot_cache import SnapshotCache

        if self._abort.is_set():
            raise LoadCancelled("The load was cancelled.")  # before what is loaded is freed
        started = time.monotonic()
        file = read_model_file(Path(command.path))
        file.check_loadable()
        file.check_can_chat()
        check_known(command.template.builtin)
        if self._model:
            check_accepted(command.path, command.settings.model)  # before what is loaded is freed
        self._unload()
        shown = -1.0

        def progress(fraction: float) -> None:
            nonlocal shown
            if fraction - shown >= PROGRESS_STEP or fraction >= 1.0:
                shown = fraction
                self._send(m.LoadProgress(fraction))

        model = Model(command.path, command.settings.model, progress, self._abort, file.positions)
        try:
            file.check_unchanged()
            model.require_chat()
            model.give_back_pages(file.tensors)
            session = ConversationCells(model, command.settings.context, self._abort)
        except KvdeskError:
            model.close()
            raise
        self._model = model
        with self._vocabulary:
            self._prompt = Prompt(model, template=command.template.source, builtin=command.template.builtin)
        self._session = session
        session.is_memory_short = lambda: _is_short(command.margin_bytes)
        if command.snapshots:
            self._keeper = SnapshotCache(command.snapshots, file.part_paths)
        session.on_grown = lambda step: self._send(m.Grown(step, session.facts("moved", step.ms)))
        session.on_changed = lambda how, ms: self._send(m.ContextMade(session.facts(how, ms)))
        self._send(m.Warming())
        session.context.warm_up()
        facts = model.facts(template_problem=self._prompt.problem)
        elapsed_ms = (time.monotonic() - started) * 1000
        self._send(m.Loaded(facts, session.facts(), elapsed_ms, library.devices()))

    def _keep(self) -> None:
        """Save the open conversation's cells, if there is a place for them."""
        if self._keeper and self._session:
            self._keeper.keep(self._session)

    def _unload(self) -> None:
        self._keep()
        if self._keeper:
            self._keeper.close()
        self._keeper = None
        if self._session:
            self._session.close()
        with self._vocabulary:
            if self._prompt:
                self._prompt.close()
            self._prompt = None
            if self._model:
                self._model.close()
        self._session = self._model = None

    def _ready(self) -> tuple[ConversationCells, Prompt]:
        if not self._session or not self._prompt:
            raise EngineError("No model is loaded; open one first.")
        return self._session, self._prompt

    def _set_context(self, settings: ContextSettings) -> None:
        from kvdesk.backend.llama.kv.growth_question import Cancelled

        session, _ = self._ready()
        if self._keeper:
            self._keeper.settle()  # as before growing
        started = time.monotonic()
        total = len(session.tokens)
        try:
            how = session.change(settings, lambda done: self._send(m.PromptProgress(0, done, total, 0)))
        except Cancelled:
            raise EngineError("The change was cancelled; the old settings are back.") from None
        self._send(m.ContextMade(session.facts(how, (time.monotonic() - started) * 1000)))

    def _generate(self, command: m.Generate) -> None:
        from kvdesk.backend.llama.turn import Turn

        session, prompt = self._ready()
        self._request_id = command.request_id
        Turn(session, prompt, self._keeper, command, self._send, self._ask_growth).run()

    def _measure(self, command: m.Measure) -> None:
        from kvdesk.backend.llama.measure import measure

        session, _ = self._ready()
        self._send(measure(session, command, self._send))

    def _ask_growth(self, at_tokens: int, from_cells: int, to_cells: int, failed: str) -> m.GrowAnswer:
        """Ask the app whether the context may grow and wait for its word; a stop is a no."""
        session, _ = self._ready()
        if self._keeper:
            self._keeper.settle()  # the price of a step knows no second copy of cells
        while not self._answers.empty():
            self._answers.get()  # nobody waits for it any more
        self._send(m.GrowWanted(self._request_id, at_tokens, from_cells, to_cells, session.settings, failed))
        while not self._abort.is_set():
            with contextlib.suppress(queue.Empty):
                return self._answers.get(timeout=0.05)
        return m.GrowAnswer("stop")


def _is_short(margin_bytes: int) -> bool:
    """Whether less than the margin can still be had, in RAM or on a device."""
    from kvdesk.backend.llama import library
    from kvdesk.backend.settings import kept_free
    from kvdesk.backend.system.cgroup import memory_groups
    from kvdesk.backend.system.machine import read_ram

    ram = read_ram(groups=memory_groups())
    domains = [(ram.available_bytes, ram.capacity_bytes), *((d.free_bytes, d.total_bytes) for d in library.devices())]
    return any(free is not None and free < kept_free(margin_bytes, capacity) for free, capacity in domains)
