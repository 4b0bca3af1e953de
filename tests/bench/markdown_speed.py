"""How long it takes to prepare text that was made to be slow: it should grow in proportion to the text. Prints a table.

python -m tests.bench.markdown_speed
"""

from __future__ import annotations

import time

HOSTILE = ("` `` ", "$a ", "\\[ ", "$$", "`", "![[", "** ", "\\(", "<br>", "a\n")
LENGTHS = (3_000, 24_000, 192_000)


def main() -> None:
    """Milliseconds of this thread for each text at each length."""
    print("text    " + "".join(f"{length:>12,} chars" for length in LENGTHS))
    for text in HOSTILE:
        print(f"{text!r:<8}" + "".join(f"{1000 * seconds(text, length):>15.1f} ms" for length in LENGTHS))


def seconds(text: str, n_chars: int) -> float:
    """Time to prepare ``text``, repeated to ``n_chars``."""
    from kvdesk.ui.chat.markdown import prepare

    whole = (text * n_chars)[:n_chars]
    began = time.thread_time()
    prepare(whole)
    return time.thread_time() - began


if __name__ == "__main__":
    main()
