"""A chat template in a process of its own: a hostile or broken one costs two seconds and a sentence, no more. Any thread.

What it does there is template.py's; the limits are processes/template_process.py's.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Sequence

import psutil

from kvdesk.backend.chat_format.chat_format import ChatFormat
from kvdesk.backend.processes import template_process as child
from kvdesk.backend.protocol.facts import ChatTurn
from kvdesk.backend.system.child_process import ChildProcess
from kvdesk.sizes import format_bytes

_LATE_S = 20.0
"""Beyond its own limit, until a process that neither answers nor ends (a computer that swaps) is ended from here."""
_LOOK_S = 0.05
"""How often its memory is looked at, for systems that hold to no limit."""
_SPOKEN = {
    "memory": f"it needs more than {format_bytes(child.MEMORY_BYTES)} of memory",
    "time": f"it takes longer than {child.TIME_S:.0f} seconds",
}


class TemplateRefused(ValueError):
    """The template cannot be used, or not with these turns; the text is its reason."""


class TemplateBeyondLimit(TemplateRefused):
    """It took more time or memory than any real template, or wrote more."""


class LimitedTemplate:
    """Renders turns as ChatTemplate does; ``format`` is what was learned of it. The process ends by itself when it is not needed, and comes back when it is."""

    def __init__(self, source: str, bos_token: str, eos_token: str, idle_s: float = child.IDLE_S) -> None:
        """Try the template out. Raises TemplateRefused; ``bos_token`` and ``eos_token`` are texts."""
        self._arguments = (source, bos_token, eos_token, idle_s)
        self._lock = threading.Lock()
        self._process: ChildProcess | None = None
        with self._lock:
            self.format = ChatFormat.from_json(self._start())

    def render(self, turns: Sequence[ChatTurn], thinking: str = "auto") -> str:
        """The prompt for the next reply. Raises TemplateRefused, also where a system prompt would be left out."""
        wanted = child.request(turns, thinking)
        with self._lock:
            answer = self._ask(wanted) if self._process else None
            if answer is None:
                self._start()
                answer = self._ask(wanted)
            return _told(answer or child.REFUSED + b"its process ended")

    def warm(self) -> None:
        """Have the process there, so that the next rendering need not start it. Raises TemplateRefused."""
        with self._lock:
            if not self._process or not self._process.is_alive:
                self._end()
                self._start()

    def close(self) -> None:
        """End the process now. The next rendering starts another."""
        with self._lock:
            self._end()

    def _start(self) -> str:
        multiprocessing.current_process().daemon = False  # the engine's may have children: they end with the pipe to it
        self._process = process = ChildProcess(child.template_main, "kvdesk template", *self._arguments)
        try:
            return _told(self._answer(process) or child.REFUSED + b"its process ended")
        except TemplateRefused:
            self._end()
            raise

    def _ask(self, wanted: bytes) -> bytes | None:
        """The answer; None if the process had ended for lack of requests. Raises TemplateBeyondLimit."""
        assert self._process
        with contextlib.suppress(OSError):  # how it ended is seen when reading
            self._process.connection.send_bytes(wanted)
        return self._answer(self._process)

    def _answer(self, process: ChildProcess) -> bytes | None:
        try:
            self._wait(process)
            return process.connection.recv_bytes()
        except (EOFError, OSError):
            process.wait(_LATE_S)
            ended_itself = process.exit_code == 0
        except TemplateBeyondLimit:
            self._end()
            raise
        self._end()
        if ended_itself:
            return None
        raise TemplateBeyondLimit(_SPOKEN["time"])

    def _wait(self, process: ChildProcess) -> None:
        """Until there is an answer or an end. Raises TemplateBeyondLimit."""
        until = time.monotonic() + child.TIME_S + _LATE_S
        while not process.connection.poll(_LOOK_S):
            if time.monotonic() > until:
                raise TemplateBeyondLimit(_SPOKEN["time"])
            with contextlib.suppress(psutil.Error):
                if process.pid and psutil.Process(process.pid).memory_info().rss > child.MEMORY_BYTES:
                    raise TemplateBeyondLimit(_SPOKEN["memory"])

    def _end(self) -> None:
        if self._process:
            self._process.end(0.0)
        self._process = None


def _told(answer: bytes) -> str:
    """The text of an answer. Raises TemplateRefused with what it says instead."""
    text = answer[1:].decode("utf-8", "surrogatepass")
    match answer[:1]:
        case child.TEXT:
            return text
        case child.BEYOND_LIMIT:
            raise TemplateBeyondLimit(_SPOKEN[text])
        case _:
            raise TemplateRefused(text)
