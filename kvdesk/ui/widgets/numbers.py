"""How the window writes numbers: memory in GiB/MiB (1024), files in GB/MB (1000), tokens, rates, times. Pure.

A value nobody could read is None and is written "unknown"; a counted zero is written as 0.
"""

from __future__ import annotations

import datetime as dt

from PySide6.QtCore import QCoreApplication

from kvdesk import sizes
from kvdesk.sizes import GIB, KIB, MIB, figures


def unknown() -> str:
    """The word for a value that could not be read."""
    return QCoreApplication.translate("numbers", "unknown")


def format_bytes(n: float | None) -> str:
    """Memory, 1024-based: 3328599654 -> "3.1 GiB", 503316480 -> "480 MiB", 0 -> "0 MiB"."""
    if n is None:
        return unknown()
    return sizes.format_bytes(n)


def format_bytes_delta(n: float | None) -> str:
    """A difference of memory with its sign: "-480 MiB", "+0.9 GiB", "±0 MiB"."""
    if n is None:
        return unknown()
    return sizes.format_bytes_delta(n)


def format_bytes_pair(part: float | None, whole: float | None) -> str:
    """Two amounts in the unit of the larger: "5.1 / 15.6 GiB", "unknown / 15.6 GiB"."""
    largest = max(abs(part or 0), abs(whole or 0))
    unit, name = (GIB, "GiB") if largest >= 1023.5 * MIB else (MIB, "MiB")

    def write(n: float | None) -> str:
        if n is None:
            return unknown()
        return f"{n / unit:,.1f}" if unit == GIB else figures(n / unit)

    return f"{write(part)} / {write(whole)} {name}"


def format_exact_bytes(n: int | None) -> str:
    """Every byte, for tool tips and tables: "3,328,599,654 bytes"."""
    return unknown() if n is None else f"{n:,} bytes"


def format_file_size(n: float | None) -> str:
    """A file or download, 1000-based: "253 MB", "4.9 GB"."""
    if n is None:
        return unknown()
    return sizes.format_file_size(n)


def format_tokens(n: int | None) -> str:
    """Tokens with separators: "41,216"."""
    return unknown() if n is None else f"{n:,}"


def short_tokens(n: int | None) -> str:
    """Tokens in short, 1024-based as context lengths are named: 32768 -> "32k", 12700 -> "12.4k", 900 -> "900".

    Rounded down, so that nothing looks full before it is.
    """
    if n is None:
        return unknown()
    if n < KIB:
        return str(n)
    unit, name = (MIB, "M") if n >= MIB else (KIB, "k")
    tenths = n * 10 // unit
    return f"{tenths // 10}{name}" if tenths % 10 == 0 else f"{tenths / 10:.1f}{name}"


def format_rate(tokens_per_second: float | None) -> str:
    """Speed: "18.2 tok/s", from a hundred on without decimals."""
    if tokens_per_second is None:
        return unknown()
    return f"{figures(tokens_per_second, limit=100)} tok/s"


def format_ms(ms: float | None) -> str:
    """A duration given in milliseconds: "82 ms", "6.0 s", "1 min 20 s", "2 h 05 min"."""
    if ms is None:
        return unknown()
    if ms < 999.5:
        return f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_percent(fraction: float | None) -> str:
    """A share 0.0 to 1.0: "42 %". Rounded down, so that 100 % is all of it."""
    return unknown() if fraction is None else f"{int(fraction * 100 + 1e-9)} %"


def format_clock(time_s: float, seconds: bool = True) -> str:
    """Local wall-clock time of a Unix time: "14:03:12" or "14:03"."""
    local = dt.datetime.fromtimestamp(time_s, dt.UTC).astimezone()
    return local.strftime("%H:%M:%S" if seconds else "%H:%M")
