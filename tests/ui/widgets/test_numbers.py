"""The numbers a user reads."""

from __future__ import annotations

import pytest

from kvdesk.ui.widgets import numbers as n

MIB = 1024**2
GIB = 1024**3


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "unknown"),
        (0, "0 MiB"),
        (512, "512 B"),
        (1536, "1.5 KiB"),
        (480 * MIB, "480 MiB"),
        (4.5 * MIB, "4.5 MiB"),
        (1023.7 * MIB, "1.0 GiB"),
        (3.1 * GIB, "3.1 GiB"),
        (-1.2 * GIB, "-1.2 GiB"),
        (2048 * GIB, "2,048.0 GiB"),
    ],
)
def test_memory_is_written_in_powers_of_1024(size, text):
    assert n.format_bytes(size) == text


def test_a_difference_always_has_its_sign():
    assert n.format_bytes_delta(-480 * MIB) == "-480 MiB"
    assert n.format_bytes_delta(0.9 * GIB) == "+922 MiB"
    assert n.format_bytes_delta(1.9 * GIB) == "+1.9 GiB"
    assert n.format_bytes_delta(0) == "±0 MiB"
    assert n.format_bytes_delta(None) == "unknown"


def test_a_pair_shares_one_unit_and_keeps_unknown_apart_from_zero():
    assert n.format_bytes_pair(5.1 * GIB, 15.6 * GIB) == "5.1 / 15.6 GiB"
    assert n.format_bytes_pair(300 * MIB, 900 * MIB) == "300 / 900 MiB"
    assert n.format_bytes_pair(None, 8 * GIB) == "unknown / 8.0 GiB"
    assert n.format_bytes_pair(0, 8 * GIB) == "0.0 / 8.0 GiB"


def test_files_are_written_in_powers_of_1000():
    assert n.format_file_size(253_115_392) == "253 MB"
    assert n.format_file_size(4_920_000_000) == "4.9 GB"
    assert n.format_file_size(999_999_999) == "1.0 GB"
    assert n.format_file_size(None) == "unknown"


@pytest.mark.parametrize(
    ("tokens", "text"),
    [(0, "0"), (900, "900"), (1024, "1k"), (12_700, "12.4k"), (32_767, "31.9k"), (32_768, "32k"), (1 << 20, "1M")],
)
def test_short_tokens_never_look_full_before_they_are(tokens, text):
    assert n.short_tokens(tokens) == text


def test_tokens_rates_times_and_shares():
    assert n.format_tokens(41_216) == "41,216"
    assert n.format_rate(18.23) == "18.2 tok/s"
    assert n.format_rate(7.0) == "7.0 tok/s"
    assert n.format_rate(1834.4) == "1,834 tok/s"
    assert n.format_ms(82.4) == "82 ms"
    assert n.format_ms(6_020) == "6.0 s"
    assert n.format_ms(80_000) == "1 min 20 s"
    assert n.format_ms(7_500_000) == "2 h 05 min"
    assert n.format_percent(0.999) == "99 %"
    for write in (n.format_tokens, n.format_rate, n.format_ms, n.format_percent, n.short_tokens, n.format_exact_bytes):
        assert write(None) == "unknown"
