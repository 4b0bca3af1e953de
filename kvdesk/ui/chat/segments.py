"""Cuts a streamed message into segments of prose and code, so that each new token touches only the last, small one.

Decides by line what belongs together; how a segment looks is up to its widget. Pure, no Qt. The result depends on
the text alone, never on the pieces it arrived in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

SOFT_LIMIT = 700
"""Characters from which prose is cut at the next blank line."""
LIST_LIMIT = 1200
"""Characters from which a list is cut between two of its outermost items."""
HARD_LIMIT = 2400
"""Characters from which prose is cut anywhere: about 6 ms of parsing and layout in Qt."""

_FENCE = re.compile(r"^((?: *(?:[-*+]|\d{1,9}[.)]) +)*) *(`{3,}(?=[^`]*$)|~{3,})[ \t]*(.*)$")
_MAYBE_FENCE = re.compile(r"^ *(?:(?:[-*+]|\d{1,9}[.)]) +)*(?:`{1,2}$|`{3,}[^`]*$|~{1,2}$|~{3,}.*$)")
_LIST_ITEM = re.compile(r"^ *(?:[-*+]|\d{1,9}[.)])(?: |$)")
_RULE_OR_HEADING = re.compile(r"^ {0,3}(?:#{1,6}(?: |$)|([-*_])[ ]*(?:\1[ ]*){2,}$)")
_TABLE_RULE = re.compile(r"^ *\|?(?: *:?-+:? *\|)+ *(?::?-+:?)? *$")
_MARKDOWN = frozenset({"markdown", "md", "mdx", "quarto", "rmd"})
_BREAKS = " \t\u3000。！？；，、"


class SegmentKind(StrEnum):
    """What a segment holds."""

    PROSE = "prose"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of prose (Markdown) or the inside of one code fence.

    ``language`` is what the fence said ("" when nothing), ``thinking`` True for the model's thinking,
    ``closed`` True when no more text will be added to it.
    """

    kind: SegmentKind
    text: str
    language: str = ""
    thinking: bool = False
    closed: bool = True


@dataclass(frozen=True, slots=True)
class _OpenFence:
    """A code fence whose end has not come: its ``char``, how many of them, how far indented, and the language."""

    char: str
    length: int
    indent: int
    language: str


