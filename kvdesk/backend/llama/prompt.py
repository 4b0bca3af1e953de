"""A conversation as tokens: the model's own chat template, or a plain dialogue for base models. Engine process only.

Special tokens in what people write stay text; those of the template keep their meaning.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import replace

from kvdesk.backend.chat_format.chat_format import ChatFormat
from kvdesk.backend.chat_format.limited_template import LimitedTemplate, TemplateBeyondLimit, TemplateRefused
from kvdesk.backend.chat_format.thinking import ThinkingSplitter, as_written
from kvdesk.backend.llama.builtin_template import BuiltinTemplate, names
from kvdesk.backend.llama.library import lib
from kvdesk.backend.llama.model import Model
from kvdesk.backend.protocol.facts import ChatTurn
from kvdesk.errors import EngineError, SettingsError

_MARK = "\ue000{}\ue001"
"""Stands for a message's content while the template is rendered (private-use characters, in no tokenizer's vocabulary)."""

CONTENTS_KNOWN = 4096
"""Messages whose size is remembered."""
PLAIN = "plain"
"""The plain dialogue of models without a template, by name."""
_MARKS = re.compile("(\ue000[0-9]+\ue001)")
_MARK_SHAPE = re.compile(r"[<\[]\S+[>\]]")
_CUT = "\ue002"
"""Where a content is cut while it is tokenized (as _MARK, in no tokenizer's vocabulary)."""


def check_known(builtin: str) -> None:
    """Raises SettingsError where there is no built-in template of this name; "" is none, and fine."""
    if builtin not in ("", PLAIN, *names()):
        raise SettingsError(
            f"There is no chat template {builtin!r}: no such file, and built in are {', '.join(names())} and {PLAIN}."
        )


class Prompt:
    """Renders turns for one model.

    ``format`` is what was learned of its template, ``problem`` why the template is not used; a reply ends at one of
    ``end_tokens`` or at one of the strings ``ends``, outside of thoughts.
    """

    def __init__(self, model: Model, *, template: str = "", builtin: str = "") -> None:
        """``template`` is Jinja source in place of the model's own, ``builtin`` PLAIN or one of builtin_template.names()."""
        self._model = model
        self._template: LimitedTemplate | BuiltinTemplate | None = None
        self.problem = ""
        self._contents: dict[str, tuple[int, bool]] = {}
        self._knowing = threading.Lock()
        self.format = ChatFormat()
        self._wants_bos = bool(lib.llama_vocab_get_add_bos(model.vocab)) and lib.llama_vocab_bos(model.vocab) >= 0
        source = template or model.chat_template()
        if builtin and builtin != PLAIN:
            self._template = BuiltinTemplate(builtin)
            self.format = self._template.format
        elif source and not builtin:
            self._use_template(source)
        self._own_marks = self._find_own_marks(source)
        self.mark_tokens = self._mark_tokens()
        self.is_dialogue = self._template is None
        self.end_tokens, self.ends = self._find_ends()

    def _use_template(self, source: str) -> None:
        try:
            self._template = LimitedTemplate(source, self._special("bos"), self._special("eos"))
            self.format = self._template.format
            self._template.close()  # what it takes is free again before memory is measured
        except TemplateRefused as error:
            self.problem = f"The model's chat template cannot be used ({error}); a plain dialogue is used instead."

    def _find_own_marks(self, source: str) -> dict[int, str]:
        """Marks of the template that the vocabulary finds in every text (USER_DEFINED tokens, such as Qwen's <think>):
        token -> its text. Those of no mark's shape (runs of blanks, HTML) mean in people's texts what they say."""
        if not self._template:
            return {}
        spelled = {*self._model.tokenize(source, parse_special=True)}
        for mark in self.format.marks.all():
            spelled.update(self._model.tokenize(mark, parse_special=True))
        marks = {token: self._model.text([token]) for token in spelled if self._model.is_user_defined(token)}
        return {token: text for token, text in marks.items() if _MARK_SHAPE.fullmatch(text)}

    def _as_text(self, content: str) -> list[int]:
        """``content`` without special tokens: a mark of the template in it is cut after its first character, so that the
        vocabulary does not find it."""
        parts = [content]
        for mark in self._own_marks.values():
            parts = [piece for part in parts for piece in part.replace(mark, f"{mark[0]}{_CUT}{mark[1:]}").split(_CUT)]
        return [token for part in parts for token in self._model.tokenize(part, parse_special=False)]

    def _mark_tokens(self) -> frozenset[int]:
        """Control tokens that are, or belong to, a mark around thoughts: the splitter is shown them, no other ones."""
        found: set[int] = set()
        for mark in self.format.marks.all():
            tokens = self._model.tokenize(mark, parse_special=True)
            found.update(token for token in tokens if self._model.is_control(token))
        return frozenset(found)

    def _find_ends(self) -> tuple[frozenset[int], tuple[str, ...]]:
        """What ends a reply beside the vocabulary's own end tokens: tokens, and strings where the mark is no token."""
        ends = ("\nUser:", "\nAssistant:", "\nSystem:") if self.is_dialogue else self.format.ends
        spelled = {end: self._model.tokenize(end, parse_special=True) for end in ends}
        tokens = frozenset(
            found[0] for found in spelled.values() if len(found) == 1 and self._model.is_control(found[0])
        )
        return tokens, tuple(end for end, found in spelled.items() if not (len(found) == 1 and found[0] in tokens))

    @property
    def start_text(self) -> str:
        """The start token's text where every prompt begins with one; ``text`` leaves it out."""
        return self._special("bos") if self._wants_bos else ""

    def _special(self, which: str) -> str:
        token = lib.llama_vocab_bos(self._model.vocab) if which == "bos" else lib.llama_vocab_eos(self._model.vocab)
        return self._model.text([token]) if token >= 0 else ""

    def warm(self) -> None:
        """Have the process that renders the template there: somebody types. Any thread."""
        if isinstance(self._template, LimitedTemplate):
            self._template.warm()

    def close(self) -> None:
        """End the process that renders the template."""
        if self._template:
            self._template.close()

    def tokens(self, turns: Sequence[ChatTurn], *, thinking: str = "auto") -> list[int]:
        """The prompt for the next reply. ``thinking`` is one of sampling.THINKING.

        Raises EngineError when the template refuses this order of turns.
        """
        text, contents, _ = self.text(turns, thinking=thinking)
        return self.tokenize(text, contents)

    def text(
        self, turns: Sequence[ChatTurn], *, continue_last: bool = False, held: str = "", thinking: str = "auto"
    ) -> tuple[str, dict[str, str], ThinkingSplitter]:
        """The prompt as text without the start token, what each mark in it stands for (contents that hold special tokens as
        text), and a splitter for the reply that follows. ``held`` is the text that the cells hold: a reply that is gone on
        with is taken from there, to the last blank."""
        contents: dict[str, str] = {}

        def marked(content: str) -> str:
            if not self._has_special(content):
                return content
            mark = _MARK.format(len(contents))
            contents[mark] = content.strip()
            return mark

        turns = list(turns)
        last = turns.pop() if continue_last and turns and turns[-1].role == "assistant" else ChatTurn("assistant", "")
        messages = [ChatTurn(t.role, marked(t.content), marked(t.thought)) for t in turns]
        if self._template:
            rendered = self._render_chat(self._template, messages, thinking)
        else:
            rendered = self._render_dialogue(messages)
        if self._wants_bos:
            rendered = rendered.removeprefix(self._special("bos"))
        opened = self.format.marks.opened_in(rendered)
        if opened and thinking == "off":  # a template that has no switch
            rendered, opened = f"{rendered.rstrip()}\n\n{opened[1]}\n\n", None
        written = as_written(last.thought, last.content, self.format.marks, opened)
        splitter = ThinkingSplitter(self.format.marks, opened)
        if (
            written
            and not contents
            and held.startswith(rendered)
            and self._is_reply(held[len(rendered) :], opened, last)
        ):
            splitter.feed(held[len(rendered) :])
            return held, contents, splitter
        for piece, is_mark in written:
            splitter.feed(piece)
            rendered += " " if self.is_dialogue and rendered.endswith("Assistant:") else ""
            rendered += piece if is_mark else marked(piece)
        return rendered, contents, splitter

    def _is_reply(self, written: str, opened: tuple[str, str] | None, reply: ChatTurn) -> bool:
        """Whether ``written`` is ``reply`` as the model wrote it."""
        splitter = ThinkingSplitter(self.format.marks, opened)
        pieces = splitter.feed(written) + splitter.finish()
        thought, answer = (
            "".join(text for text, is_thinking in pieces if is_thinking is which) for which in (True, False)
        )
        return (thought.strip(), answer.strip()) == (reply.thought.strip(), reply.content.strip())

    def count(self, content: str) -> int:
        """Tokens of ``content`` by itself; remembered. Any thread."""
        return self._known(content)[0] if content else 0

    def _has_special(self, content: str) -> bool:
        return self._known(content)[1]

    def _known(self, content: str) -> tuple[int, bool]:
        """How many tokens ``content`` makes, and whether special tokens are among them when they are parsed: what was said
        stays what it is, so a long conversation costs its newest turns only."""
        with self._knowing:
            known = self._contents.pop(content, None)
        if known is None:
            parsed = self._model.tokenize(content, parse_special=True)
            found = set(parsed)
            has_special = not found.isdisjoint(self._own_marks) or any(map(self._model.is_special, found))
            plain = self._as_text(content) if has_special else parsed
            known = len(plain), has_special
        with self._knowing:
            self._contents[content] = known  # the newest at the end
            if len(self._contents) > CONTENTS_KNOWN:
                del self._contents[next(iter(self._contents))]
        return known

    def tokenize(self, text: str, contents: dict[str, str]) -> list[int]:
        """Template text with its special tokens, contents without. The start token comes first, once, if the vocabulary
        wants one; an end token never does: a prompt is an open text."""
        tokens: list[int] = [lib.llama_vocab_bos(self._model.vocab)] if self._wants_bos else []
        for part in _MARKS.split(text):
            content = contents.get(part)
            tokens += self._model.tokenize(part, parse_special=True) if content is None else self._as_text(content)
        return tokens

    @staticmethod
    def _render_dialogue(turns: Sequence[ChatTurn]) -> str:
        names = {"user": "User", "assistant": "Assistant"}
        lines = [
            turn.content.strip() + "\n" if turn.role == "system" else f"{names[turn.role]}: {turn.content.strip()}"
            for turn in turns
        ]
        return "\n".join([*lines, "Assistant:"])

    def _render_chat(
        self, template: LimitedTemplate | BuiltinTemplate, turns: Sequence[ChatTurn], thinking: str
    ) -> str:
        try:
            try:
                return template.render(turns, thinking)
            except TemplateBeyondLimit:
                raise
            except TemplateRefused:  # many templates know no system role: try once more without one
                return template.render(_without_system(turns), thinking)
        except TemplateRefused as error:
            raise EngineError(f"The model's chat template refuses this conversation: {error}.") from error


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
            joined.append(replace(turn, content=content))
    return joined
