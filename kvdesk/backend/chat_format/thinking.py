"""Tells a model's thinking from its answer, token by token, by the marks that this model's template knows. Pure.

The table of marks is what the templates in llama.cpp's models/templates write around thoughts; a model gets those of them
that its own template has, so that an answer which happens to look like a mark of another model stays an answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

THINK = ("<think>", "</think>")
PAIRS: tuple[tuple[str, str], ...] = (
    THINK,
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<think:opensource>", "</think:opensource>"),
    ("<|channel>thought", "<channel|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    ("<|think|>", "<|end|>"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
)
"""What opens a thought, and what closes it."""
ANSWER_MARKS = (
    "<|begin|>assistant<|content|>",
    "<|content|>",
    "<|open|>response<|sep|>",
    "<|START_RESPONSE|>",
    "<|START_TEXT|>",
    "<response>",
)
"""What begins the answer; dropped."""
HARMONY = ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>")
"""The control tokens of gpt-oss's format: a reply is messages, each with a channel that says for whom it is."""
HARMONY_THOUGHT = ("<|channel|>analysis<|message|>", "<|end|>")
HARMONY_ANSWER = "<|end|><|start|>assistant<|channel|>final<|message|>"
"""What ends a thought and begins the answer."""
_HARMONY_HEADER = re.compile(
    r"\s*(?:<\|start\|>)?(?:assistant)?[^<]*(?:<\|channel\|>([^<]*)(?:<\|constrain\|>[^<]*)?)*<\|message\|>"
)
_LONGEST_HEADER = 400
"""Characters after which what looks like a header of a message is none."""


@dataclass(frozen=True)
class Marks:
    """The marks of one model: pairs around thoughts, marks before answers, and whether it writes gpt-oss's messages."""

    pairs: tuple[tuple[str, str], ...] = (THINK,)
    answers: tuple[str, ...] = ()
    is_harmony: bool = False

    def all(self) -> tuple[str, ...]:
        """Every mark; where one is a control token it has to be shown to the splitter."""
        harmony = HARMONY if self.is_harmony else ()
        return (*(mark for pair in self.pairs for mark in pair), *self.answers, *harmony)

    def opened_in(self, prompt: str) -> tuple[str, str] | None:
        """The pair whose thought is open at the very end of ``prompt``: the reply begins inside it."""
        end = prompt.rstrip()
        return next((pair for pair in self.pairs if end.endswith(pair[0])), None)


NO_MARKS = Marks()
"""Of a model without a template."""


def marks_in(template: str) -> Marks:
    """The marks that the source of a chat template, with what it renders, shows. ``<think>`` counts for every model: fine
    tunes use it whatever template they were given."""
    pairs = tuple(pair for pair in PAIRS if pair == THINK or all(_shown(mark, template) for mark in pair))
    answers = tuple(mark for mark in ANSWER_MARKS if _shown(mark, template))
    return Marks(pairs, answers, is_harmony="<|channel|>" in template and "<|message|>" in template)


def own_pair(template: str) -> tuple[str, str] | None:
    """The pair that a template itself writes around thoughts, if it knows any."""
    if "<|channel|>" in template and "<|message|>" in template:
        return HARMONY_THOUGHT
    return next((pair for pair in reversed(PAIRS) if all(_shown(mark, template) for mark in pair)), None)


def _shown(mark: str, template: str) -> bool:
    """Whether all parts of ``mark`` are in ``template``, which may put them together itself."""
    parts = [part for part in re.split(r"(<\|?[^<>|]*\|?>)", mark) if part]
    return mark in template or (len(parts) > 1 and all(part in template for part in parts if part.startswith("<")))


ANY_MODEL = Marks(PAIRS, ANSWER_MARKS, is_harmony=True)
"""For texts of which nobody knows what wrote them."""


def split_reply(reply: str, marks: Marks = ANY_MODEL) -> tuple[str, str]:
    """A whole reply as (thought, answer), both without marks; the thought is "" where there is none."""
    splitter = ThinkingSplitter(marks)
    pieces = splitter.feed(reply) + splitter.finish()
    thought = "".join(text for text, is_thinking in pieces if is_thinking)
    return thought.strip(), "".join(text for text, is_thinking in pieces if not is_thinking).strip()


