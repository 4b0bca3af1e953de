"""When short memory is said, by the size of the memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvdesk.backend.planning.headroom_watch import HeadroomWatch
from kvdesk.backend.session_log.recording import room_sentence
from kvdesk.backend.settings import AUTOMATIC_MARGIN, kept_free
from kvdesk.backend.system.samples import DomainReading, MachineReading, Sample
from kvdesk.sizes import GIB, MIB


def sample(capacity_bytes: int, room_bytes: int, margin_bytes: int = AUTOMATIC_MARGIN) -> Sample:
    """One where the prediction leaves ``room_bytes`` under the line."""
    ram = DomainReading("RAM", "ram", capacity_bytes, capacity_bytes, 0, 0, 0)
    line = ram.oom_line(margin_bytes)
    assert line is not None
    predicted = (("RAM", line - room_bytes),)
    return Sample(0.0, 0.0, MachineReading((ram,)), predicted_bytes=predicted, margin_bytes=margin_bytes)


@pytest.mark.parametrize(
    ("margin_bytes", "capacity_bytes", "kept"),
    [
        (AUTOMATIC_MARGIN, 64 * GIB, GIB),
        (AUTOMATIC_MARGIN, None, GIB),
        (AUTOMATIC_MARGIN, 2000 * MIB, 200 * MIB),
        (0, 2000 * MIB, 0),
        (3 * GIB, 2000 * MIB, 3 * GIB),
    ],
)
def test_an_automatic_margin_is_a_gibibyte_or_a_tenth(margin_bytes: int, capacity_bytes: int | None, kept: int) -> None:
    assert kept_free(margin_bytes, capacity_bytes) == kept


@pytest.mark.parametrize(
    ("capacity_bytes", "room_bytes", "level"),
    [
        (32 * GIB, 1025 * MIB, ""),
        (32 * GIB, 1023 * MIB, "amber"),
        (32 * GIB, 511 * MIB, "red"),
        (2000 * MIB, 1000 * MIB, ""),
        (2000 * MIB, 201 * MIB, ""),
        (2000 * MIB, 199 * MIB, "amber"),
        (2000 * MIB, 99 * MIB, "red"),
    ],
)
def test_a_small_memory_is_short_later_than_a_large_one(capacity_bytes: int, room_bytes: int, level: str) -> None:
    changes = HeadroomWatch().feed(sample(capacity_bytes, room_bytes))
    assert [change.level for change in changes] == ([level] if level else [])


def test_weights_that_may_be_dropped_make_it_slow_not_dangerous() -> None:
    """A mapped 20 GiB file on a machine of 16 GiB runs; the alarm was red, as if it would be killed."""
    watch, over = HeadroomWatch(), sample(16 * GIB, -5 * GIB)
    predicted = over.predicted("RAM") or 0
    small = replace(over, must_hold_bytes=(("RAM", predicted - 15 * GIB),))
    (change,) = watch.feed(small)
    assert (change.level, change.is_slow) == ("amber", True)
    assert "read from disk again and again" in room_sentence(change)
    (change,) = watch.feed(replace(over, must_hold_bytes=(("RAM", predicted),)))
    assert (change.level, change.worse, change.is_slow) == ("red", True, False)
    assert "over the OOM line" in room_sentence(change)


def test_a_reading_that_trembles_warns_once_in_a_small_memory_too() -> None:
    watch = HeadroomWatch()
    rooms = [199, 201, 199, 224, 226]
    levels = [[change.level for change in watch.feed(sample(2000 * MIB, room * MIB))] for room in rooms]
    assert levels == [["amber"], [], [], [], [""]]
