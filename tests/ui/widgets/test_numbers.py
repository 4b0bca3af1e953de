"""The numbers a user reads."""

from __future__ import annotations

import pytest

from kvdesk.ui.widgets import numbers as n

MIB = 1024**2
GIB = 1024**3


def test_a_size_nobody_could_read_is_unknown_in_the_users_language(monkeypatch):
    monkeypatch.setattr(n.QCoreApplication, "translate", lambda _, word: {"unknown": "unbekannt"}[word])
    assert [n.format_bytes(None), n.format_bytes_delta(None), n.format_file_size(None)] == ["unbekannt"] * 3
    assert [n.format_bytes(480 * MIB), n.format_bytes_delta(1), n.format_file_size(1e9)] == [
        "480 MiB",
        "+1 B",
        "1.0 GB",
    ]


def test_a_pair_shares_one_unit_and_keeps_unknown_apart_from_zero():
    assert n.format_bytes_pair(5.1 * GIB, 15.6 * GIB) == "5.1 / 15.6 GiB"
    assert n.format_bytes_pair(300 * MIB, 900 * MIB) == "300 / 900 MiB"
    assert n.format_bytes_pair(None, 8 * GIB) == "unknown / 8.0 GiB"
    assert n.format_bytes_pair(0, 8 * GIB) == "0.0 / 8.0 GiB"


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
