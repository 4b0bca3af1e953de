"""Text from outside (models, files, other programs) as it may be shown, in window, terminal, log and report alike. Pure.

What a terminal or a text layout would obey becomes a sign that can be seen; how it is laid out stays with the widget.
"""

from __future__ import annotations

import re

LONGEST = 300
"""Characters of a name or a sentence that quotes a file."""
_UNSEEN = "\N{REPLACEMENT CHARACTER}"
_OBEYED = (
    "\x00-\x1f\x7f-\x9f"  # C0, DEL, C1: escapes, CSI, OSC
    "\u202a-\u202e\u2066-\u2069"  # bidirectional embeddings, overrides, isolates: text that reads as another
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # byte order marks, annotations, tags: there and not seen
    "\ud800-\udfff"  # halves of characters: neither UTF-8 nor a terminal can carry them
)
_IN_LINES = re.compile(f"\r\n|(?![\t\n])[{_OBEYED}\u2028\u2029]")
_LINE_ENDS = re.compile("[\t\n\r\x0b\x0c\x85\u2028\u2029]+")


def shown_line(text: str, longest: int = LONGEST) -> str:
    """``text`` on one line of at most ``longest`` characters: line ends and tabs are a blank, a cut is an ellipsis."""
    return shown_text(_LINE_ENDS.sub(" ", text[: 2 * longest]), longest)


def shown_text(text: str, longest: int | None = None) -> str:
    """``text`` with its line ends and tabs, of at most ``longest`` characters where that is given."""
    if longest is not None and len(text) > longest:
        text = f"{text[: longest - 1]}…"
    return _IN_LINES.sub(_sign, text)


def _sign(found: re.Match[str]) -> str:
    """Unicode's picture of a control character; for what has none, the replacement character."""
    text = found[0]
    if text in ("\r\n", "\u2028", "\u2029"):
        return "\n"
    if text < " ":
        return chr(0x2400 + ord(text))
    return "\N{SYMBOL FOR DELETE}" if text == "\x7f" else _UNSEEN
