"""What a model's chat template makes of a conversation, learned by rendering trial turns with it: one frozen value. Pure."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jinja2
from jinja2 import meta, nodes

from kvdesk.backend.chat_format.template import ChatTemplate
from kvdesk.backend.chat_format.thinking import NO_MARKS, Marks, marks_in, own_pair
from kvdesk.backend.protocol.facts import ChatTurn

_SYSTEM, _QUESTION, _ANSWER, _NEXT = (
    ChatTurn("system", "kvdesk-system"),
    ChatTurn("user", "kvdesk-question"),
    ChatTurn("assistant", "kvdesk-answer"),
    ChatTurn("user", "kvdesk-next"),
)
_MARK = re.compile(r"<[^<>\s]{1,60}>|\[[^\[\]\s]{1,20}[\[\]]")
"""A mark of a template: ``<|im_end|>``, ``</s>``, ``[/INST]``, ``[e~[``."""
_GIVEN = {"messages", "add_generation_prompt", "bos_token", "eos_token", "raise_exception", "strftime_now"}
"""Names that every template gets."""
_JINJA = {"range", "dict", "lipsum", "cycler", "joiner", "namespace"}
"""Names that Jinja itself gives (jinja2.defaults.DEFAULT_NAMESPACE)."""


@dataclass(frozen=True)
class ChatFormat:
    """How one model is spoken to. Without a template (base models) all of it is empty.

    ``ends`` is what a reply ends with, as the template writes it; ``thinking`` the pair around its thoughts, and ``open_at_start``
    whether a prompt leaves one open;
    ``system_role`` whether a system prompt has a place of its own; ``content_parts`` whether content is a list of typed
    parts; ``alternates`` whether roles must take turns; ``variables`` are the names the template asks for.
    """

    marks: Marks = NO_MARKS
    ends: tuple[str, ...] = ()
    thinking: tuple[str, str] | None = None
    open_at_start: bool = False
    system_role: bool = False
    content_parts: bool = False
    alternates: bool = False
    variables: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As it travels from the template's process."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ChatFormat:
        """Read a format back from ``to_json``'s text."""
        values: dict[str, Any] = json.loads(text)
        marks, thinking = values["marks"], values["thinking"]
        return cls(
            marks=Marks(tuple((a, b) for a, b in marks["pairs"]), tuple(marks["answers"]), marks["is_harmony"]),
            ends=tuple(values["ends"]),
            thinking=(thinking[0], thinking[1]) if thinking else None,
            open_at_start=values["open_at_start"],
            system_role=values["system_role"],
            content_parts=values["content_parts"],
            alternates=values["alternates"],
            variables=tuple(values["variables"]),
        )


class Renders(Protocol):
    """A template that can be asked: ChatTemplate, or one that is no Jinja. ``source`` is "" then."""

    source: str
    wants_parts: bool

    def render(self, turns: Sequence[ChatTurn], thinking: str = "auto") -> str: ...


def learn(template: Renders) -> ChatFormat:
    """Ask ``template`` with trial turns. What it refuses to render is what it cannot do."""
    marks = marks_in(template.source)
    prompt = _tried(lambda: template.render([_QUESTION]))
    opened = marks.opened_in(prompt)
    with_system = _tried(lambda: template.render([_SYSTEM, _QUESTION]))
    return ChatFormat(
        marks=marks,
        ends=_ends(template, marks),
        thinking=opened or own_pair(template.source),
        open_at_start=opened is not None,
        system_role=_SYSTEM.content in with_system,
        content_parts=template.wants_parts,
        alternates=not _tried(lambda: template.render([_QUESTION, _NEXT])),
        variables=_variables(template.source),
    )


def _tried(render: Callable[[], str]) -> str:
    try:
        return render()
    except Exception:  # noqa: BLE001 - a template is a program of the file's author: anything may be raised
        return ""


def _ends(template: Renders, marks: Marks) -> tuple[str, ...]:
    """The mark after a reply; where the template has none, how it begins the next message, which the model must not write.

    gpt-oss's messages end with a mark that does not end the reply.
    """
    text = _tried(lambda: template.render([_QUESTION, _ANSWER, _NEXT]))
    _, found, rest = text.partition(_ANSWER.content)
    if not found or marks.is_harmony:
        return ()
    between = rest.partition(_NEXT.content)[0]
    mark = _MARK.match(between.strip())
    if mark:
        return (mark[0],)
    return (between.rstrip(),) if between.strip() else ()


def _variables(source: str) -> tuple[str, ...]:
    """Names that the template reads and that the caller may give: not those it only makes for itself."""
    tree = jinja2.Environment(extensions=ChatTemplate.EXTENSIONS, autoescape=True).parse(source)  # nothing is rendered
    made = {name.name for name in tree.find_all(nodes.Name) if name.ctx in ("store", "param")}
    asked = {
        test.node.name
        for test in tree.find_all((nodes.Test, nodes.Filter))
        if test.name in ("defined", "undefined", "default") and isinstance(test.node, nodes.Name)
    }
    return tuple(
        sorted(
            name for name in meta.find_undeclared_variables(tree) - _GIVEN - _JINJA if name not in made or name in asked
        )
    )
