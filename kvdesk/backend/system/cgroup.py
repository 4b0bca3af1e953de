"""Memory limits of control groups, version 1 and 2: every group above a process, each with limit, use and file cache.

Linux only; elsewhere there are no groups. Any thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kvdesk.backend.system.procfs import read_count, read_text

_NO_LIMIT = 1 << 62
"""Version 1 says "no limit" with a number near 2^63, rounded to a page."""


@dataclass(frozen=True)
class MemoryGroup:
    """One control group's folder. ``version`` is that of the hierarchy, 1 or 2."""

    folder: Path
    version: int

    def limit_bytes(self) -> int | None:
        """What the group may hold: the least of memory.max and memory.high (above which it is throttled to a halt)."""
        names = ("memory.max", "memory.high") if self.version == 2 else ("memory.limit_in_bytes",)
        limits = [read_count(self.folder / name) for name in names]
        return min((limit for limit in limits if limit is not None and limit < _NO_LIMIT), default=None)

    def available_bytes(self) -> int | None:
        """limit - (usage - file cache), at least 0; None without a limit or where the kernel does not say."""
        limit = self.limit_bytes()
        if limit is None:
            return None
        usage = read_count(self.folder / ("memory.current" if self.version == 2 else "memory.usage_in_bytes"))
        if usage is None:
            return None
        return max(0, limit - max(0, usage - self._file_cache_bytes()))

    def oom_kills(self) -> int | None:
        """How many processes of this group, and of those below it, the kernel has killed because memory ran out."""
        text = read_text(self.folder / ("memory.events" if self.version == 2 else "memory.oom_control")) or ""
        counts = [line.split()[1] for line in text.splitlines() if line.startswith("oom_kill ")]
        return int(counts[0]) if counts and counts[0].isdecimal() else None

    def peak_bytes(self) -> int | None:
        """The kernel's own record of the group's largest use, file cache included."""
        return read_count(self.folder / ("memory.peak" if self.version == 2 else "memory.max_usage_in_bytes"))

    def _file_cache_bytes(self) -> int:
        """File pages that the kernel would drop before the group runs out; 0 where it does not say, so never too hopeful."""
        prefix = "" if self.version == 2 else "total_"
        wanted = {f"{prefix}inactive_file", f"{prefix}active_file"}
        pairs = (line.split() for line in (read_text(self.folder / "memory.stat") or "").splitlines())
        return sum(int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] in wanted and pair[1].isdecimal())


def memory_groups(pid: int | None = None, root: Path = Path("/")) -> tuple[MemoryGroup, ...]:
    """The groups whose memory limits bind the process (None: this one), innermost first.

    ``root`` is the folder that stands for "/" (tests). A group that the mounts do not show, as in a container that
    sees only its own subtree, is left out: the kernel binds it all the same, but nothing here can read it.
    """
    process = root / "proc" / (str(pid) if pid is not None else "self")
    paths: dict[int, str] = {}
    for line in (read_text(process / "cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            paths[1] = path
        elif not controllers:
            paths[2] = path
    # On a hybrid system the version 1 line wins: a controller lives in one hierarchy only.
    for version in (1, 2):
        mount = _mount(root, version, paths[version]) if version in paths else None
        if mount is not None:
            top, inside = mount
            folders = [top, *_descend(top, inside)]
            return tuple(MemoryGroup(folder, version) for folder in reversed(folders))
    return ()


def _mount(root: Path, version: int, path: str) -> tuple[Path, str] | None:
    """The mount point that shows this hierarchy, and the group's path below it."""
    found: tuple[Path, str] | None = None
    for line in (read_text(root / "proc/self/mountinfo") or "").splitlines():
        fields, _, tail = line.partition(" - ")
        words, kinds = fields.split(" "), tail.split(" ")
        if len(words) < 5 or len(kinds) < 3 or kinds[0] != ("cgroup2" if version == 2 else "cgroup"):
            continue
        if version == 1 and "memory" not in kinds[2].split(","):
            continue
        shown, point = _unescape(words[3]).rstrip("/"), root / _unescape(words[4]).lstrip("/")
        if path == shown or path.startswith(f"{shown}/"):
            return point, path[len(shown) :]
        # A container without a namespace of its own: what is mounted is its own group, under another name.
        found = found or (point, "")
    return found


def _descend(top: Path, inside: str) -> list[Path]:
    folders: list[Path] = []
    for name in inside.split("/"):
        if name == "..":
            return []
        if name:
            folders.append((folders[-1] if folders else top) / name)
    return folders


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
