"""An engine that faults with repacked weights, under the real window: said, remembered, and forgotten on request."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PySide6.QtWidgets import QPushButton

from kvdesk import paths
from kvdesk.backend.engine import engine as engine_module
from kvdesk.backend.settings import ContextSettings, ModelSettings
from kvdesk.backend.system import cpu_fallback
from tests.end2end.conftest import StartApp
from tests.fakes import scripted_engine
from tests.tiny_models import write_tiny


@pytest.mark.logs("The engine crashed")
@pytest.mark.skipif(sys.platform == "win32", reason="dies of signals")
def test_falling_back_is_said_remembered_and_can_be_forgotten(
    start_app: StartApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = start_app()
    monkeypatch.setattr(engine_module, "worker_main", scripted_engine.faults_with_repacking)
    monkeypatch.setattr("tests.end2end.person.MODEL", ModelSettings())
    person.app.model_memory._memories.clear()
    person.app._save_preferences(
        engine=person.app.preferences.engine.__class__(ModelSettings(), ContextSettings(n_ctx=512, n_threads=1))
    )
    person.app.models.open(write_tiny("llama", tmp_path))
    person.wait_for_notice("repacked weights")
    person.wait_until(lambda: person.app.session.state.model is not None)
    assert not person.app.session.state.settings.model.use_extra_bufts
    person.wait_until(lambda: person.app.session.state.predicted)  # of what is in force now
    assert not cpu_fallback.remembered(ModelSettings(), paths.fallback_file()).use_extra_bufts
    again = next(
        button
        for button in person.window.transcript.findChildren(QPushButton)
        if button.text() == "Try them again next time"
    )
    again.click()
    person.wait_for_notice("tried again")
    assert cpu_fallback.remembered(ModelSettings(), paths.fallback_file()).use_extra_bufts
