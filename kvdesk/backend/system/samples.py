"""The frozen readings of memory that monitor, recorder, plan and window share. Values only, any thread.

Sizes are bytes. ``None`` is "cannot be told here"; 0 is a counted zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvdesk.backend.protocol.facts import KvState
from kvdesk.backend.settings import AUTOMATIC_MARGIN, kept_free


@dataclass(frozen=True, slots=True)
class DomainReading:
    """One memory domain at one moment: RAM, or one device with memory of its own.

    ``name`` is "RAM" or llama.cpp's device name ("CUDA0", "RPC0[...]"), ``kind`` "ram", "gpu", "igpu" or "rpc".
    ``capacity_bytes`` is what exists (RAM: the least of the machine's memory and every cgroup limit),
    ``available_bytes`` what can still be had now (RAM: min of MemAvailable and, for every cgroup above the engine,
    limit - (usage - file cache); device: its free memory).

    ``engine_bytes`` is what the engine process and its children hold here (RAM: resident). In RAM it splits into
    ``engine_anonymous_bytes``, which only ending or swapping gives back, and ``engine_file_bytes``: pages of mapped
    files, above all the weights. The kernel evicts those when memory is short (slow, but no failure), and
    MemAvailable counts them as obtainable already, so they never count against the ceiling.
    ``engine_source`` says where the engine's figure comes from, in words for the user.
    """

    name: str
    kind: str
    capacity_bytes: int | None
    available_bytes: int | None
    engine_bytes: int | None = None
    engine_anonymous_bytes: int | None = None
    engine_file_bytes: int | None = None
    engine_source: str = ""

    @property
    def used_bytes(self) -> int | None:
        """What nobody can have now: capacity - available."""
        if self.capacity_bytes is None or self.available_bytes is None:
            return None
        return max(0, self.capacity_bytes - self.available_bytes)

    @property
    def engine_unevictable_bytes(self) -> int | None:
        """The engine's share of ``used_bytes``: anonymous memory in RAM, everything on a device."""
        return self.engine_anonymous_bytes if self.kind == "ram" else self.engine_bytes

    @property
    def others_bytes(self) -> int | None:
        """What other programs and the system hold: used - the engine's unevictable use."""
        used, own = self.used_bytes, self.engine_unevictable_bytes
        return None if used is None or own is None else max(0, used - own)

    @property
    def ceiling_bytes(self) -> int | None:
        """What the engine may hold in all before the domain is exhausted, now: its own unevictable use + available.

        Moves as other programs come and go; never above the capacity.
        """
        own = self.engine_unevictable_bytes
        if own is None or self.available_bytes is None:
            return None
        ceiling = own + self.available_bytes
        return ceiling if self.capacity_bytes is None else min(ceiling, self.capacity_bytes)

    def oom_line(self, margin_bytes: int) -> int | None:
        """The ceiling less a margin (negative: automatic), at least 0: where the window draws the line."""
        ceiling = self.ceiling_bytes
        return None if ceiling is None else max(0, ceiling - kept_free(margin_bytes, self.capacity_bytes))


@dataclass(frozen=True, slots=True)
class MachineReading:
    """All domains of this machine in one pass, swap apart.

    ``engine_peak_bytes`` is the kernel's own record of the engine process's largest resident size (VmHWM),
    ``cgroup_peak_bytes`` that of the innermost cgroup with a record (memory.peak; file cache included).
    """

    domains: tuple[DomainReading, ...] = ()
    swap_total_bytes: int | None = None
    swap_used_bytes: int | None = None
    engine_swap_bytes: int | None = None
    engine_peak_bytes: int | None = None
    cgroup_peak_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of the live chart and of the session log.

    ``time_s`` is Unix time, ``monotonic_s`` the clock that never jumps; both of the moment the reading began.
    ``state`` is the engine's state in the app's word for it. ``predicted_bytes`` holds (domain name, bytes at the
    full context length) pairs, None while nothing is predicted; ``must_hold_bytes`` the part of them that nobody can take
    back (DevicePlan.must_hold_bytes). ``margin_bytes`` is what the OOM line keeps free
    (settings.kept_free).
    """

    time_s: float
    monotonic_s: float
    machine: MachineReading = MachineReading()
    engine_pid: int | None = None
    kv: KvState | None = None
    tokens_per_second: float | None = None
    state: str = ""
    predicted_bytes: tuple[tuple[str, int], ...] | None = None
    margin_bytes: int = AUTOMATIC_MARGIN
    must_hold_bytes: tuple[tuple[str, int], ...] = ()

    @property
    def domains(self) -> tuple[DomainReading, ...]:
        """The readings of all domains (RAM first, then devices)."""
        return self.machine.domains

    def domain(self, name: str) -> DomainReading | None:
        """The domain of that name, if it was read."""
        return next((domain for domain in self.machine.domains if domain.name == name), None)

    def predicted(self, name: str) -> int | None:
        """Bytes predicted for that domain at the full context length."""
        return dict(self.predicted_bytes or ()).get(name)

    def must_hold(self, name: str) -> int | None:
        """The part of ``predicted`` that nobody can take back; None where it is not known."""
        return dict(self.must_hold_bytes).get(name)
