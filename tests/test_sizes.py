"""Sizes are written alike wherever a person reads them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kvdesk import sizes
from kvdesk.sizes import GIB, KIB, MIB

PACKAGE = Path(sizes.__file__).parent


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "unknown"),
        (0, "0 MiB"),
        (512, "512 B"),
        (2048, "2 KiB"),
        (1.5 * KIB, "1.5 KiB"),
        (480 * MIB, "480 MiB"),
        (-480 * MIB, "-480 MiB"),
        (4.5 * MIB, "4.5 MiB"),
        (1010 * MIB, "1,010 MiB"),
        (1023.7 * MIB, "1.0 GiB"),
        (3328599654, "3.1 GiB"),
        (-1.2 * GIB, "-1.2 GiB"),
        (2048 * GIB, "2,048.0 GiB"),
    ],
)
def test_memory_is_written_in_powers_of_1024(size: float | None, text: str) -> None:
    assert sizes.format_bytes(size) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (-480 * MIB, "-480 MiB"),
        (0.9 * GIB, "+922 MiB"),
        (1.9 * GIB, "+1.9 GiB"),
        (0, "±0 MiB"),
        (None, "unknown"),
    ],
)
def test_a_difference_always_has_its_sign(size: float | None, text: str) -> None:
    assert sizes.format_bytes_delta(size) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(253_115_392, "253 MB"), (4_920_000_000, "4.9 GB"), (999_999_999, "1.0 GB"), (12, "12 B"), (None, "unknown")],
)
def test_files_are_written_in_powers_of_1000(size: float | None, text: str) -> None:
    assert sizes.format_file_size(size) == text


def test_nobody_else_writes_a_size() -> None:
    """The axes of charts have ticks between the tenths (1.25 GiB), a pair shares one unit, and a token costs KiB with three figures."""
    allowed = {"sizes.py", "ui/memory/plots/ticks.py", "ui/widgets/numbers.py", "backend/planning/explain.py"}
    unit = re.compile(r"""\}\s?(?:[KMG]iB|[kMGT]B)\b|["']\s?(?:[KMGT]iB|[kMGT]B)["']""")
    fields = {"backend/preferences.py", "ui/settings/margin_field.py"}  # number fields have one unit
    kernel = {"backend/system/procfs.py", "backend/system/drm_clients.py"}  # read it
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
        if unit.search(line)
    }
    assert found - allowed - fields - kernel == set()
