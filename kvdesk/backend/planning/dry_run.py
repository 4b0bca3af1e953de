"""Asks llama.cpp itself what a configuration would allocate, in a helper process that may die. Parent side.

Blocking calls, for one thread at a time (planner.py's, or the command line's). Answers are kept, so asking twice costs
nothing. When the helper dies or hangs on a question, PlanError says so and the next question starts a new one.
"""

from __future__ import annotations

import signal
import tempfile
from dataclasses import replace
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from kvdesk import paths
from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.processes.dry_run_process import Answer, Subject, TryRepacking, helper_main
from kvdesk.backend.protocol.footprint import Footprint
from kvdesk.backend.settings import EngineSettings
from kvdesk.backend.system.child_process import ChildProcess, signal_name
from kvdesk.backend.system.temporary_folder import temporary_folder
from kvdesk.errors import EngineError, PlanError, SettingsError

ANSWER_TIMEOUT_S = 30.0
"""Longest wait for one answer; the slowest seen is a second, over a slow network worker."""
END_TIMEOUT_S = 2.0
KILLS = frozenset(-number for number in (signal.SIGTERM, getattr(signal, "SIGKILL", 0), signal.SIGINT) if number)
"""Exit codes of a process that somebody else ended; the system short of memory too."""


class HelperDiedError(PlanError):
    """llama.cpp took its process down with the question; the same settings would take the engine down."""


class DryRun:
    """One model, priced by a helper process that starts with the first question and stays warm until ``let_go``."""

    def __init__(self, model_file: ModelFile, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._subject = Subject(
            part_paths=model_file.part_paths,
            architecture=model_file.architecture,
            n_vocab=model_file.n_vocab or embedding_rows(model_file),
            tensors=model_file.tensors,
            loadable=model_file.is_complete,
        )
        self._missing = model_file.missing_parts
        self._timeout_s = timeout_s
        self._process: ChildProcess | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._rpc_servers: tuple[str, ...] = ()
        self._repacking_works: bool | None = None
        self._known: dict[EngineSettings, Footprint | SettingsError | HelperDiedError] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.let_go()

    @property
    def pid(self) -> int | None:
        """The helper's process id while it lives: what it holds on a GPU is not another program's. Any thread."""
        process = self._process  # another thread may end it meanwhile
        return process.pid if process and process.is_alive else None

    def ask(self, settings: EngineSettings) -> Footprint:
        """What ``settings`` would allocate.

        Raises SettingsError when llama.cpp refuses them, HelperDiedError when it dies of them, and PlanError when it cannot
        plan: no answer came, or the file is none that it can open.
        """
        key = relevant(settings)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._ask_helper(key)
        if not isinstance(known, Footprint):
            raise known
        return replace(known, settings=settings)

    def repacking_works(self) -> bool:
        """Whether this CPU survives llama.cpp's repacked weights; tried in the helper, which may die of it. Kept."""
        if self._repacking_works is None:
            try:
                connection = self._start(self._rpc_servers)
                connection.send(TryRepacking())
                self._receive(connection)
                self._repacking_works = True
            except PlanError:
                return True  # no answer in time: nothing is known
            except (EOFError, OSError):
                if not self._is_fault():
                    return True
                self._repacking_works = False
        return self._repacking_works

    def let_go(self) -> None:
        """End the helper; answers stay known. Waits until it is gone."""
        process, self._process = self._process, None
        if process:
            process.end(END_TIMEOUT_S)
        if self._folder:
            self._folder.cleanup()
            self._folder = None

    def _ask_helper(self, settings: EngineSettings) -> Footprint | SettingsError | HelperDiedError:
        if self._missing:
            raise PlanError(f"{self._missing[0].name} is missing, so llama.cpp cannot plan this model.")
        if settings.model.rpc_servers != self._rpc_servers:
            self.let_go()  # devices cannot be taken back from a process
        answer = None
        if self.pid is not None:
            try:
                answer = self._answer(settings)
            except (EOFError, OSError):
                self.let_go()  # perhaps someone else killed it while it waited: a fresh one shall show
        if answer is None:
            try:
                answer = self._answer(settings)
            except (EOFError, OSError):
                words, code = self._end_words()
                if code in KILLS:
                    raise PlanError(f"The planning process was ended from outside ({words}).") from None
                return HelperDiedError(f"llama.cpp fails with these settings of this model ({words}).")
        if answer.footprint:
            return answer.footprint
        if answer.refusal:
            return SettingsError(answer.refusal)
        raise PlanError(answer.failure)

    def _answer(self, settings: EngineSettings) -> Answer:
        connection = self._start(settings.model.rpc_servers)
        connection.send(settings)
        return self._receive(connection)

    def _start(self, rpc_servers: tuple[str, ...]) -> Connection:
        if self._process and self.pid is not None:
            return self._process.connection
        self.let_go()
        try:
            self._folder = temporary_folder("plan")
        except OSError as error:
            words = error.strerror or type(error).__name__
            raise PlanError(
                f"There is no room for a plan's temporary files in {tempfile.gettempdir()} ({words})."
            ) from error
        log_path = str(paths.log_dir() / "dry-run.log")
        try:
            self._process = ChildProcess(
                helper_main, "kvdesk-dry-run", log_path, self._subject, self._folder.name, rpc_servers
            )
        except EngineError as error:
            raise PlanError(str(error)) from error
        self._rpc_servers = rpc_servers
        return self._process.connection

    def _receive(self, connection: Connection) -> Answer:
        self._wait(connection)
        return connection.recv()

    def _wait(self, connection: Connection) -> None:
        if not connection.poll(self._timeout_s):
            self._kill()
            raise PlanError(f"llama.cpp gave no plan within {self._timeout_s:.0f} s.")

    def _kill(self) -> None:
        if self._process:
            self._process.kill()
        self.let_go()

    def _is_fault(self) -> bool:
        """Whether the helper that has just ended did so of a fault of its own."""
        return self._end_words()[1] not in (None, 0, *KILLS)

    def _end_words(self) -> tuple[str, int | None]:
        """How the helper ended, and its exit code where it is known."""
        code: int | None = None
        if self._process:
            self._process.wait(END_TIMEOUT_S)
            code = self._process.exit_code
        self.let_go()
        if name := signal_name(code):
            return f"its process was ended by {name}", code
        return ("its process ended" if code is None else f"its process ended with code {code}"), code


def relevant(settings: EngineSettings) -> EngineSettings:
    """``settings`` less what does not change what is allocated, so that answers are found again."""
    return replace(settings, context=replace(settings.context, n_threads=1, allocation="reserve", initial_ctx=2048))


def embedding_rows(model_file: ModelFile) -> int:
    """Rows of the token embedding: the vocabulary's size where the file does not hold it; 0 where it has neither."""
    return next((tensor.shape[1] for tensor in model_file.tensors if tensor.name == "token_embd.weight"), 0)
