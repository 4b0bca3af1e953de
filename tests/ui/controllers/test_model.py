"""controllers/model.py without a window: a model is priced before it is loaded, and asked about where it does not fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from kvdesk.backend.engine.engine_event import EngineState, StateChanged
from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.planning.plan_event import PlanFailed, PlanReady
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import OWN_TEMPLATE
from kvdesk.ui.controllers.bridge import Bridge
from kvdesk.ui.controllers.model import LOAD_ANYWAY, ModelController
from kvdesk.ui.controllers.plan import PlanController
from kvdesk.ui.memory.memory_dock import MemoryDock
from kvdesk.ui.panels.model_bar import ModelBar
from kvdesk.ui.panels.options_card import OptionsCard
from kvdesk.ui.settings.settings_panel import SettingsPanel
from tests.fakes import memory_pictures as pictures
from tests.ui.controllers.conftest import SETTINGS, Desk


@dataclass
class Shown:
    """The controller, and where it asks and shows."""

    desk: Desk
    models: ModelController
    card: OptionsCard
    panel: SettingsPanel
    qtbot: QtBot

    def open(self, path: Path) -> None:
        """Open a model and wait until its price is asked for."""
        self.models.open(path)
        self.qtbot.waitUntil(lambda: self.desk.session.state.asked is not None)
        self.desk.tell()

    def price(self, file: ModelFile, *, fits: bool) -> None:
        """The planner's answer to the load that is asked about."""
        asked = self.desk.session.state.asked
        assert asked
        plan = replace(pictures.plan(line=7 * pictures.GIB if fits else pictures.GIB), settings=asked.choice.settings)
        self.desk.take(PlanReady(asked.request_id, file.path, file, plan, is_final=True))

    @property
    def loads(self) -> list[tuple[object, ...]]:
        """The engine's load commands."""
        return [call for call in self.desk.asked.calls if call[0] == "load"]


@pytest.fixture
def shown(desk: Desk, bridge: Bridge, qtbot: QtBot) -> Shown:
    bar, panel = desk.widget(ModelBar), desk.widget(SettingsPanel)
    dock, card = desk.widget(MemoryDock), desk.widget(OptionsCard)
    plans = PlanController(desk.session, panel, dock, desk.owner)
    models = ModelController(desk.session, plans, bridge, bar, panel, dock, card, lambda _: SETTINGS, desk.owner)
    desk.follow(plans, models)
    return Shown(desk, models, card, panel, qtbot)


def test_what_fits_is_loaded_as_soon_as_it_is_priced(shown: Shown, tiny: ModelFile) -> None:
    shown.open(tiny.path)
    assert not shown.loads
    shown.price(tiny, fits=True)
    assert shown.loads == [("load", tiny.path, SETTINGS, OWN_TEMPLATE)]
    assert shown.card.isHidden()


def test_what_does_not_fit_is_asked_about_and_loaded_anyway_on_request(shown: Shown, tiny: ModelFile) -> None:
    shown.open(tiny.path)
    shown.price(tiny, fits=False)
    assert not shown.loads
    assert not shown.card.isHidden()
    shown.qtbot.mouseClick(shown.card.buttons[LOAD_ANYWAY], Qt.MouseButton.LeftButton)
    assert shown.loads == [("load", tiny.path, SETTINGS, OWN_TEMPLATE)]


def test_a_file_that_is_no_model_is_said_and_changes_nothing(shown: Shown, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")
    shown.models.open(broken)
    shown.qtbot.waitUntil(lambda: bool(shown.desk.said))
    assert shown.desk.said[0][1] == "error"
    assert shown.desk.session.state.asked is None


def test_what_the_planner_cannot_read_is_not_loaded(shown: Shown, tiny: ModelFile) -> None:
    shown.open(tiny.path)
    asked = shown.desk.session.state.asked
    assert asked
    shown.desk.take(PlanFailed(asked.request_id, tiny.path, "ModelFileError", "The file is cut short."))
    assert shown.desk.said == [("The file is cut short.", "error")]
    assert not shown.loads


def test_what_the_planner_cannot_price_is_loaded_for_the_engine_to_say_why(shown: Shown, tiny: ModelFile) -> None:
    shown.open(tiny.path)
    asked = shown.desk.session.state.asked
    assert asked
    shown.desk.take(PlanFailed(asked.request_id, tiny.path, "PlanError", "The dry run died."))
    assert len(shown.loads) == 1


def test_settings_are_applied_by_a_new_context_or_a_new_load(shown: Shown, tiny: ModelFile) -> None:
    shown.desk.load(tiny)
    longer = replace(SETTINGS, context=replace(SETTINGS.context, n_ctx=1024))
    shown.models.apply(longer)
    assert shown.desk.asked.sent(m.SetContext)[-1].settings == longer.context
    mapped = replace(SETTINGS, model=replace(SETTINGS.model, use_mmap=False))
    shown.models.apply(mapped)
    assert shown.loads[-1] == ("load", tiny.path, mapped, OWN_TEMPLATE)


def test_what_crashed_is_loaded_again_without_the_gpu(shown: Shown, tiny: ModelFile) -> None:
    shown.desk.load(tiny)
    shown.models.reload_without_gpu()
    shown.qtbot.waitUntil(lambda: len(shown.loads) == 2)
    assert shown.loads[-1][2] == replace(SETTINGS, model=replace(SETTINGS.model, n_gpu_layers=0))
    shown.models.reload(256)
    shown.qtbot.waitUntil(lambda: len(shown.loads) == 3)
    assert shown.desk.session.state.settings.model.n_gpu_layers == 0


def test_a_busy_engine_takes_no_settings_and_says_so(shown: Shown, tiny: ModelFile) -> None:
    shown.desk.load(tiny)
    shown.desk.take(StateChanged(EngineState.READY, EngineState.GENERATING, 4242))
    shown.models.apply(SETTINGS)
    assert shown.desk.said[-1][1] == "warning"
    assert not shown.desk.asked.sent(m.SetContext)
