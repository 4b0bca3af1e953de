"""backend/engine/pulse.py: when a silent engine is given up. The clock is the test's."""

from __future__ import annotations

from kvdesk.backend.engine.pulse import EVERY_S, PATIENCE_S, Pulse


def looked(pulse: Pulse, from_s: float, to_s: float) -> list[float]:
    """Look once a second; ask when it is due. The seconds at which it counted as lost."""
    lost: list[float] = []
    now = from_s
    while now <= to_s:
        pulse.look(now)
        if pulse.is_due(now):
            pulse.asked(now)
        if pulse.is_lost(now):
            lost.append(now)
        now += 1.0
    return lost


def test_an_engine_that_stops_is_given_up_within_15_seconds() -> None:
    for silent_from in range(100, 106):
        pulse = Pulse()
        for now in range(90, silent_from):
            looked(pulse, now, now)
            pulse.answered()
        lost = looked(pulse, silent_from, silent_from + 30)
        assert lost[0] - silent_from <= 15


def test_an_engine_that_answers_is_never_given_up() -> None:
    pulse = Pulse()
    for now in range(1, 200):
        assert not looked(pulse, now, now)
        pulse.answered()


def test_sleep_of_the_computer_is_not_silence() -> None:
    pulse = Pulse()
    pulse.look(10.0)
    pulse.asked(10.0)
    assert not looked(pulse, 4000.0, 4000.0 + PATIENCE_S - 2)
    pulse.answered()
    assert not looked(pulse, 4010.0, 4010.0 + EVERY_S)


def test_an_end_that_is_wanted_shortens_the_patience_and_never_lengthens_it() -> None:
    pulse = Pulse()
    pulse.asked(10.0)
    pulse.asked(11.0, 2.0)
    assert pulse.is_lost(13.5)
    pulse.asked(12.0)
    assert pulse.is_lost(13.5)
