"""A plan in one sentence: it fits, runs slowly, or will be killed, and by how much. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvdesk.backend.planning.device_plan import RAM, DevicePlan
from kvdesk.backend.settings import short_room
from kvdesk.sizes import format_bytes


@dataclass(frozen=True)
class Verdict:
    """``kind``: "fits"; "runs-slowly" (what must be held fits, not all of the mapped weights beside it); "fits-up-to"
    (a shorter context fits); "does-not-fit"; "will-be-killed" (more must be held in RAM than there is); "unknown".

    ``room_bytes`` under the line of ``device`` (negative: over it), ``max_n_ctx`` the longest context that fits.
    ``alarm``: "" (fine), "amber" (little room, or slow), "red" (half of that), by ``alarm()``.
    """

    kind: str
    sentence: str
    alarm: str
    device: str
    room_bytes: int | None
    max_n_ctx: int | None


def alarm(room_bytes: int | None, capacity_bytes: int | None) -> str:
    """ "", "amber" or "red" for the room under the line of a domain of that size: little room, and half of it
    (settings.short_room)."""
    little = short_room(capacity_bytes)
    if room_bytes is None or room_bytes >= little:
        return ""
    return "amber" if room_bytes >= little // 2 else "red"


def tightest(rows: Sequence[DevicePlan]) -> DevicePlan:
    """The domain with the least room under its line; the first (RAM) where no line is known."""
    known = [row for row in rows if row.room_bytes is not None and row.total_bytes]
    return min(known, key=lambda row: row.room_bytes or 0) if known else rows[0]


def find_verdict(
    rows: Sequence[DevicePlan], n_ctx: int, max_n_ctx: int | None, disk_bytes_per_s: float | None
) -> Verdict:
    """The verdict on a context of ``n_ctx`` in these domains; ``disk_bytes_per_s`` is how fast weights can be read."""
    over = [row for row in rows if row.oom_line_bytes is not None and row.must_hold_bytes > row.oom_line_bytes]
    row = tightest(over or rows)
    where = "" if row.name == RAM and len(rows) == 1 else f" on {row.name}"
    room, up_to = row.room_bytes, f"Fits up to {max_n_ctx:,} tokens; " if max_n_ctx else ""
    tone = alarm(room, row.capacity_bytes)
    if room is None:
        total = sum(one.total_bytes for one in rows)
        kind, sentence = "unknown", f"Needs {format_bytes(total)}; how much is free cannot be told"
    elif room >= 0:
        kind, sentence = "fits", f"Fits, {format_bytes(room)} under the line{where}"
    elif not over:
        kind, tone, sentence = "runs-slowly", "amber", _slow_words(row, disk_bytes_per_s)
        if max_n_ctx:
            sentence += f"; up to {max_n_ctx:,} tokens they stay in memory"
    elif row.kind == "ram" and row.ceiling_bytes is not None and row.must_hold_bytes > row.ceiling_bytes:
        excess = format_bytes(row.must_hold_bytes - row.ceiling_bytes)
        kind = "fits-up-to" if max_n_ctx else "will-be-killed"
        sentence = f"{up_to}at {n_ctx:,} the engine will be killed, {excess} over what there is" if up_to else ""
        sentence = sentence or f"Will be killed: {excess} over what there is"
    else:
        excess = format_bytes(row.must_hold_bytes - (row.oom_line_bytes or 0))
        kind = "fits-up-to" if max_n_ctx else "does-not-fit"
        sentence = f"{up_to}{excess} over the line{where} at {n_ctx:,}" if up_to else f"Does not fit by {excess}{where}"
    return Verdict(kind, sentence, tone, row.name, room, max_n_ctx)


def _slow_words(row: DevicePlan, disk_bytes_per_s: float | None) -> str:
    """What is read again and again, and how many tokens a second that leaves; the kernel may do a little better."""
    missing = -(row.room_bytes or 0)
    words = f"Runs slowly: {format_bytes(missing)} of the weights will be read from disk again and again"
    per_token = missing * row.mapped_read_share
    if disk_bytes_per_s is None or per_token <= 0:
        return words
    speed = disk_bytes_per_s / per_token
    return f"{words}, about {f'{speed:.1f}' if speed < 10 else f'{speed:.0f}'} tokens/s"
