"""controllers/library.py without downloads: its threads start when it is asked, and its badges leave the engine alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from kvdesk.backend.engine.engine_event import EngineState, StateChanged
from kvdesk.backend.preferences import Preferences
from kvdesk.ui.controllers.bridge import Bridge
from kvdesk.ui.controllers.library import LibraryController
from kvdesk.ui.widgets.theme import LIGHT
from tests.tiny_models import write_tiny
from tests.ui.controllers.conftest import Desk


@pytest.fixture
def library(desk: Desk, bridge: Bridge, home: Path) -> Iterator[LibraryController]:
    controller = LibraryController(Preferences, bridge, desk.owner, LIGHT)
    desk.follow(controller)
    yield controller
    controller.close()


def test_nothing_of_it_exists_before_it_is_asked_for(library: LibraryController, desk: Desk) -> None:
    desk.take(StateChanged(EngineState.EMPTY, EngineState.LOADING, 4242))
    assert library.window is None
    assert library._library is None


def test_a_folder_of_the_person_is_kept_once(library: LibraryController, qtbot: QtBot, tmp_path: Path) -> None:
    write_tiny("llama", tmp_path)
    chosen: list[tuple[str, ...]] = []
    library.folders_chosen.connect(chosen.append)
    library.show()
    library.add_folder(str(tmp_path))
    assert chosen == [(str(tmp_path),)]


def test_choosing_a_model_opens_it_and_hides_the_window(library: LibraryController, qtbot: QtBot) -> None:
    opened: list[str] = []
    library.open_requested.connect(opened.append)
    library.show()
    window = library.window
    assert window
    window.local.open_requested.emit("/models/a.gguf")
    assert opened == ["/models/a.gguf"]
    assert not window.isVisible()
