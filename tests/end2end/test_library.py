"""The model library in the real window: found, priced, downloaded from a hub on this machine, opened, deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QMessageBox

from kvdesk import paths
from kvdesk.backend.library import badges
from kvdesk.backend.library import library as library_module
from kvdesk.backend.library.first_models import FirstModel
from kvdesk.backend.library.hub.download import staging_dir
from kvdesk.backend.system.samples import DomainReading
from kvdesk.ui.chat.empty_view import EmptyView
from kvdesk.ui.windows.library_window import LibraryWindow
from tests.end2end.conftest import StartApp
from tests.end2end.person import Person
from tests.fakes.fake_hub import REVISION, FakeHub, FakeRepository
from tests.tiny_models import CHATML, write_tiny

REPO = "maker/tiny-GGUF"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("llama", tmp_path_factory.mktemp("tiny"), n_ctx_train=4096, chat_template=CHATML)


@pytest.fixture
def fake(tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "person")  # no other program's models
    for variable in ("HTTP_PROXY", "http_proxy", "HF_TOKEN", "HF_HUB_CACHE", "HF_HOME", "OLLAMA_MODELS", "LLAMA_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    with FakeHub() as hub:
        content = tiny.read_bytes()
        hub.repositories[REPO] = FakeRepository({"t-Q4_0.gguf": content, "t-Q8_0.gguf": content + bytes(50)})
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def library(person: Person) -> LibraryWindow:
    """Opened through its menu."""
    next(action for action in person.window.findChildren(QAction) if action.text() == "&Models...").trigger()
    window = person.app.library.window
    assert window is not None
    return window


def names(window: LibraryWindow) -> list[str]:
    model = window.local.view.model()
    return [model.index(row, 0).data() for row in range(model.rowCount())]


def test_from_a_search_to_a_chat(start_app: StartApp, fake: FakeHub) -> None:
    person = start_app()
    window = library(person)
    person.wait_until(lambda: "no models" in window.local.words.text())
    assert fake.requests == []  # nothing is asked until somebody searches

    window.show_hub()
    window.hub.field.setText("tiny")
    window.hub.search_button.click()
    person.wait_until(lambda: window.hub.repositories.topLevelItemCount() == 1)
    window.hub.repositories.setCurrentItem(window.hub.repositories.topLevelItem(0))
    person.wait_until(lambda: window.hub.words.text().startswith("★"))
    assert window.hub.chosen is not None
    assert window.hub.chosen.name == "t-Q8_0"
    window.hub.download_button.click()
    person.wait_until(lambda: [row.action.text() for row in window.downloads.rows.values()] == ["Open"])

    window.pages.setCurrentWidget(window.local)
    person.wait_until(lambda: names(window) == ["Tiny llama"])
    person.wait_until(lambda: window.local.view.model().index(0, 1).data() == "Fits with all of its 4k tokens")
    next(iter(window.downloads.rows.values())).action.click()
    person.wait_until_ready()
    assert not window.isVisible()
    assert person.ask("Hello")

    window = library(person)
    person.wait_until(lambda: names(window) == ["Tiny llama"])
    window.local.choose(str(paths.models_dir() / "maker" / "tiny-GGUF" / "t-Q8_0.gguf"))
    window.local.delete_button.click()
    box = window.local.findChild(QMessageBox)
    assert isinstance(box, QMessageBox)
    box.button(QMessageBox.StandardButton.Yes).click()
    person.wait_until(lambda: names(window) == [])
    assert list(paths.models_dir().rglob("*.gguf")) == []


def test_a_newcomer_chooses_and_chats(
    start_app: StartApp, fake: FakeHub, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tiny.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    offer = FirstModel(
        "Tiny", REPO, REVISION, "t-Q4_0.gguf", len(content), digest, "Q4_0", "MIT", 1000, 1000, "Is tiny."
    )
    monkeypatch.setattr(library_module, "read_first_models", lambda folder: (offer,))
    person = start_app()
    person.window.transcript.findChild(EmptyView).models_button.click()
    window = person.app.library.window
    assert window is not None
    assert window.pages.currentWidget() is window.first
    person.wait_until(lambda: "Tiny" in window.first.buttons)
    assert fake.requests == []
    window.first.buttons["Tiny"].click()
    person.wait_until_ready()
    assert not window.isVisible()
    assert person.ask("Hello")


def test_what_does_not_fit_is_not_downloaded(
    start_app: StartApp, fake: FakeHub, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(badges, "read_domains", lambda devices=(): [DomainReading("RAM", "ram", 10**7, 10**7, 0, 0, 0)])
    content = tiny.read_bytes()
    offer = FirstModel(
        "Tiny", REPO, REVISION, "t-Q4_0.gguf", len(content), "0" * 64, "Q4_0", "MIT", 1000, 1000, "Is tiny."
    )
    monkeypatch.setattr(library_module, "read_first_models", lambda folder: (offer,))
    person = start_app()
    person.app.library.show_first()
    window = person.app.library.window
    assert window is not None
    person.wait_until(lambda: "Tiny" in window.first.buttons)
    window.first.buttons["Tiny"].click()
    person.wait_until(lambda: "was not downloaded" in window.first.words.text())
    assert person.app.library.library.downloads.states == ()


def test_a_download_goes_on_after_a_restart(start_app: StartApp, fake: FakeHub) -> None:
    person = start_app()
    window = library(person)
    window.hub.search_requested.emit(f"{REPO}:Q4_0", "downloads")
    person.wait_until(lambda: window.hub.chosen is not None)
    person.wait_until(lambda: window.hub.words.text().startswith("★"))
    fake.hold(64 * 1024)
    window.hub.download_button.click()
    staging = staging_dir(paths.models_dir())
    person.wait_until(lambda: [part.stat().st_size for part in staging.glob("*.part")] == [64 * 1024])
    person.app.close()
    fake.hold(None)
    asked = len(fake.requests)

    person = start_app()
    window = library(person)
    [row] = window.downloads.rows.values()
    assert row.action.text() == "Resume"
    assert row.state.done_bytes == 64 * 1024
    assert len(fake.requests) == asked
    row.action.click()
    person.wait_until(lambda: row.action.text() == "Open")
    assert "bytes=65536-" in [request.headers.get("Range") for request in fake.requests]
    assert [path.name for path in paths.models_dir().rglob("*.gguf")] == ["t-Q4_0.gguf"]


def test_a_folder_of_ones_own_is_watched(start_app: StartApp, fake: FakeHub, tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "first.gguf").write_bytes(tiny.read_bytes())
    person = start_app()
    window = library(person)
    person.app.library.add_folder(str(folder))
    person.wait_until(lambda: names(window) == ["Tiny llama"])
    (folder / "second.gguf").write_bytes(tiny.read_bytes())
    person.wait_until(lambda: names(window) == ["Tiny llama", "Tiny llama (copy)"])
    assert person.app.preferences.model_folders == (str(folder),)
    assert window.local.view.model().headerData(1, Qt.Orientation.Horizontal) == "Fits"
