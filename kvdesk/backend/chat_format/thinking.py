"""Tells a model's thinking from its answer, in a stream or in a whole reply, by the tags that models use. Pure.

The tags are those that the templates in llama.cpp's models/templates write around thoughts.
"""

from __future__ import annotations

TAGS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<think:opensource>", "</think:opensource>"),
    ("<|channel>thought\n", "<channel|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    ("<|think|>", "<|end|>"),
    ("Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
    ("<|start|>assistant<|channel|>final<|message|>", ""),
    ("<|channel|>final<|message|>", ""),
    ("<|begin|>assistant<|content|>", ""),
    ("<|content|>", ""),
    ("<|open|>response<|sep|>", ""),
    ("<|START_RESPONSE|>", ""),
    ("<|START_TEXT|>", ""),
    ("<response>", ""),
)
"""Opening and closing tag of thinking. Without a closing tag the opening one only marks the answer and is dropped."""

CLOSERS = tuple(closer for _, closer in TAGS if closer)


def opened_thought(prompt: str) -> str:
    """The tag that opens a thought at the very end of ``prompt``, "" if none does: then the reply begins inside it."""
    end = prompt.rstrip()
    return next((opener for opener, closer in TAGS if closer and end.endswith(opener.rstrip())), "")


def split_reply(reply: str) -> tuple[str, str]:
    """A whole reply as (thought, answer), both without tags; the thought is "" where there is none."""
    splitter = ThinkingSplitter()
    pieces = splitter.feed(reply) + splitter.finish()
    thought = "".join(text for text, is_thinking in pieces if is_thinking)
    return thought.strip(), "".join(text for text, is_thinking in pieces if not is_thinking).strip()


class ThinkingSplitter:
    """Cuts a stream into pieces of thinking and answer.

    A tag counts only where a model puts it: at the start of the reply, or right after thinking ended. A tag that is
    not whole yet is held back, so nobody sees half a tag.
    """

    def __init__(self) -> None:
        self._held = ""
        self._closer = ""
        self._at_start = True
        self._was_thinking = False

    @property
    def is_thinking(self) -> bool:
        """Whether thinking was begun and not ended."""
        return bool(self._closer)

    def feed(self, text: str) -> list[tuple[str, bool]]:
        """The pieces ``(text, is thinking)`` that are certain after ``text``; none of them is empty."""
        self._held += text
        pieces: list[tuple[str, bool]] = []
        while self._held:
            if self._closer:
                at = self._held.find(self._closer)
                if at < 0:
                    at = len(self._held) - _overlap(self._held, self._closer)
                    pieces.append((self._held[:at], True))
                    self._held = self._held[at:]
                    break
                pieces.append((self._held[:at], True))
                self._held = self._held[at + len(self._closer) :]
                self._closer = ""
                self._at_start = self._was_thinking = True
            elif self._at_start:
                body = self._held.lstrip()
                tag = next((tag for tag in TAGS if body.startswith(tag[0])), None)
                if tag is not None:
                    self._held = body[len(tag[0]) :]
                    self._closer = tag[1]
                    self._at_start = bool(tag[1])
                    if tag[1] and self._was_thinking:
                        pieces.append(("\n\n", True))
                elif any(opener.startswith(body) for opener, _ in TAGS):
                    break
                else:
                    self._at_start = False
            else:
                pieces.append((self._held, False))
                self._held = ""
        return [piece for piece in pieces if piece[0]]

    def finish(self) -> list[tuple[str, bool]]:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return [(held, self.is_thinking)] if held else []


def _overlap(text: str, tag: str) -> int:
    """How many characters at the end of ``text`` begin ``tag``."""
    return next((n for n in range(min(len(text), len(tag) - 1), 0, -1) if text.endswith(tag[:n])), 0)
