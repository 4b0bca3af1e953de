"""The same turns through the window and through ``kvdesk chat`` leave the same session log."""

from __future__ import annotations

import random
from collections import UserList
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvdesk import cli, paths
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.session_log.reader import list_sessions, open_session
from kvdesk.backend.settings import ContextSettings
from kvdesk.backend.system import cpu_fallback
from tests.end2end.conftest import StartApp
from tests.tiny_models import write_tiny

CONTEXT = ContextSettings(n_ctx=512, initial_ctx=256, n_threads=1)
MEASURED = {"ms", "elapsed_ms", "actual_bytes", "predicted_bytes", "path", "settings"}
"""Values that differ from run to run, or by the settings a face was started with."""


def rows() -> list[tuple[str, Any]]:
    """Kinds and values of the newest session's events."""
    session = open_session(list_sessions(paths.sessions_dir())[0].path)
    return [(event.kind, _comparable(event.values)) for event in session.events if event.kind not in ("start", "exit")]


def _comparable(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: None if name in MEASURED else _comparable(value) for name, value in values.items()}
    return [_comparable(value) for value in values] if isinstance(values, list) else values


def test_window_and_terminal_record_the_same(start_app: StartApp, tmp_path: Path) -> None:
    model = write_tiny("llama", tmp_path)
    cpu_fallback.remember(paths.fallback_file())  # so that no face is the first to find it out
    sampling = SamplingSettings(temperature=0.0, max_tokens=600)
    person = start_app(model, context=CONTEXT, sampling=sampling, overflow="stop")
    person.ask("hello")
    person.wait_until(lambda: person.app.session.state.comparison)
    person.app.close()
    window = rows()
    flags = ["--n-ctx", "512", "--initial-ctx", "256", "--threads", "1", "--temperature", "0", "--max-tokens", "600"]
    assert cli.main(["chat", str(model), "-p", "hello", *flags]) == 0
    terminal = rows()
    assert sorted(map(str, window)) == sorted(map(str, terminal))
    assert {kind for kind, _ in window} == {"load", "ready", "grow", "predicted", "overflow", "unload"}
    in_order = [kind for kind, _ in window if kind != "predicted"]  # which the planner writes when it can
    assert in_order == [kind for kind, _ in terminal if kind != "predicted"]


class Shuffled(UserList[Any]):
    """Another order each time it is gone through."""

    def __init__(self, items: Iterable[Any], chance: random.Random) -> None:
        super().__init__(items)
        self._chance = chance

    def __iter__(self) -> Iterator[Any]:
        return iter(self._chance.sample(self.data, len(self.data)))


@pytest.mark.logs("The engine was killed from outside")
def test_the_order_of_listeners_does_not_matter(start_app: StartApp, tmp_path: Path) -> None:
    """Load, growth, a change of the context, another model, a death and a reload, with a new order for every event."""
    llama, gemma = write_tiny("llama", tmp_path), write_tiny("gemma3", tmp_path)
    person = start_app(llama, context=CONTEXT, sampling=SamplingSettings(temperature=0.0, max_tokens=300))
    app = person.app
    app.listeners = Shuffled(app.listeners, random.Random(4))
    person.ask("hello")
    person.wait_until(lambda: app.session.state.context and app.session.state.context.n_ctx == 512)
    person.window.settings_panel.edit_n_ctx(1024)
    person.click(person.window.settings_panel, "Apply")
    person.wait_for_notice("Context recreated")
    person.wait_until_ready()
    assert any(fact.endswith("/ 1k tokens") for fact in person.window.model_bar.face_texts)
    app.models.open(gemma)
    person.wait_until(lambda: app.session.state.file and app.session.state.file.path == gemma and person.can_send)
    assert "gemma3" in person.model_name
    process = app.engine.pid
    assert process
    _kill(process)
    person.wait_until(person.window.crash_card.isVisible)
    assert not person.can_send
    assert person.window.crash_card._plot is not None
    person.click(person.window.crash_card, "Reload")
    person.wait_until_ready()
    assert not person.window.crash_card.isVisible()
    person.window.conversation_list.new_action.trigger()
    assert person.ask("still there?")


def _kill(pid: int) -> None:
    import psutil

    psutil.Process(pid).kill()
