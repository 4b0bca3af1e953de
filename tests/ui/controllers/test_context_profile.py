"""controllers/context_profile.py without a run: when a profile can begin, and why not. A real run: tests/end2end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kvdesk.backend.engine.engine_event import EngineState, StateChanged
from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.protocol import messages as m
from kvdesk.ui.controllers.bridge import Bridge
from kvdesk.ui.controllers.context_profile import ContextProfileController
from kvdesk.ui.widgets.theme import LIGHT
from tests.ui.controllers.conftest import SETTINGS, Desk


@pytest.fixture
def profiles(desk: Desk, bridge: Bridge) -> Iterator[ContextProfileController]:
    unused: Any = SimpleNamespace(note=lambda _: None)
    controller = ContextProfileController(desk.session, unused, unused, unused, bridge, desk.owner, LIGHT)
    desk.follow(controller)
    controller.show()
    yield controller
    controller.close()


def test_without_a_model_nothing_begins(profiles: ContextProfileController, desk: Desk) -> None:
    profiles.start(("f16",), 1024)
    assert not profiles.is_running
    assert not desk.asked.sent(m.Unload)


def test_while_a_reply_is_written_nothing_begins(
    profiles: ContextProfileController, desk: Desk, tiny: ModelFile
) -> None:
    desk.load(tiny)
    desk.take(StateChanged(EngineState.READY, EngineState.GENERATING, 4242))
    profiles.start(("f16",), 1024)
    assert not profiles.is_running
    assert "busy" in profiles._why_not()


def test_a_model_spread_over_the_network_is_sent_to_the_terminal(
    profiles: ContextProfileController, desk: Desk, tiny: ModelFile
) -> None:
    desk.load(tiny, replace(SETTINGS, model=replace(SETTINGS.model, rpc_servers=("host:1",))))
    profiles.start(("f16",), 1024)
    assert not profiles.is_running
    assert "kvdesk profile" in profiles._why_not()


def test_an_export_that_fails_is_said_in_the_window(
    profiles: ContextProfileController, tmp_path: Path, qtbot: Any
) -> None:
    missing = tmp_path / "no folder" / "profile.csv"
    profiles.export(missing)
    window = profiles.window
    assert window
    qtbot.waitUntil(lambda: str(missing) in window.words)
