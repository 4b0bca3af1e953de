"""The process behind ``kvdesk template``: loads a model's vocabulary alone, renders one prompt, tells one reply apart.

It may die of a hostile file (llama.cpp aborts); commands/template.py sees that and says so.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from kvdesk.backend.chat_format.chat_format import ChatFormat
from kvdesk.backend.processes.output import print_to
from kvdesk.backend.protocol.facts import ChatTurn
from kvdesk.errors import KvdeskError, UsageError

if TYPE_CHECKING:
    from kvdesk.backend.chat_format.thinking import ThinkingSplitter
    from kvdesk.backend.llama.model import Model
    from kvdesk.backend.llama.prompt import Prompt


@dataclass(frozen=True)
class RenderPrompt:
    """``template`` is Jinja source, or "" for the model's own; ``builtin`` a name of llama.cpp's or prompt.PLAIN. ``reply``
    is a raw reply to this prompt, if one is to be told apart."""

    path: str
    turns: tuple[ChatTurn, ...]
    template: str = ""
    builtin: str = ""
    thinking: str = "auto"
    reply: bytes | None = None


@dataclass(frozen=True)
class Rendered:
    """The prompt's ``text`` and ``tokens``, what was learned of the format, and sentences about it.

    With a reply: what of it is thought, what the answer, and what ended it ("" if nothing did)."""

    text: str
    tokens: tuple[int, ...]
    format: ChatFormat
    warnings: tuple[str, ...]
    thought: str = ""
    answer: str = ""
    ended_by: str = ""


@dataclass(frozen=True)
class NotRendered:
    """The answer where no prompt could be made: the error says why."""

    error: KvdeskError


def prompt_main(connection: Connection, log_path: str, question: RenderPrompt) -> None:
    """Entry of the process: sends Rendered or NotRendered. What llama.cpp prints goes to ``log_path``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print_to(log_path)
    try:
        connection.send(_render(question))
    except KvdeskError as error:
        connection.send(NotRendered(error))


def _render(question: RenderPrompt) -> Rendered:
    from kvdesk.backend.llama.builtin_template import names
    from kvdesk.backend.llama.model import Model
    from kvdesk.backend.llama.prompt import PLAIN, Prompt
    from kvdesk.backend.settings import ModelSettings

    model = Model(question.path, ModelSettings(), vocabulary_only=True)
    model.require_vocabulary()
    if question.builtin and question.builtin not in (PLAIN, *names()):
        raise UsageError(
            f"There is no file and no built-in template {question.builtin!r}; built in are: {', '.join((PLAIN, *names()))}."
        )
    prompt = Prompt(model, template=question.template, builtin=question.builtin)
    text, contents, splitter = prompt.text(question.turns, thinking=question.thinking)
    shown = prompt.start_text
    for mark, content in contents.items():
        text = text.replace(mark, content)
    thought, answer, ended_by = _told_apart(model, prompt, splitter, question.reply)
    tokens = tuple(prompt.tokens(question.turns, thinking=question.thinking))
    prompt.close()
    return Rendered(shown + text, tokens, prompt.format, _warnings(prompt, question), thought, answer, ended_by)


def _told_apart(model: Model, prompt: Prompt, splitter: ThinkingSplitter, reply: bytes | None) -> tuple[str, str, str]:
    from kvdesk.backend.chat_format.reply_reader import ReplyReader

    if reply is None:
        return "", "", ""
    ends = {model.text([token]) for token in range(model.n_vocab) if model.is_end(token)}
    reader = ReplyReader(splitter, [*(end for end in ends if end), *prompt.format.ends], (), strips=prompt.is_dialogue)
    pieces = reader.feed(reply) + reader.finish()
    thought, answer = ("".join(text for text, thinks in pieces if thinks is which) for which in (True, False))
    return thought.strip(), answer, reader.ended_by


def _warnings(prompt: Prompt, question: RenderPrompt) -> tuple[str, ...]:
    said = [prompt.problem] if prompt.problem else []
    if prompt.is_dialogue and not said and not question.builtin:
        said.append("The model has no chat template; a plain dialogue is used.")
    if not prompt.is_dialogue and not prompt.format.system_role and any(t.role == "system" for t in question.turns):
        said.append("The template has no system role; the system prompt is put before the first message.")
    return tuple(said)
