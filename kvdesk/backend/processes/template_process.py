"""The process a chat template runs in, which may die of it: bounded in time and memory. Imports no llama.cpp.

Answers requests off a pipe, one by one; ends when the pipe does, after a while without requests, or when a limit is hit.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import jinja2

from kvdesk.backend.protocol.facts import ChatTurn

if TYPE_CHECKING:
    from kvdesk.backend.chat_format.template import ChatTemplate

TIME_S = 2.0
"""For reading the template and trying it out, and for each rendering; real ones take milliseconds."""
MEMORY_BYTES = 512 * 1024 * 1024
"""Of this process, which takes about 25 MiB with a real template."""
IDLE_S = 10.0
"""Without a request for this long the process ends, and its memory is free; it starts again in about 0.1 s."""
_REASON_CHARS = 500
"""Of what a template may say of its own when it refuses."""
TEXT, REFUSED, BEYOND_LIMIT = b"t", b"r", b"l"
"""First byte of an answer: what follows is the text, the template's reason, or which limit was hit."""


def template_main(connection: Connection, source: str, bos_token: str, eos_token: str, idle_s: float) -> None:
    """Entry of the process: first what was learned of the template (ChatFormat), then an answer to each request."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit_memory()
    template: list[ChatTemplate] = []

    def read() -> str:
        from kvdesk.backend.chat_format.chat_format import learn
        from kvdesk.backend.chat_format.template import ChatTemplate

        template.append(ChatTemplate(source, bos_token, eos_token))
        return learn(template[0]).to_json()

    with contextlib.suppress(EOFError, OSError):  # nobody waits for an answer any more
        connection.send_bytes(_answer(read))
        while template and connection.poll(idle_s):
            asked, thinking = json.loads(connection.recv_bytes())
            turns = [ChatTurn(*turn) for turn in asked]
            connection.send_bytes(_answer(lambda turns=turns, thinking=thinking: template[0].render(turns, thinking)))


def request(turns: Sequence[ChatTurn], thinking: str) -> bytes:
    """What ChatTemplate.render takes, as it is asked for."""
    return json.dumps([[(turn.role, turn.content, turn.thought) for turn in turns], thinking]).encode()


def _limit_memory() -> None:
    """Where the system has such a limit (not on Windows, and macOS does not hold to it) an allocation beyond it fails."""
    if sys.platform != "win32":
        import resource

        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(work: Callable[[], str]) -> bytes:
    """What ``work`` returns, or why it failed, in bytes. A thread that needs no interpreter ends the process in time."""
    faulthandler.dump_traceback_later(TIME_S, exit=True)
    try:
        return TEXT + work().encode("utf-8", "surrogatepass")
    except MemoryError:
        return BEYOND_LIMIT + b"memory"
    except RecursionError:
        return REFUSED + b"it calls itself without end"
    except jinja2.TemplateSyntaxError as error:
        return REFUSED + f"line {error.lineno}: {error.message}".encode("utf-8", "replace")
    except Exception as error:  # noqa: BLE001 - a template is a program of the file's author: anything may be raised
        return REFUSED + (str(error) or type(error).__name__)[:_REASON_CHARS].encode("utf-8", "replace")
    finally:
        faulthandler.cancel_dump_traceback_later()
