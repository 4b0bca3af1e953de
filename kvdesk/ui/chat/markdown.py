"""Readies a model's Markdown for Qt: line breaks stay, formulas stay text, images become links. Pure, no Qt."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict, deque
from collections.abc import Iterator
from itertools import pairwise

LINE_BREAK = "\u2028"
"""A line break inside a paragraph. Qt keeps it in the block and copies it as a newline."""

_RIGHT_TO_LEFT = frozenset({"R", "AL"})
_SPECIAL = re.compile(
    r"(?P<image>(?<!\\)!\[(?P<empty>\])?)"
    r"|(?P<line_break><br ?/?>)"
    r"|(?P<math>"
    r"\\\[(?:(?!\n\n)[\s\S])+?(?:\\\]|\Z)"
    r"|\\\([^\n]+?(?:\\\)|\Z)"
    r"|\$\$(?:(?!\n\n)[\s\S])+?(?:\$\$|\Z)"
    r"|(?<![\\$\w])\$(?![\s$])[^$\n]{0,300}?(?<![\s\\])\$(?![\d$])"
    r")"
)
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_STARTS_BLOCK = re.compile(r"^\s*(?:[-*+](?: |$)|\d{1,9}[.)](?: |$)|#{1,6}(?: |$)|>|=+\s*$|[-_* ]{3,}$|`{3}|~{3})")
_TAKES_NO_MORE = re.compile(r"^ {0,3}(?:#{1,6}(?: |$)|>|=+\s*$|([-_*])(?: *\1){2,} *$)")
_PLAIN = re.compile(r" ?(?:[^\W_]|[,.?!'\"’] ?|[^\W_] )*")
"""Text that means nothing in Markdown wherever it stands in a line that has begun."""
_MAY_BE_LINK = re.compile(r"www|[@/:]", re.IGNORECASE)
_HAS_WORD = re.compile(r"[^\W\d_]{2}")


def plain_end(before: str, after: str) -> str | None:
    """What ``after`` shows more than ``before`` at its end, where that is plain text and changes nothing of what stands
    there already; None where only reading all of it again can tell."""
    if not after.startswith(before) or "|" in before:
        return None
    kept, whole = before.rstrip(" "), after.rstrip(" ")
    line = kept[kept.rfind("\n") + 1 :]
    more = after[len(before) :]
    sure = (
        len(before) - len(kept) <= 1
        and (line[-1:].isalnum() or line[-1:] in (",", ".", "'", "’"))
        and _HAS_WORD.search(line)
        and not line.startswith(("    ", "\t"))
        and not line.lstrip(" >").startswith("[")
        and not _MAY_BE_LINK.search(before[kept.rfind(" ") + 1 :] + more)
        and not (before.endswith(" ") and more.startswith(" "))
        and _PLAIN.fullmatch(more)
    )
    return whole[len(kept) :] if sure else None


def prepare(text: str, image_word: str = "image") -> str:
    """Markdown that shows ``text`` as meant: see the module. ``image_word`` stands before an image's description."""
    if text.startswith("---"):
        text = "***" + text[3:]  # Qt takes a leading --- for front matter and drops all up to the next one

    def replaced(found: re.Match[str]) -> str:
        if found["image"]:
            return f"[{image_word}]" if found["empty"] else f"[{image_word}: "
        if found["line_break"]:
            return LINE_BREAK
        if found["math"]:
            return _PUNCTUATION.sub(r"\\\1", found["math"]).replace("\n", LINE_BREAK)
        return found[0]

    parts = (part if is_code else _SPECIAL.sub(replaced, part) for part, is_code in _code_spans(text))
    return _keep_line_breaks("".join(parts))


def _code_spans(text: str) -> Iterator[tuple[str, bool]]:
    """``text`` in parts, each with whether it is a code span: from a run of backticks to the next of equal length."""
    runs = [(found.start(), found.end()) for found in re.finditer("`+", text)]
    places: dict[int, deque[int]] = defaultdict(deque)
    for start, end in runs:
        places[end - start].append(start)
    at = 0
    for start, end in runs:
        if start < at or text[start - 1 : start] == "\\":
            continue
        same = places[end - start]
        while same and same[0] <= start:
            same.popleft()
        if same:
            yield text[at:start], False
            close = same[0] + end - start
            yield text[start:close], True
            at = close
    yield text[at:], False


def _keep_line_breaks(text: str) -> str:
    """Join the lines of each paragraph by LINE_BREAK, where Markdown would put a blank; a line that is read in the other
    direction than the one before begins a paragraph."""
    lines = text.split("\n")
    out = lines[:1]
    joined = False
    for before, line in pairwise(lines):
        inside, onward = before, line
        if before.startswith(">") and line.startswith(">"):
            inside, onward = before[1:].removeprefix(" "), line[1:].removeprefix(" ")
        is_one_paragraph = (
            bool(inside.strip() and onward.strip())
            and "|" not in before
            and "|" not in line
            and not _STARTS_BLOCK.match(onward)
            and not _TAKES_NO_MORE.match(inside)
            and (joined or not inside.startswith(("    ", "\t")))
        )
        joined = is_one_paragraph and not _turns(inside, onward)
        if joined:
            out[-1] = f"{out[-1].rstrip().removesuffix(chr(92))}{LINE_BREAK}{onward.lstrip()}"
        elif is_one_paragraph:
            out += [">" if inside != before else "", line]  # Qt writes a whole paragraph in its first line's direction
        else:
            out.append(line)
    return "\n".join(out)


def _turns(before: str, after: str) -> bool:
    """Whether the two lines are read in opposite directions, each by its first letter (rule P2 of Unicode's UAX 9)."""
    if before.isascii() and after.isascii():
        return False
    ways = {_reads_from_right(line) for line in (before, after)} - {None}
    return len(ways) > 1


def _reads_from_right(line: str) -> bool | None:
    """None: it has no letter that says."""
    for sign in line:
        way = unicodedata.bidirectional(sign)
        if way == "L" or way in _RIGHT_TO_LEFT:
            return way != "L"
    return None
