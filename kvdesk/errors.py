"""The tree of errors a user may see. Errors carry facts; faces (cli, ui) show ``str(error)``.

KvdeskError                 anything with a sentence for a person; ``str()`` is that sentence
├── UsageError              the request itself is wrong (settings, flags); exit code 2
│   └── SettingsError       impossible settings; ``.nearest`` holds the closest possible ones
├── ModelFileError          a file that is no usable model; ``.path``, ``.field`` name the fault
├── EngineError             the engine process failed
│   ├── EngineDied          it is gone; ``.exit_code``, ``.signal_name``, ``.last_words``, ...
│   ├── LoadCancelled       the user stopped the load
│   ├── WorkerBusy          a network worker serves another program
│   ├── ContextFailed       llama.cpp refused or could not allocate a context; ``.asked_bytes``
│   └── PromptTooLong       more tokens than cells; ``.prompt_tokens``, ``.n_ctx``
├── PlanError               the dry run could not answer
├── HubError                a model hub refused, failed or cannot be reached; ``.status``, ``.is_temporary``
└── StoreError              the database cannot be used (newer schema, damaged, disk full)
    └── ConversationGone    it was deleted, perhaps in another window
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class KvdeskError(Exception):
    """Base of all errors whose text is a sentence a person can act on."""


class UsageError(KvdeskError):
    """The request itself is wrong."""


class SettingsError(UsageError):
    """Settings that llama.cpp would refuse; ``nearest`` is the closest that it would take, if any."""

    def __init__(self, sentence: str, nearest: Any = None) -> None:
        super().__init__(sentence)
        self.nearest = nearest


class ModelFileError(KvdeskError):
    """A file that cannot be used as a model. ``field`` names the header field at fault, if one is."""

    def __init__(self, sentence: str, path: Path | None = None, field: str | None = None) -> None:
        super().__init__(sentence)
        self.path = path
        self.field = field


class EngineError(KvdeskError):
    """The engine process failed to do what it was asked."""


class WorkerBusy(EngineError):
    """A network worker serves one program at a time, and another is using it."""


class EngineDied(EngineError):
    """The engine process is gone.

    ``exit_code`` is the process's own (negative: killed by that signal), ``signal_name`` e.g. ``SIGSEGV``,
    ``log_tail`` the last lines of llama.cpp's log, ``last_words`` its last complaint in one line, ``asked_bytes`` the
    allocation that failed and ``free_bytes`` what was free then, where they are known; ``is_out_of_memory`` whether lacking
    memory ended it.
    """

    def __init__(
        self,
        sentence: str,
        exit_code: int | None = None,
        signal_name: str | None = None,
        log_tail: str = "",
        *,
        asked_bytes: int | None = None,
        free_bytes: int | None = None,
        last_words: str = "",
        is_out_of_memory: bool = False,
    ) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
        self.signal_name = signal_name
        self.log_tail = log_tail
        self.asked_bytes = asked_bytes
        self.free_bytes = free_bytes
        self.last_words = last_words
        self.is_out_of_memory = is_out_of_memory


class LoadCancelled(EngineError):
    """The user stopped the load."""


class ContextFailed(EngineError):
    """llama.cpp could not make the context. ``asked_bytes`` is the allocation that failed, if it said so."""

    def __init__(self, sentence: str, asked_bytes: int | None = None) -> None:
        super().__init__(sentence)
        self.asked_bytes = asked_bytes


class PromptTooLong(EngineError):
    """The prompt has more tokens than the context has cells."""

    def __init__(self, sentence: str, prompt_tokens: int, n_ctx: int) -> None:
        super().__init__(sentence)
        self.prompt_tokens = prompt_tokens
        self.n_ctx = n_ctx


class PlanError(KvdeskError):
    """The dry run could not answer."""


class StoreError(KvdeskError):
    """The database cannot be used."""


class ConversationGone(StoreError):
    """The conversation was deleted, perhaps in another window."""

    def __init__(self) -> None:
        super().__init__("This conversation no longer exists; it may have been deleted in another window.")


class HubError(KvdeskError):
    """A model hub refused, failed, or cannot be reached.

    ``status`` is the HTTP status where there was one; ``is_temporary`` when the same request may work a moment later.
    """

    def __init__(self, sentence: str, status: int | None = None, *, is_temporary: bool = False) -> None:
        super().__init__(sentence)
        self.status = status
        self.is_temporary = is_temporary
