"""A stranger understands what a module is for from its first line, and meets no private words on the way."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "kvdesk"
PRIVATE = re.compile(
    r"\b(?:doers?|papers?|goner|_?bury|buried|unborn|comb|rereading|ways on)\b|\b(?:let|lets) (?:\S+ ){0,3}?go\b(?! on)",
    re.IGNORECASE,
)
"""Words of this project's own that a reader would have to guess; CONTRIBUTING.md says what to write instead."""


def test_the_first_line_of_a_module_says_its_job() -> None:
    short = {
        path.relative_to(PACKAGE).as_posix(): line
        for path in PACKAGE.rglob("*.py")
        if len((line := (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n")[0]).split()) < 4
    }
    assert short == {}


def test_nobody_has_to_learn_private_words() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if PRIVATE.search(line)
    ]
    assert found == []


def test_private_words_would_be_noticed() -> None:
    for words in ("lets the helper go when told", "Let go of the file", "makes the doers", "self._bury()"):
        assert PRIVATE.search(words), words
    assert not PRIVATE.search("lets a next prompt go on with them")
