"""One thing that was looked at: what was found, and what to do when that is not well. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a finding is meant."""

    FINE = "fine"
    NOTE = "note"
    """Works, but less than it could."""
    PROBLEM = "problem"
    """Something that kvdesk needs does not work."""


@dataclass(frozen=True)
class Finding:
    """``subject`` in a few words, ``text`` what was found, ``advice`` what to do, "" where there is nothing to do."""

    subject: str
    verdict: Verdict
    text: str
    advice: str = ""


def fine(subject: str, text: str) -> Finding:
    """A finding that needs nothing done."""
    return Finding(subject, Verdict.FINE, text)


def note(subject: str, text: str, advice: str) -> Finding:
    """It works; more would be possible."""
    return Finding(subject, Verdict.NOTE, text, advice)


def problem(subject: str, text: str, advice: str) -> Finding:
    """A finding about what does not work, with what to do about it."""
    return Finding(subject, Verdict.PROBLEM, text, advice)
