"""Finds out what of code blocks is a keyword, a string, ..., in a process of its own, and gives up a text that takes too long.

Any thread. The process starts with the first block and ends when none has come for a while; what it does is
processes/lexer_process.py's.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from array import array
from collections.abc import Callable

import psutil

from kvdesk.backend.code_spans import CodeAnswer, CodeQuestion
from kvdesk.backend.processes.lexer_process import lexer_main
from kvdesk.backend.system.child_process import ChildProcess
from kvdesk.errors import EngineError

GIVE_UP_S = 0.2
"""Processor time for the shortest text once its language's lexer is there; of the clock's time a busy machine takes more."""
GIVE_UP_S_PER_CHAR = 1e-5
"""And a longer one more: real code takes about a microsecond a character."""
START_S = 20.0
"""Until the process has started and compiled a lexer, on a busy machine; and the longest that any text may take."""
_LOOK_S = 0.05
"""How often the process is asked for the time it has used."""
IDLE_S = 30.0
REMEMBERED = 256
"""Texts that were given up, so that scrolling past one does not try it again."""


class CodeLexer:
    """``on_answered`` is called on its thread, in the order of the questions."""

    def __init__(self, on_answered: Callable[[CodeAnswer], None]) -> None:
        self._on_answered = on_answered
        self._questions: queue.Queue[CodeQuestion | None] = queue.Queue()
        self._given_up: dict[int, None] = {}
        self._process: ChildProcess | None = None
        self._thread: threading.Thread | None = None

    def ask(self, question: CodeQuestion) -> None:
        """Have the text looked at."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="code lexer", daemon=True)
            self._thread.start()
        self._questions.put(question)

    def close(self) -> None:
        """End thread and process; what was asked is not answered any more. A later question starts both again."""
        if self._thread:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._questions.get_nowait()
            self._questions.put(None)
            if process := self._process:
                process.kill()  # it may be in a step that does not end
            self._thread.join()
            self._thread, self._questions = None, queue.Queue()

    # --- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                question = self._questions.get(timeout=IDLE_S)
            except queue.Empty:
                self._end()
                continue
            if question is None:
                self._end()
                return
            key = hash((question.language, question.text))
            numbers = array("I") if key in self._given_up else self._numbers(question.language, question.text)
            if numbers is None:
                self._given_up[key] = None
                if len(self._given_up) > REMEMBERED:
                    del self._given_up[next(iter(self._given_up))]
            self._on_answered(CodeAnswer(question.request_id, numbers or array("I")))

    def _numbers(self, language: str, text: str) -> array[int] | None:
        """None: the text takes too long, or the process died of it."""
        try:
            self._process = process = self._process or ChildProcess(lexer_main, "kvdesk lexer")
        except EngineError:  # no process to be had: the code stays plain
            return None
        found: array[int] | None = None
        with contextlib.suppress(EOFError, OSError):
            process.connection.send_bytes(json.dumps([language, text]).encode("utf-8", "surrogatepass"))
            if process.connection.poll(START_S):
                process.connection.recv_bytes()
                if _answers(process, GIVE_UP_S + GIVE_UP_S_PER_CHAR * len(text)):
                    found = array("I", process.connection.recv_bytes())
        if found is None:
            self._end()
        return found

    def _end(self) -> None:
        if self._process:
            self._process.end(0.0)
            self._process = None


def _answers(process: ChildProcess, processor_s: float) -> bool:
    """Whether an answer comes before the process has used ``processor_s`` of processor time for it."""
    try:
        used = psutil.Process(process.pid).cpu_times
        until_s, until = sum(used()[:2]) + processor_s, time.monotonic() + START_S
        while not process.connection.poll(_LOOK_S):
            if sum(used()[:2]) > until_s or time.monotonic() > until:
                return False
    except psutil.Error:  # it has ended
        return False
    return True
