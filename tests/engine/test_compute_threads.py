"""The engine's threads sleep soon when they wait for each other, unless the person's environment says otherwise."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kvdesk.backend.engine.engine import Engine
from kvdesk.backend.processes.compute_threads import SPIN_COUNT
from tests.engine.harness import Desk
from tests.tiny_models import write_tiny


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp says what it was told there")
@pytest.mark.parametrize(("chosen", "expected"), [({}, SPIN_COUNT), ({"GOMP_SPINCOUNT": "7"}, 7)])
def test_waiting_threads_leave_the_processor_to_others(tmp_path: Path, chosen: dict[str, str], expected: int) -> None:
    with Desk(tmp_path) as desk:
        desk.engine.shutdown()
        desk.engine = Engine(desk.events.put, tmp_path, environment={"OMP_DISPLAY_ENV": "verbose", **chosen})
        desk.load(write_tiny("llama", tmp_path))
        assert f"GOMP_SPINCOUNT = '{expected}'" in desk.engine.log_path.read_text()
