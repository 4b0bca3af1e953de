"""Reads a reply as it is generated: bytes to characters, thoughts told from the answer, ended by a string. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from kvdesk.backend.chat_format.thinking import ThinkingSplitter


class ReplyReader:
    """Takes the bytes of one token after the other. Pieces are ``(text, is thinking)``, none of them empty.

    ``ends`` (the template's) and ``stops`` (the person's) end the answer and are no part of it; in a thought they are text.
    What may become one is held back, and so are the bytes of an unfinished character.
    """

    def __init__(
        self, splitter: ThinkingSplitter, ends: Sequence[str], stops: Sequence[str], *, strips: bool = False
    ) -> None:
        """``strips``: blanks before the first word are dropped."""
        self._splitter = splitter
        self._ends = tuple(ends)
        self._stops = tuple(stop for stop in stops if stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held: str = ""
        self._strips = strips
        self.ended_by = ""
        """The string that ended the answer, "" while none has."""

    @property
    def is_thinking(self) -> bool:
        """Whether a thought was begun and not ended."""
        return self._splitter.is_thinking

    @property
    def closing(self) -> str:
        """What closes the open thought, so that the answer follows."""
        return self._splitter.closing

    @property
    def was_stopped(self) -> bool:
        """Whether one of the person's stop strings ended the answer."""
        return self.ended_by in self._stops

    def feed(self, piece: bytes) -> list[tuple[str, bool]]:
        """What is certain after ``piece``."""
        return self._sort(self._splitter.feed(self._decoder.decode(piece)))

    def finish(self) -> list[tuple[str, bool]]:
        """What was held back and became nothing else. Bytes of a character that never got whole are dropped: going on with
        the reply writes it anew."""
        pieces = self._sort(self._splitter.finish())
        held, self._held = self._held, ""
        return [*pieces, (held, False)] if held and not self.ended_by else pieces

    def _sort(self, pieces: Sequence[tuple[str, bool]]) -> list[tuple[str, bool]]:
        sorted_out: list[tuple[str, bool]] = []
        for text, is_thinking in pieces:
            certain = text if is_thinking else self._cut(text)
            if certain:
                sorted_out.append((certain, is_thinking))
        return sorted_out

    def _cut(self, text: str) -> str:
        """What of the answer is certain with ``text``."""
        if self.ended_by:
            return ""
        text = self._held + text
        self._held = ""
        if self._strips:
            text = text.lstrip()
            self._strips = not text
        known = (*self._ends, *self._stops)
        found = [one for one in known if one in text]
        if found:
            self.ended_by = min(found, key=text.index)
            return text[: text.index(self.ended_by)]
        keep = max((n for one in known for n in range(1, len(one)) if text.endswith(one[:n])), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]