class SegmentParser:
    """Segments of one message while its text arrives.

    With ``is_reply`` False (what a user typed) no line is moved to the left.
    """

    def __init__(self, is_reply: bool = True) -> None:
        self._is_reply = is_reply
        self._done: list[Segment] = []
        self._thinking = False
        self._partial = ""  # the line that has not ended
        self._open = ""  # the segment that has not ended, whole lines
        self._fence: _OpenFence | None = None
        self._inner_fences = 0  # those open within a fence of Markdown
        self._in_list = False
        self._after_blank = False
        self._dedent = 0
        self._table_head = ""
        self._last_line = ""
        self._dirty = 0

    @property
    def segments(self) -> list[Segment]:
        """All segments so far; only the last one may be open."""
        segment = self._open_segment()
        return [*self._done, segment] if segment else list(self._done)

    @property
    def is_thinking(self) -> bool:
        """Whether the model is thinking at this point of the stream."""
        return self._thinking

    def append(self, text: str, *, thinking: bool = False) -> int:
        """Take more text, of the answer or of what the model thinks. Returns the index of the first segment that may differ
        from before."""
        self._dirty = len(self._done)
        if text:
            if thinking != self._thinking:
                self._close()
                self._thinking = thinking
            self._partial += text.replace("\r", "").replace("\0", "")
            self._take_lines()
        return self._dirty

    def finish(self) -> int:
        """No text follows: close what is open. Returns as ``append`` does."""
        self._dirty = len(self._done)
        self._close()
        self._thinking = False
        return self._dirty

    # --- from text to lines -----------------------------------------------------------------------------------

    def _take_lines(self) -> None:
        text, at = self._partial, 0
        while True:
            end = text.find("\n", at, at + HARD_LIMIT + 1)
            if end >= 0:
                self._line(text[at:end])
                at = end + 1
            elif len(text) - at > HARD_LIMIT:
                end = at + _break_before(text[at : at + HARD_LIMIT])
                self._endless_line(text[at:end])
                at = end
            else:
                break
        self._partial = text[at:]

    def _endless_line(self, piece: str) -> None:
        """Part of a line too long to wait for its end."""
        if self._fence:
            self._open += piece
        else:
            self._line(piece)
            self._end_prose()

    def _line(self, line: str) -> None:
        if self._fence:
            if _begins_inner_fence(self._fence, line):
                self._inner_fences += 1
            elif _ends_fence(self._fence, line):
                self._inner_fences -= 1
            if self._inner_fences < 0:
                self._end_code(self._fence)
            else:
                self._open += _code_line(self._fence, line) + "\n"
        elif not line.strip():
            self._open += "\n" if self._open else ""
            self._after_blank = True
            self._table_head = ""
        elif not self._begins_fence(line):
            self._prose_line(line)

    # --- code -------------------------------------------------------------------------------------------------

    def _begins_fence(self, line: str) -> bool:
        found = _FENCE.match(line.expandtabs(4))
        if not found:
            return False
        indent = found.start(2)
        if found[1]:
            self._in_list = True
        elif indent > 3 and not self._in_list:
            return False
        self._end_prose()
        info = found[3].split()
        language = info[0].strip("{}.").lower() if info else ""
        self._fence = _OpenFence(found[2][0], len(found[2]), indent, language)
        return True

    def _end_code(self, fence: _OpenFence) -> None:
        self._done.append(Segment(SegmentKind.CODE, self._open.removesuffix("\n"), fence.language, self._thinking))
        if self._in_list and self._is_reply:
            self._dedent = fence.indent
        self._fence = None
        self._inner_fences = 0
        self._open = ""
        self._after_blank = False

    # --- prose ------------------------------------------------------------------------------------------------

    def _prose_line(self, line: str) -> None:
        if not self._open and not self._done and self._is_reply:
            line = line.lstrip()  # base models begin with blanks, which Markdown would take for code
        line = self._moved_left(line)
        was_in_list = self._in_list
        self._track_list(line)
        if self._open and self._cuts_before(line, was_in_list):
            head = "" if self._after_blank else self._table_head
            self._end_prose()
            self._open = self._table_head = head
            if self._in_list and self._is_reply:
                self._dedent = _indent(line)
                line = line[self._dedent :]
        if _TABLE_RULE.match(line) and "|" in self._last_line and not self._after_blank:
            self._table_head = f"{self._last_line}\n{line}\n"
        self._open += line + "\n"
        self._last_line = line
        self._after_blank = False

    def _moved_left(self, line: str) -> str:
        """``line`` without the indent of the list item that a code fence or a cut has torn it from."""
        if not self._dedent:
            return line
        lead = len(line) - len(line.lstrip(" \t"))
        line = line[:lead].expandtabs(4) + line[lead:]
        if _indent(line) < self._dedent:
            self._dedent = 0
            if _LIST_ITEM.match(line) and self._open:
                self._open += "\n"  # the list goes on; right after a paragraph Markdown would not see its item
        return line[self._dedent :]

    def _track_list(self, line: str) -> None:
        if _RULE_OR_HEADING.match(line):
            self._in_list = False
        elif _LIST_ITEM.match(line) and (self._in_list or _indent(line) <= 3):
            self._in_list = True
        elif self._after_blank and _indent(line) < 2 and not self._dedent:
            self._in_list = False

    def _cuts_before(self, line: str, was_in_list: bool) -> bool:
        size = len(self._open)
        if size >= HARD_LIMIT:
            return True
        if was_in_list and self._in_list:
            return size >= LIST_LIMIT and _LIST_ITEM.match(line) is not None and _indent(line) == 0
        return size >= SOFT_LIMIT and self._after_blank and _indent(line) < 4

    def _end_prose(self) -> None:
        if self._open.strip():
            self._done.append(Segment(SegmentKind.PROSE, self._open.rstrip(), thinking=self._thinking))
        self._open = ""
        self._table_head = ""

    # --- the end ----------------------------------------------------------------------------------------------

    def _close(self) -> None:
        if self._partial:
            line, self._partial = self._partial, ""
            self._line(line)
        if self._fence:
            self._end_code(self._fence)
        self._end_prose()
        self._in_list = self._after_blank = False
        self._dedent = 0
        self._last_line = ""

    def _open_segment(self) -> Segment | None:
        """The segment under way, with as much of the unfinished line as cannot turn into something else."""
        if self._fence:
            text = self._open
            if self._partial.strip().strip(self._fence.char):
                text += _code_line(self._fence, self._partial)
            return Segment(
                SegmentKind.CODE, text.removesuffix("\n"), self._fence.language, self._thinking, closed=False
            )
        partial = self._partial
        if _MAYBE_FENCE.match(partial):
            partial = ""
        text = (self._open + partial).rstrip()
        return Segment(SegmentKind.PROSE, text, thinking=self._thinking, closed=False) if text.strip() else None


def parse(text: str, is_reply: bool = True, thought: str = "") -> list[Segment]:
    """The segments of a whole message, those of its ``thought`` first."""
    parser = SegmentParser(is_reply)
    parser.append(thought, thinking=True)
    parser.append(text)
    parser.finish()
    return parser.segments


def _begins_inner_fence(fence: _OpenFence, line: str) -> bool:
    """Whether ``line`` opens a code block within Markdown that is shown as code: models write both with three backticks, and
    CommonMark would end the outer one at the inner one's end."""
    found = _FENCE.match(line) if fence.language in _MARKDOWN else None
    return found is not None and found[2][0] == fence.char and len(found[2]) >= fence.length and bool(found[3].strip())


def _ends_fence(fence: _OpenFence, line: str) -> bool:
    mark = line.strip()
    return len(mark) >= fence.length and not mark.strip(fence.char) and _indent(line) <= fence.indent + 3


def _code_line(fence: _OpenFence, line: str) -> str:
    """``line`` without the indent that its fence has."""
    if fence.indent and line.startswith("\t"):
        line = line.expandtabs(4)
    return line[min(fence.indent, _indent(line)) :]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _break_before(text: str) -> int:
    """Where to cut ``text``: after the last blank or sentence mark in its second half, else at its end."""
    half = len(text) // 2
    return max((text.rfind(mark, half) for mark in _BREAKS), default=-1) + 1 or len(text)
