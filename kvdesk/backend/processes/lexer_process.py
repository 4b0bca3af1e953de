"""The process that finds the colours of code blocks: one step of a lexer cannot be interrupted, and some texts take minutes.

Answers requests off a pipe, one by one; ends when the pipe does. Imports pygments, nothing of Qt or llama.cpp.
"""

from __future__ import annotations

import contextlib
import json
import signal
from array import array
from collections.abc import Iterator
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any, cast

from kvdesk.backend.code_spans import KINDS

BEGUN = b"begun"
"""Sent once the language's lexer is compiled: from here on the text alone takes time."""
_TABLE = (
    ("Comment.Preproc", "builtin"),
    ("Comment", "comment"),
    ("Keyword", "keyword"),
    ("Operator.Word", "keyword"),
    ("Literal.String", "string"),
    ("Literal.Number", "number"),
    ("Name.Function", "function"),
    ("Name.Class", "function"),
    ("Name.Decorator", "function"),
    ("Name.Tag", "function"),
    ("Name.Builtin", "builtin"),
    ("Name.Attribute", "builtin"),
    ("Name.Variable", "builtin"),
    ("Generic.Inserted", "inserted"),
    ("Generic.Deleted", "deleted"),
    ("Generic.Heading", "function"),
    ("Generic.Subheading", "function"),
    ("Generic.Prompt", "comment"),
)
"""pygments' token types, the closer ones first, and what they are here."""


def lexer_main(connection: Connection) -> None:
    """Entry of the process: for each (language, text) first BEGUN, then the spans (see ``spans``) as bytes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):  # nobody waits for an answer any more
        while True:
            language, text = json.loads(connection.recv_bytes())
            lexer = _lexer(language)
            connection.send_bytes(BEGUN)
            found = array("I", () if lexer is None else (n for span in spans(lexer, text) for n in span))
            connection.send_bytes(found.tobytes())


@lru_cache(maxsize=64)
def _lexer(language: str) -> Any:
    """The lexer for ``language``, compiled; None for a language that pygments does not know."""
    from pygments import lexers
    from pygments.util import ClassNotFound

    try:
        lexer = cast("Any", lexers).get_lexer_by_name(language)
    except ClassNotFound:
        return None
    for _ in lexer.get_tokens_unprocessed("x\n"):
        pass
    return lexer


def spans(lexer: Any, text: str) -> Iterator[tuple[int, int, int, int]]:
    """The coloured stretches of ``text``: line, start and length in UTF-16 units, as Qt counts, and which of KINDS."""
    line = at = 0
    known: dict[Any, int | None] = {}
    for _, token_type, value in lexer.get_tokens_unprocessed(text + "\n"):
        if token_type not in known:
            known[token_type] = _kind_of(token_type)
        kind = known[token_type]
        for n, part in enumerate(value.split("\n")):
            if n:
                line, at = line + 1, 0
            length = len(part) if part.isascii() else len(part.encode("utf-16-le", "surrogatepass")) // 2
            if kind is not None and length:
                yield line, at, length, kind
            at += length


def _kind_of(token_type: Any) -> int | None:
    from pygments.token import string_to_tokentype

    return next((KINDS.index(kind) for name, kind in _TABLE if token_type in string_to_tokentype(name)), None)
