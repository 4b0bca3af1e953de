"""controllers/plan.py without a window: what is asked of the planner, and that an old price is never shown as a new one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kvdesk.backend.engine.engine_event import Died, EngineState
from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.planning.plan import MemoryPlan
from kvdesk.backend.planning.plan_event import PlanReady
from kvdesk.backend.settings import EngineSettings
from kvdesk.errors import EngineDied
from kvdesk.ui.controllers.plan import PlanController
from kvdesk.ui.memory.memory_dock import MemoryDock
from kvdesk.ui.settings.settings_panel import SettingsPanel
from tests.fakes import memory_pictures as pictures
from tests.ui.controllers.conftest import SETTINGS, Desk


@dataclass
class Shown:
    """The controller, and the panel that shows its prices."""

    desk: Desk
    plans: PlanController
    panel: SettingsPanel

    def answer(self, request_id: int, file: ModelFile, settings: EngineSettings, longest: int) -> MemoryPlan:
        """The planner's answer to a question; ``longest`` tells plans apart."""
        plan = replace(pictures.plan(), settings=settings, max_n_ctx=longest)
        self.desk.take(PlanReady(request_id, file.path, file, plan, is_final=True))
        return plan


@pytest.fixture
def shown(desk: Desk) -> Shown:
    panel = desk.widget(SettingsPanel)
    plans = PlanController(desk.session, panel, desk.widget(MemoryDock), desk.owner)
    desk.follow(plans)
    return Shown(desk, plans, panel)


def test_only_the_newest_edit_is_shown(shown: Shown, tiny: ModelFile) -> None:
    shown.desk.load(tiny)
    longer = [replace(SETTINGS, context=replace(SETTINGS.context, n_ctx=n)) for n in (1024, 2048)]
    for settings in longer:
        shown.panel.settings_edited.emit(settings)
    first, second = (shown.desk.planner.number_of("plan", tiny.path, settings) for settings in longer)
    shown.answer(second, tiny, longer[1], 30_000)
    shown.answer(first, tiny, longer[0], 10_000)
    assert shown.plans.longest == 30_000


def test_the_price_on_screen_follows_other_programs(shown: Shown, tiny: ModelFile) -> None:
    shown.desk.load(tiny)
    plan = shown.answer(shown.desk.planner.number_of("plan", tiny.path, SETTINGS), tiny, SETTINGS, 30_000)
    said = shown.panel.bar.verdict
    for others in (2, 12):
        shown.plans.on_sample_taken(pictures.sample(others=others * pictures.GIB))
        assert shown.panel.bar.verdict != said
        said = shown.panel.bar.verdict
    assert shown.plans.longest == plan.max_n_ctx
    longer = replace(SETTINGS, context=replace(SETTINGS.context, n_ctx=1024))
    shown.panel.settings_edited.emit(longer)
    shown.plans.on_sample_taken(pictures.sample(others=2 * pictures.GIB))
    assert shown.panel.bar.verdict == said  # of the settings before: another price is on its way


def test_a_loaded_model_is_priced_with_its_tables(shown: Shown, tiny: ModelFile) -> None:
    shown.desk.load(tiny)
    asked = {call[0] for call in shown.desk.planner.calls}
    assert {"plan", "kv_table", "capacity"} <= asked


def test_a_death_has_half_the_context_priced(shown: Shown, tiny: ModelFile) -> None:
    offered: list[MemoryPlan] = []
    shown.plans.smaller_priced.connect(offered.append)
    large = replace(SETTINGS, context=replace(SETTINGS.context, n_ctx=4096))
    shown.desk.load(tiny, large)
    shown.desk.take(Died(EngineDied("It was killed."), EngineState.READY, 0, Path("engine.log")))
    half = replace(large, context=replace(large.context, n_ctx=2048))
    plan = shown.answer(shown.desk.planner.number_of("plan", tiny.path, half, "smaller"), tiny, half, 3000)
    assert offered == [plan]