class ThinkingSplitter:
    """Cuts a stream into pieces of thinking and answer.

    A mark counts only where a model puts it: at the start of the reply, or right after thinking ended. A mark that is
    not whole yet is held back, so nobody sees half a mark.
    """

    def __init__(self, marks: Marks, opened: tuple[str, str] | None = None) -> None:
        """``opened``: the pair whose thought the prompt has opened already."""
        self._marks = marks
        self._held = ""
        self._opener, self._closer = opened or ("", "")
        self._at_start = not opened
        self._has_thought = bool(opened)
        self._is_leading = True

    @property
    def is_thinking(self) -> bool:
        """Whether thinking was begun and not ended."""
        return bool(self._closer)

    @property
    def closing(self) -> str:
        """What closes the open thought, so that the answer follows, as this model writes it."""
        return (
            HARMONY_ANSWER if self._closer == HARMONY_THOUGHT[1] and self._marks.is_harmony else f"\n{self._closer}\n\n"
        )

    def feed(self, text: str) -> list[tuple[str, bool]]:
        """The pieces ``(text, is thinking)`` that are certain after ``text``; none of them is empty."""
        self._held += text
        pieces: list[tuple[str, bool]] = []
        while self._held:
            before = self._held, self._closer, self._at_start
            if self._closer:
                self._take_thought(pieces)
            elif self._at_start:
                self._take_mark(pieces)
            else:
                self._take_answer(pieces)
            if (self._held, self._closer, self._at_start) == before:
                break  # more is needed to tell
        return [piece for piece in pieces if piece[0]]

    def finish(self) -> list[tuple[str, bool]]:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return [(held, self.is_thinking)] if held else []

    def _take_thought(self, pieces: list[tuple[str, bool]]) -> None:
        if self._is_leading and self._opener:  # opened by the prompt, and by the model once more
            body = self._held.lstrip()
            if self._opener.startswith(body):
                return
            self._held = body.removeprefix(self._opener)
            self._opener = ""
        at = self._held.find(self._closer)
        if at < 0:
            at = len(self._held) - _overlap(self._held, self._closer)
            self._put(pieces, at, is_thinking=True)
        else:
            self._put(pieces, at, is_thinking=True)
            self._held = self._held[len(self._closer) :]
            self._closer, self._at_start, self._has_thought, self._is_leading = "", True, True, True

    def _take_mark(self, pieces: list[tuple[str, bool]]) -> None:
        body = self._held.lstrip()
        if self._marks.is_harmony and _may_be_header(body):
            self._take_header(pieces, body)
            return
        pair = next((pair for pair in self._marks.pairs if body.startswith(pair[0])), None)
        answer = next((mark for mark in self._marks.answers if body.startswith(mark)), None)
        if pair:
            self._held, self._closer, self._at_start = body[len(pair[0]) :], pair[1], False
            self._begin_thought(pieces)
        elif answer:
            self._held, self._at_start, self._is_leading = body[len(answer) :], False, True
        elif not any(mark.startswith(body) for mark in (*(p[0] for p in self._marks.pairs), *self._marks.answers)):
            self._at_start = False

    def _take_header(self, pieces: list[tuple[str, bool]], body: str) -> None:
        """The head of one of gpt-oss's messages: analysis is a thought, all else is the answer."""
        found = _HARMONY_HEADER.match(body)
        if not found:
            if len(body) > _LONGEST_HEADER:
                self._at_start = False
            return
        self._held, self._at_start, self._is_leading = body[found.end() :], False, True
        if (found[1] or "").split()[:1] == ["analysis"]:
            self._closer = "<|end|>"
            self._begin_thought(pieces)

    def _take_answer(self, pieces: list[tuple[str, bool]]) -> None:
        end = "<|end|>" if self._marks.is_harmony else ""
        at = self._held.find(end) if end else -1
        if at >= 0:  # gpt-oss goes on with another message
            self._put(pieces, at, is_thinking=False)
            self._held, self._at_start = self._held[len(end) :], True
        else:
            self._put(pieces, len(self._held) - (_overlap(self._held, end) if end else 0), is_thinking=False)

    def _begin_thought(self, pieces: list[tuple[str, bool]]) -> None:
        if self._has_thought:
            pieces.append(("\n\n", True))
        self._has_thought = self._is_leading = True

    def _put(self, pieces: list[tuple[str, bool]], end: int, *, is_thinking: bool) -> None:
        """What is held up to ``end`` is certain. Blanks that a mark has left before a text are not part of it."""
        text, self._held = self._held[:end], self._held[end:]
        if self._is_leading and (is_thinking or self._has_thought):
            text = text.lstrip()
        self._is_leading = self._is_leading and not text
        pieces.append((text, is_thinking))


def _may_be_header(body: str) -> bool:
    """Whether ``body`` is the head of one of gpt-oss's messages, or the beginning of one."""
    starts = ("<|start|>", "<|channel|>", "<|message|>")
    return any(body.startswith(start) or start.startswith(body) for start in starts)


def _overlap(text: str, mark: str) -> int:
    """How many characters at the end of ``text`` begin ``mark``."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)


def as_written(thought: str, answer: str, marks: Marks, opened: tuple[str, str] | None) -> list[tuple[str, bool]]:
    """An unfinished reply as this model writes it, to go on with: pieces ``(text, is a mark)``. A thought without an answer
    stays open. ``opened``: the pair that the prompt has opened already."""
    if not thought:
        closed = [(f"\n{opened[1]}\n\n", True)] if opened and answer else []
        return [*closed, (answer, False)] if answer else []
    if marks.is_harmony:
        head, foot = HARMONY_THOUGHT[0], HARMONY_ANSWER
    else:
        pair = opened or marks.pairs[-1]
        head, foot = "" if opened else f"{pair[0]}\n", f"\n{pair[1]}\n\n"
    begun = [(head, True), (thought, False)]
    return [*begun, (foot, True), (answer, False)] if answer else begun
