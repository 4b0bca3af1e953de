"""How sizes are written, everywhere alike: memory in powers of 1024, files and downloads in powers of 1000. Pure.

None is "unknown": nobody could read it. The window says that word in the user's language (ui/widgets/numbers.py).
"""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
MB = 1000 * 1000


def format_bytes(n: float | None) -> str:
    """Memory: 3328599654 -> "3.1 GiB", 503316480 -> "480 MiB", 0 -> "0 MiB". Each unit ends where it would round to 1,024."""
    if n is None:
        return "unknown"
    size = abs(n)
    sign = "-" if n < 0 else ""
    if size == 0:
        return "0 MiB"
    if size < 1023.5:
        return f"{sign}{size:.0f} B"
    if size < 1023.5 * KIB:
        return f"{sign}{figures(size / KIB)} KiB"
    if size < 1023.5 * MIB:
        return f"{sign}{figures(size / MIB)} MiB"
    return f"{sign}{size / GIB:,.1f} GiB"


def format_bytes_delta(n: float | None) -> str:
    """A difference of memory with its sign: "-480 MiB", "+0.9 GiB", "±0 MiB"."""
    if n is None:
        return "unknown"
    if n == 0:
        return "±0 MiB"
    return format_bytes(n) if n < 0 else "+" + format_bytes(n)


def format_file_size(n: float | None) -> str:
    """A file or download: "253 MB", "4.9 GB"."""
    if n is None:
        return "unknown"
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n >= unit * 0.9995:
            return f"{n / unit:.1f} {name}" if unit >= 1e9 else f"{figures(n / unit)} {name}"
    return f"{n:.0f} B"


def figures(value: float, limit: float = 10) -> str:
    """One decimal below ``limit`` where there is one to show, none from there on."""
    if abs(value) >= limit - 0.05:
        return f"{value:,.0f}"
    text = f"{value:.1f}"
    return text.removesuffix(".0") if limit == 10 else text
