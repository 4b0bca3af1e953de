"""The library as the window uses it: events in order, the newest question wins, nothing is sent unasked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import TypeVar

import pytest

from kvdesk.backend.library.badges import Badges
from kvdesk.backend.library.hub.download_state import DONE, DownloadState
from kvdesk.backend.library.hub.hub import Hub
from kvdesk.backend.library.library import Library
from kvdesk.backend.library.library_event import (
    BestFound,
    EntriesRead,
    Found,
    HubFailed,
    LibraryEvent,
    Opened,
    Priced,
    RemotePriced,
    ScanEnded,
)
from kvdesk.backend.library.places import Place, own_place
from tests.fakes.fake_hub import FakeHub, FakeRepository, status
from tests.tiny_models import write_tiny

E = TypeVar("E")


class Watched:
    """A library with what it told."""

    def __init__(self, places: Callable[[], list[Place]], endpoint: str) -> None:
        self.told: Queue[LibraryEvent] = Queue()
        self.library = Library(places, Badges, self.told.put, Hub(endpoint))

    def wait_for(self, kind: type[E], condition: Callable[[E], bool] = lambda _: True) -> E:
        while True:
            event = self.told.get(timeout=60)
            if isinstance(event, kind) and condition(event):
                return event


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_tiny("llama", tmp_path_factory.mktemp("tiny"), n_ctx_train=8192).read_bytes()


@pytest.fixture
def fake(content: bytes) -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.repositories["maker/tiny-GGUF"] = FakeRepository(
            {"t-Q4_0.gguf": content, "t-Q8_0.gguf": content + bytes(50)}
        )
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def watched(fake: FakeHub, home: Path, folder: Path) -> Iterator[Watched]:
    watched = Watched(lambda: [own_place(), Place("folder", folder)], fake.endpoint)
    yield watched
    watched.library.close()


def test_rows_come_before_badges_and_nothing_is_sent(
    watched: Watched, folder: Path, content: bytes, fake: FakeHub
) -> None:
    (folder / "a.gguf").write_bytes(content)
    (folder / "broken.gguf").write_bytes(b"no model")
    watched.library.scan()
    first = watched.wait_for(EntriesRead)
    assert first.is_first
    assert [Path(entry.path).name for entry in first.entries] == ["a.gguf", "broken.gguf"]
    assert watched.wait_for(ScanEnded).count == 2
    priced = watched.wait_for(Priced)
    assert (priced.path, priced.fit.kind) == (str(folder / "a.gguf"), "fits")
    assert fake.requests == []


def test_badges_wait_while_the_processor_is_wanted(watched: Watched, folder: Path, content: bytes) -> None:
    (folder / "a.gguf").write_bytes(content)
    watched.library.hold_pricing(True)
    watched.library.scan()
    watched.wait_for(ScanEnded)  # rows do not wait
    watched.library.scan()  # and a newer scan does not wait for the older one's badges
    watched.wait_for(ScanEnded)
    assert watched.told.empty()
    watched.library.hold_pricing(False)
    assert watched.wait_for(Priced).path == str(folder / "a.gguf")


def test_an_empty_machine_is_told_too(watched: Watched) -> None:
    watched.library.scan()
    assert watched.wait_for(EntriesRead) == EntriesRead((), True)
    assert watched.wait_for(ScanEnded).count == 0


def test_words_search_and_names_look_up(watched: Watched) -> None:
    watched.library.search("tiny")
    assert [one.repo_id for one in watched.wait_for(Found).repositories] == ["maker/tiny-GGUF"]
    watched.library.search("https://huggingface.co/maker/tiny-GGUF/blob/main/t-Q4_0.gguf")
    assert watched.wait_for(Opened).chosen == "t-Q4_0"
    assert {watched.wait_for(RemotePriced).fit.kind for _ in range(2)} == {"fits"}
    best = watched.wait_for(BestFound)
    assert (best.repo_id, best.name) == ("maker/tiny-GGUF", "t-Q8_0")
    assert "The best for this machine" in best.why


def test_what_the_hub_refuses_is_a_sentence(watched: Watched, fake: FakeHub) -> None:
    fake.fault("/api/models", status(500))
    watched.library.search("tiny")
    assert "out of order" in watched.wait_for(HubFailed).sentence
    watched.library.look_up("nobody/nothing")
    assert "does not exist" in watched.wait_for(HubFailed).sentence
    watched.library.look_up("maker/tiny-GGUF:Q2_K")
    assert "has no Q2_K" in watched.wait_for(HubFailed).sentence


def test_links_to_other_places_are_not_sent_to_the_hub(watched: Watched, fake: FakeHub) -> None:
    watched.library.search("https://example.com/models/m.gguf")
    assert "with your browser" in watched.wait_for(HubFailed).sentence
    assert fake.requests == []


def test_only_the_newest_search_is_answered(watched: Watched, fake: FakeHub) -> None:
    watched.library.search("first")
    watched.library.search("second")
    watched.library.search("tiny")
    answers = [watched.wait_for(Found, lambda found: found.words == "tiny")]
    assert [one.repo_id for one in answers[0].repositories] == ["maker/tiny-GGUF"]


@pytest.mark.may_log("failed to open GGUF file")  # deleted while its badge is made
def test_a_download_is_in_the_next_scan(watched: Watched, content: bytes) -> None:
    watched.library.look_up("maker/tiny-GGUF")
    model = watched.wait_for(Opened).repository.models[0]
    watched.library.downloads.start(model)
    done = watched.wait_for(DownloadState, lambda state: state.stage == DONE)
    watched.library.scan()
    [entry] = watched.wait_for(EntriesRead).entries
    assert (entry.path, entry.source) == (done.path, "kvdesk")
    assert watched.library.delete(Path(entry.path)) == len(content)
    watched.library.scan(anew=True)
    assert watched.wait_for(EntriesRead).entries == ()
