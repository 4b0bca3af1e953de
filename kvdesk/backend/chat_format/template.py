"""A model's own chat template: turns in, prompt text out, and the template's habits learned by asking it. Pure.

Templates are programs of the file's author: they run in Jinja's sandbox, with the names that Transformers and llama.cpp
(common/chat.cpp) give them. What a template does not define stays undefined, as there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kvdesk.backend.protocol.facts import ChatTurn

_PROBE = ("kvdesk-system", "kvdesk-question", "kvdesk-answer", "kvdesk-next")
_PROBE_TURNS = (ChatTurn("user", _PROBE[1]), ChatTurn("assistant", _PROBE[2]), ChatTurn("user", _PROBE[3]))

SWITCHES: Mapping[str, Mapping[str, Any]] = {
    "auto": {"enable_thinking": True},
    "on": {"enable_thinking": True, "thinking": True, "reasoning": True, "thinking_mode": "enabled"},
    "off": {
        "enable_thinking": False,
        "thinking": False,
        "reasoning": False,
        "thinking_mode": "disabled",
        "thinking_budget": 0,
        "reasoning_effort": "low",
    },
}
"""The names that templates know for thinking or not: most use the first, then DeepSeek and Granite, Cohere, MiniMax, Seed,
gpt-oss. A template ignores names that it does not know."""
MOST_CHARACTERS = 8_000_000
"""Of one prompt: far more than any context holds."""


class _Generation(Extension):
    """``{% generation %}``: marks for training what the assistant says; its body is text like any other."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Parse the ``generation`` tag as if it were not there: its body alone is rendered."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """Renders turns. Raises jinja2.TemplateError or whatever else a template raises when it cannot."""

    EXTENSIONS: Sequence[str | type[Extension]] = ("jinja2.ext.loopcontrols", _Generation)

    def __init__(self, source: str, bos_token: str, eos_token: str) -> None:
        """Compile ``source`` and ask it what it wants; the tokens are their texts."""
        environment: Any = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=self.EXTENSIONS
        )
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_raise, strftime_now=_strftime_now)
        self.source = source
        self._template: jinja2.Template = environment.from_string(source)
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._extra: dict[str, Any] = {}
        self.wants_parts = False
        self._learn()

    def _learn(self) -> None:
        """Ask with trial turns: which names it needs, and whether content is text or a list of typed parts."""
        try:
            trial = self._render(_PROBE_TURNS)
        except jinja2.UndefinedError:  # templates made for tools alone read these without asking whether they exist
            self._extra = {"tools": None, "functions": "[]", "datetime": _strftime_now("%d %B %Y")}
            trial = self._render(_PROBE_TURNS)
        if _PROBE[3] not in trial:
            self.wants_parts = True
            if _PROBE[3] not in self._render(_PROBE_TURNS):
                raise ValueError("it leaves out what the user says")

    def render(self, turns: Sequence[ChatTurn], thinking: str = "auto") -> str:
        """The prompt for the next reply. ``thinking`` is one of sampling.THINKING. Thoughts of earlier replies are handed over apart: it is the template's to show
        them or not. Raises ValueError when the template leaves a system prompt out."""
        text = self._render(turns, thinking)
        for turn in turns:
            if turn.role == "system" and turn.content.strip() and turn.content.strip() not in text:
                raise ValueError("it leaves out the system prompt")
        return text

    def _render(self, turns: Sequence[ChatTurn], thinking: str = "auto") -> str:
        messages = [self._message(turn) for turn in turns]
        text = self._template.render(
            messages=messages, add_generation_prompt=True, **SWITCHES[thinking], **self._tokens, **self._extra
        )
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"it writes more than {MOST_CHARACTERS:,} characters")
        return text

    def _message(self, turn: ChatTurn) -> dict[str, Any]:
        content = [{"type": "text", "text": turn.content}] if self.wants_parts else turn.content
        message: dict[str, Any] = {"role": turn.role, "content": content}
        if turn.thought:  # DeepSeek's and Qwen's name, and gpt-oss's
            message |= {"reasoning_content": turn.thought, "thinking": turn.thought}
        return message


def _to_json(value: Any, indent: int | None = None, **_options: Any) -> str:
    """Transformers' filter: unlike Jinja's own it escapes no HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> str:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)
