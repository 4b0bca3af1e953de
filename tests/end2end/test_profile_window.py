"""The context profile from the menu to the CSV file: real app, real engines, a model that is small enough anywhere."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QCheckBox, QComboBox

from kvdesk.backend.engine.engine_event import EngineState
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.ui.windows.context_profile_window import ProfileWindow
from tests.end2end.conftest import StartApp
from tests.end2end.person import Person
from tests.tiny_models import write_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("llama", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slow enough to be met while it writes."""
    sizes = {"n_layer": 8, "n_embd": 1024, "n_ff": 2048}
    return write_tiny("llama", tmp_path_factory.mktemp("models"), **sizes, file_name="slow.gguf")


def open_profile(person: Person) -> ProfileWindow:
    """By the menu."""
    action = next(one for one in person.window.findChildren(QAction) if one.text() == "Context &profile...")
    action.trigger()
    window = person.app.profiles.window
    assert window
    return window


def start(person: Person, window: ProfileWindow, longest: int, types: set[str]) -> None:
    for box in window.findChildren(QCheckBox):
        box.setChecked(box.text() in types)
    lengths = window.findChild(QComboBox)
    lengths.setCurrentIndex(lengths.findData(longest))
    person.click(window, "Start")


def test_a_profile_is_measured_drawn_and_exported_and_the_chat_goes_on(
    start_app: StartApp, tiny: Path, tmp_path: Path
) -> None:
    person = start_app(tiny)
    before = person.ask("something to remember")
    window = open_profile(person)
    start(person, window, 1024, {"f16", "q8_0"})
    assert person.app.profiles.is_running
    person.wait_until(lambda: not person.app.profiles.is_running)

    assert "4 contexts measured" in window.words, window.words
    assert [row[:2] for row in window.rows()] == [["512", "f16"], ["1,024", "f16"], ["512", "q8_0"], ["1,024", "q8_0"]]
    for row in window.rows():
        assert row[2] == row[3], "the KV cache is as predicted"
        assert "MiB" in row[5]
        assert "tok/s" in row[7]
        assert "tok/s" in row[8]
    assert window.memory_plot is not None

    person.wait_until_ready()  # the model that was unloaded is back
    assert person.app.session.state.file
    assert person.app.session.state.file.path == tiny
    assert person.messages[-1] == before
    assert person.ask("and now?")

    person.app.profiles.export(tmp_path / "profile.csv")
    person.wait_until(lambda: "Exported" in window.words)
    with (tmp_path / "profile.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["n_ctx"], row["type_k"]) for row in rows][-1] == ("1024", "q8_0")
    assert all(int(row["measured_total_bytes"]) > int(row["kv_bytes"]) > 0 for row in rows)
    assert int(rows[1]["kv_bytes"]) == 2 * int(rows[0]["kv_bytes"])


def test_a_profile_is_cancelled_and_the_model_comes_back(start_app: StartApp, tiny: Path) -> None:
    person = start_app(tiny)
    window = open_profile(person)
    start(person, window, 1024, {"f16"})
    person.wait_until(lambda: person.app.engine.state is EngineState.EMPTY)
    person.click(window, "Cancel")
    person.wait_until(lambda: not person.app.profiles.is_running)
    assert "Cancelled" in window.words
    person.wait_until_ready()


def test_opening_a_model_meanwhile_goes_before_the_profile(start_app: StartApp, tiny: Path) -> None:
    person = start_app(tiny)
    window = open_profile(person)
    start(person, window, 1024, {"f16"})
    person.wait_until(lambda: person.app.engine.state is EngineState.EMPTY)
    person.app.models.open(tiny)
    person.wait_until_ready()
    person.wait_until(lambda: not person.app.profiles.is_running)
    assert person.app.engine.state is EngineState.READY


def test_closing_the_app_ends_the_profile(start_app: StartApp, tiny: Path) -> None:
    person = start_app(tiny)
    start(person, open_profile(person), 1024, {"f16"})
    person.wait_until(lambda: person.app.engine.state is EngineState.EMPTY)
    person.app.close()  # the fixture looks for processes that are left
    assert person.app.engine.state is EngineState.STOPPED


def test_nothing_is_measured_without_a_model(start_app: StartApp) -> None:
    person = start_app()
    window = open_profile(person)
    assert not person.button(window, "Start").isEnabled()
    assert "No model is loaded" in window.words


def test_nothing_is_measured_while_a_reply_is_written(start_app: StartApp, slow: Path) -> None:
    person = start_app(slow, sampling=SamplingSettings(temperature=0.0, max_tokens=0))
    window = open_profile(person)
    assert person.button(window, "Start").isEnabled()
    person.send("tell me all")
    person.wait_for_text()
    assert not person.button(window, "Start").isEnabled()
    assert "busy" in window.words
    person.window.composer.stop_action.trigger()  # Esc would close the profile, which has the keyboard
    person.wait_for_reply()
    person.wait_until(lambda: person.button(window, "Start").isEnabled())
    assert window.words == ""
