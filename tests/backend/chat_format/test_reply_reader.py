"""chat_format/reply_reader.py: a reply byte by byte, with what ends it."""

from __future__ import annotations

import pytest

from kvdesk.backend.chat_format.reply_reader import ReplyReader
from kvdesk.backend.chat_format.thinking import NO_MARKS, ThinkingSplitter


def read(reply: bytes, step: int, ends: tuple[str, ...] = (), stops: tuple[str, ...] = ()) -> tuple[str, str, str]:
    """Thought, answer, and what ended it, of ``reply`` in pieces of ``step`` bytes."""
    reader = ReplyReader(ThinkingSplitter(NO_MARKS), ends, stops)
    pieces: list[tuple[str, bool]] = []
    for at in range(0, len(reply), step):
        pieces += reader.feed(reply[at : at + step])
        if reader.ended_by:
            break
    pieces += reader.finish()
    assert all(text for text, _ in pieces)
    thought, answer = ("".join(text for text, thinking in pieces if thinking is which) for which in (True, False))
    return thought, answer, reader.ended_by


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ("Grüße ☃ 🙂", ("", "Grüße ☃ 🙂", "")),
        ("one</assistant>two", ("", "one", "</assistant>")),
        ("one STOP two", ("", "one ", "STOP")),
        ("one ST", ("", "one ST", "")),
        ("STOP", ("", "", "STOP")),
        ("<think>a STOP</assistant> b</think>one STOP", ("a STOP</assistant> b", "one ", "STOP")),
        ("a</assistantSTOP", ("", "a</assistant", "STOP")),
    ],
)
def test_a_reply_ends_at_a_string_of_its_answer_alone(step: int, reply: str, wanted: tuple[str, str, str]) -> None:
    assert read(reply.encode(), step, ("</assistant>",), ("STOP", "")) == wanted


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_bytes_of_an_unfinished_character_are_dropped(missing: int) -> None:
    assert read("ok 🙂".encode()[:-missing], 1) == ("", "ok ", "")


def test_bytes_that_are_no_character_are_shown_as_such() -> None:
    assert read(b"a\xffb", 1) == ("", "a�b", "")


def test_blanks_before_the_first_word_are_dropped_when_asked_for() -> None:
    reader = ReplyReader(ThinkingSplitter(NO_MARKS), (), (), strips=True)
    pieces = [piece for byte in b"  \n a b" for piece in reader.feed(bytes([byte]))]
    assert "".join(text for text, _ in pieces) == "a b"
