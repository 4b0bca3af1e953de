"""Whether the engine process still answers: when to ask it, and when to give it up. Pure; times are seconds of a clock
that stands still while the computer sleeps."""

from __future__ import annotations

from dataclasses import dataclass

EVERY_S = 5.0
"""How often it is asked while all is well."""
PATIENCE_S = 9.0
"""How long an answer may take: with the interval, a process that stopped is noticed within 15 s, whatever it was doing."""
START_PATIENCE_S = 120.0
"""How long its first word may take: libraries and drivers are loaded from a cold disk."""
URGENT_PATIENCE_S = 2.0
"""The same after a stop or an eject: who wants an end shall have it."""
LATE_S = 3.0
"""Looks are a second apart; with a longer gap we were stopped ourselves, and the engine perhaps with us."""


@dataclass
class Pulse:
    """Of one engine process. Feed it the clock: ``look`` at least once a second, ``asked``, ``answered``."""

    last_look_s: float = 0.0
    last_asked_s: float | None = None
    deadline_s: float | None = None
    has_spoken: bool = False
    """Whether it has ever answered: its libraries are loaded."""

    def look(self, now_s: float) -> None:
        """Notice a gap in one's own time, and give the engine the time that was lost."""
        gap = now_s - self.last_look_s
        if self.last_look_s and gap > LATE_S and self.deadline_s is not None:
            self.deadline_s += gap
        self.last_look_s = now_s

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is outstanding."""
        return self.deadline_s is not None

    def is_due(self, now_s: float) -> bool:
        """Whether it is time to ask."""
        return not self.is_waiting and (self.last_asked_s is None or now_s - self.last_asked_s >= EVERY_S)

    def asked(self, now_s: float, patience_s: float = PATIENCE_S) -> None:
        """A question was sent; an earlier one's deadline is kept where it is sooner."""
        self.last_asked_s = now_s
        deadline = now_s + patience_s
        self.deadline_s = deadline if self.deadline_s is None else min(self.deadline_s, deadline)

    def answered(self) -> None:
        """Note that the process has answered a ping."""
        self.deadline_s, self.has_spoken = None, True

    def is_lost(self, now_s: float) -> bool:
        """Whether it has been silent for too long."""
        return self.deadline_s is not None and now_s > self.deadline_s
