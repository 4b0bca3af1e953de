"""llama.cpp's built-in chat templates, by name (llama-chat.cpp). Engine and helper processes only."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from kvdesk.backend.chat_format.chat_format import learn
from kvdesk.backend.chat_format.limited_template import TemplateRefused
from kvdesk.backend.llama.library import lib
from kvdesk.backend.protocol.facts import ChatTurn

_MOST_NAMES = 256


def names() -> tuple[str, ...]:
    """What llama.cpp calls them, e.g. "chatml"."""
    found = (ctypes.c_char_p * _MOST_NAMES)()
    n = lib.llama_chat_builtin_templates(found, _MOST_NAMES)
    return tuple(sorted((found[index] or b"").decode() for index in range(min(n, _MOST_NAMES))))


class BuiltinTemplate:
    """Renders turns as LimitedTemplate does. Thoughts are left out: these templates know none."""

    source = ""
    wants_parts = False

    def __init__(self, name: str) -> None:
        """``name`` is one of ``names()``. Raises TemplateRefused."""
        self._name = name.encode()
        self.render([ChatTurn("user", "")])
        self.format = learn(self)

    def render(self, turns: Sequence[ChatTurn], thinking: str = "auto") -> str:
        """The prompt for the next reply. Raises TemplateRefused."""
        del thinking
        messages = (lib.llama_chat_message * len(turns))(
            *((turn.role.encode(), turn.content.encode("utf-8", "replace")) for turn in turns)
        )
        room = 4096
        while True:
            buffer = ctypes.create_string_buffer(room)
            n = lib.llama_chat_apply_template(self._name, messages, len(turns), True, buffer, room)
            if n < 0:
                raise TemplateRefused(f"llama.cpp has no built-in template {self._name.decode()!r}")
            if n <= room:
                return buffer.raw[:n].decode("utf-8", "replace")
            room = n

    def close(self) -> None:
        """Nothing to free; here so that all templates are used alike."""
