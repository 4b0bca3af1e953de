"""How whoever decodes asks whether the context may grow, and the two ways in which decoding ends early. Engine process only."""

from __future__ import annotations

from collections.abc import Callable

from kvdesk.backend.protocol.messages import GrowAnswer

GrowQuestion = Callable[[int, int, int, str], GrowAnswer]
"""(tokens occupied, cells now, cells wanted, why the last try failed) -> the answer."""


class Cancelled(Exception):
    """The abort flag was set; the cells hold what the conversation's tokens say."""


class ContextFull(Exception):
    """The context length is reached, or the user chose not to grow."""


def always_grow(_at: int, _from: int, _to: int, _failed: str) -> GrowAnswer:
    """The answer where nobody is asked."""
    return GrowAnswer("grow")


def always_trim(_at: int, _from: int, _to: int, _failed: str) -> GrowAnswer:
    """The answer where forgetting was chosen already."""
    return GrowAnswer("trim")
