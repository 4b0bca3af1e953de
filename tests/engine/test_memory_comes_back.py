"""What a freed context held is the system's again, however often contexts are made: no creep, no high-water mark."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kvdesk.backend.protocol import messages as m
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings
from kvdesk.backend.system.process_memory import family_memory
from kvdesk.sizes import MIB
from tests.engine.harness import Desk

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="how memory is given back is the C library's")
SHORT = SamplingSettings(temperature=0.0, max_tokens=20)
SLACK_BYTES = 10 * MIB


def held(desk: Desk) -> int:
    """Anonymous bytes of the engine, to the page."""
    pid = desk.engine.pid
    memory = family_memory((pid,), exact=True) if pid else None
    assert memory
    assert memory.anonymous_bytes
    return memory.anonymous_bytes


def change(desk: Desk, n_ctx: int) -> None:
    desk.engine.send(m.SetContext(ContextSettings(n_ctx=n_ctx, allocation="reserve")))
    desk.until(m.ContextMade)


def test_a_hundred_contexts_hold_no_more_than_the_first(tmp_path: Path, starter: Path) -> None:
    with Desk(tmp_path) as desk:
        desk.load(starter, ContextSettings(n_ctx=512, allocation="reserve"))
        said: list[str] = []
        for number in range(5):  # each leaves a checkpoint of some MiB
            said += [f"What is {number} and {number}?"]
            said.append(desk.answer(*said, sampling=SHORT)[0])
        change(desk, 8192)
        change(desk, 512)
        first = held(desk)
        for n_ctx in (24_576, *(8192, 512) * 49, 24_576, 512):
            change(desk, n_ctx)
        assert held(desk) < first + SLACK_BYTES
