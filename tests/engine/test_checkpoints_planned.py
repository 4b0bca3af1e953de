"""What the engine's checkpoints come to hold in a long conversation is in the plan before the model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvdesk.backend.gguf.model_file import read_model_file
from kvdesk.backend.planning.calibration import Calibration
from kvdesk.backend.planning.pricer import Pricer
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import CHECKPOINTS_KEPT
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
from tests.engine.harness import Desk
from tests.tiny_models import write_tiny

CONTEXT = ContextSettings(n_ctx=2048, allocation="reserve")
SHORT = SamplingSettings(temperature=0.0, max_tokens=8)
HEADERS_BYTES = 32 * 1024
"""A saved state names its cells: some bytes each."""


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "mamba", "falcon-h1"])
def test_twelve_turns_hold_what_was_planned(architecture: str, tmp_path: Path) -> None:
    path = write_tiny(architecture, tmp_path)
    settings = EngineSettings(ModelSettings(use_extra_bufts=False), CONTEXT)
    with Pricer(read_model_file(path), Calibration(tmp_path / "calibration.json")) as pricer:
        ram = pricer.plan(settings, (), with_max=False).devices[0]
    with Desk(tmp_path) as desk:
        desk.load(path, CONTEXT)
        said: list[str] = []
        for number in range(12):
            said += [f"{number} and {number} is what, in so many words as it takes?"]
            said.append(desk.answer(*said, sampling=SHORT)[0])
        kept = desk.of(m.TurnFinished)[-1].kv.checkpoints_bytes
    assert kept <= ram.checkpoints_bytes + HEADERS_BYTES
    # not more was planned than full windows would take: as many checkpoints as are kept, the oldest before the window is full
    assert kept * 2 > ram.checkpoints_bytes
    assert kept > CHECKPOINTS_KEPT
