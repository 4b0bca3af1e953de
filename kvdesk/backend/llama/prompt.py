"""A conversation as tokens: the model's own chat template, or a plain dialogue for base models. Engine process only.

Special tokens in what people write stay text; those of the template keep their meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvdesk.backend.llama.library import lib
from kvdesk.backend.llama.model import Model
from kvdesk.backend.protocol.facts import ChatTurn
from kvdesk.errors import EngineError

_MARK = "\ue000{}\ue001"
"""Stands for a message's content while the template is rendered (private-use characters, in no tokenizer's vocabulary)."""

_TRIAL = (ChatTurn("user", "a"), ChatTurn("assistant", "b"), ChatTurn("user", "c"))


class Prompt:
    """Renders turns for one model. ``stops`` are strings that end a reply, ``problem`` why a template is not used."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._template = None
        self.problem = ""
        self._wants_bos = bool(lib.llama_vocab_get_add_bos(model.vocab)) and lib.llama_vocab_bos(model.vocab) >= 0
        source = model.chat_template()
        if source:
            self._use_template(source)
        self.is_dialogue = self._template is None
        self.stops: tuple[str, ...] = ("\nUser:", "\nAssistant:", "\nSystem:") if self.is_dialogue else ()

    def _use_template(self, source: str) -> None:
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        bos, eos = self._special("bos"), self._special("eos")
        try:
            self._template = Jinja2ChatFormatter(source, eos_token=eos, bos_token=bos)
            self._render_template(_TRIAL)
        except Exception as error:  # noqa: BLE001 - a template is a program of the file's author: anything may be raised
            self._template = None
            self.problem = f"The model's chat template cannot be used ({error}); a plain dialogue is used instead."

    def _special(self, which: str) -> str:
        token = lib.llama_vocab_bos(self._model.vocab) if which == "bos" else lib.llama_vocab_eos(self._model.vocab)
        return self._model.text([token]) if token >= 0 else ""

    def tokens(self, turns: Sequence[ChatTurn], *, continue_last: bool = False) -> list[int]:
        """The prompt for the next reply, or for going on with the last turn's when ``continue_last``.

        Raises EngineError when the template refuses this order of turns.
        """
        text, contents = self.text(turns, continue_last=continue_last)
        return self.tokenize(text, contents)

    def text(self, turns: Sequence[ChatTurn], *, continue_last: bool = False) -> tuple[str, dict[str, str]]:
        """The prompt as text without the start token, and what each mark in it stands for (contents that hold special
        tokens as text)."""
        contents: dict[str, str] = {}
        marked: list[ChatTurn] = []
        for turn in turns:
            content = turn.content
            if self._has_special(content):
                mark = _MARK.format(len(contents))
                contents[mark] = content.strip()
                content = mark
            marked.append(ChatTurn(turn.role, content))
        unfinished = marked.pop().content if continue_last and marked and marked[-1].role == "assistant" else ""
        rendered = self._render_dialogue(marked) if self._template is None else self._render_chat(marked)
        if unfinished:
            rendered += (" " if self.is_dialogue else "") + unfinished
        if self._wants_bos:
            rendered = rendered.removeprefix(self._special("bos"))
        return rendered, contents

    def _has_special(self, content: str) -> bool:
        plain = self._model.tokenize(content, add_special=False, parse_special=False)
        return plain != self._model.tokenize(content, add_special=False, parse_special=True)

    def tokenize(self, text: str, contents: dict[str, str]) -> list[int]:
        """Template text with its special tokens, contents without. The start token comes first, once, if the vocabulary
        wants one; an end token never does: a prompt is an open text."""
        tokens: list[int] = [lib.llama_vocab_bos(self._model.vocab)] if self._wants_bos else []
        for mark, content in contents.items():
            before, _, text = text.partition(mark)
            tokens += self._model.tokenize(before, add_special=False, parse_special=True)
            tokens += self._model.tokenize(content, add_special=False, parse_special=False)
        return tokens + self._model.tokenize(text, add_special=False, parse_special=True)

    @staticmethod
    def _render_dialogue(turns: Sequence[ChatTurn]) -> str:
        names = {"user": "User", "assistant": "Assistant"}
        lines = [
            turn.content.strip() + "\n" if turn.role == "system" else f"{names[turn.role]}: {turn.content.strip()}"
            for turn in turns
        ]
        return "\n".join([*lines, "Assistant:"])

    def _render_chat(self, turns: Sequence[ChatTurn]) -> str:
        try:
            return self._render_template(turns)
        except Exception:  # noqa: BLE001 - many templates know no system role: try once more without one
            try:
                return self._render_template(_without_system(turns))
            except Exception as error:
                raise EngineError(f"The model's chat template refuses this conversation: {error}.") from error

    def _render_template(self, turns: Sequence[ChatTurn]) -> str:
        assert self._template is not None
        return self._template(messages=[{"role": t.role, "content": t.content} for t in turns]).prompt  # type: ignore[typeddict-item]


def _without_system(turns: Sequence[ChatTurn]) -> list[ChatTurn]:
    """The turns with the system prompt put before the first user message, and equal roles in a row joined."""
    system = "\n\n".join(t.content for t in turns if t.role == "system")
    joined: list[ChatTurn] = []
    for turn in turns:
        if turn.role == "system":
            continue
        content = turn.content
        if system and turn.role == "user":
            content, system = f"{system}\n\n{content}", ""
        if joined and joined[-1].role == turn.role:
            joined[-1] = ChatTurn(turn.role, f"{joined[-1].content}\n\n{content}")
        else:
            joined.append(ChatTurn(turn.role, content))
    return joined
