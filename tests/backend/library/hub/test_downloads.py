"""The queue of downloads: several at once, paused, gone on with after a restart, and told as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue

import pytest

from kvdesk.backend.library.hub import downloads as downloads_module
from kvdesk.backend.library.hub.download import staging_dir
from kvdesk.backend.library.hub.download_state import DONE, FAILED, PAUSED, QUEUED, DownloadState
from kvdesk.backend.library.hub.downloads import Downloads
from kvdesk.backend.library.hub.hub import Hub
from kvdesk.backend.library.hub.repository import RemoteFile, RemoteModel
from kvdesk.errors import HubError
from tests.fakes.fake_hub import FakeHub, FakeRepository, status

CONTENT = b"GGUF" + bytes(range(256)) * 4000


class Watched:
    """Downloads with what they told."""

    def __init__(self, hub: Hub, models_dir: Path) -> None:
        self.told: Queue[DownloadState] = Queue()
        self.downloads = Downloads(hub, models_dir, self.told.put)

    def wait_for(self, condition: Callable[[DownloadState], bool]) -> DownloadState:
        while True:
            state = self.told.get(timeout=60)
            if condition(state):
                return state

    def wait_for_stage(self, stage: str) -> DownloadState:
        return self.wait_for(lambda state: state.stage == stage)


@pytest.fixture
def models(fake: FakeHub, hub: Hub) -> list[RemoteModel]:
    fake.repositories["o/r"] = FakeRepository({f"m{n}-Q4_0.gguf": CONTENT + bytes([n]) for n in range(4)})
    return sorted(hub.repository("o/r").models, key=lambda model: model.name)


@pytest.fixture
def watched(hub: Hub, models_dir: Path) -> Iterator[Watched]:
    watched = Watched(hub, models_dir)
    yield watched
    watched.downloads.close()


def test_a_download_is_told_from_its_start_to_its_end(
    watched: Watched, models: list[RemoteModel], models_dir: Path
) -> None:
    key = watched.downloads.start(models[0])
    done = watched.wait_for_stage(DONE)
    assert (done.key, done.name, done.repo_id) == (key, "m0-Q4_0", "o/r")
    assert done.done_bytes == done.size_bytes == len(CONTENT) + 1
    assert Path(done.path).read_bytes() == CONTENT + b"\0"
    assert list(staging_dir(models_dir).glob("*.json")) == []
    assert watched.downloads.start(models[0]) == key  # it is here: nothing happens
    assert watched.downloads.states == (done,)


def test_only_so_many_run_at_once(fake: FakeHub, watched: Watched, models: list[RemoteModel]) -> None:
    fake.hold(0)
    keys = [watched.downloads.start(model) for model in models]
    fake.wait_for_requests("/content/", downloads_module.AT_ONCE)
    assert [state.stage for state in watched.downloads.states].count(QUEUED) == len(models)  # not a byte has come
    assert len(fake.paths("/content/")) == downloads_module.AT_ONCE
    fake.hold(None)
    done = {watched.wait_for_stage(DONE).key for _ in keys}
    assert done == set(keys)


def test_paused_and_gone_on_with(fake: FakeHub, watched: Watched, models: list[RemoteModel]) -> None:
    fake.hold(0)
    key = watched.downloads.start(models[0])
    watched.downloads.pause(key)
    assert watched.wait_for_stage(PAUSED).key == key
    fake.hold(None)
    watched.downloads.resume(key)
    assert watched.wait_for_stage(QUEUED).error == ""
    assert Path(watched.wait_for_stage(DONE).path).read_bytes() == CONTENT + b"\0"


def test_the_next_start_lists_what_was_left_and_asks_nothing(
    fake: FakeHub, hub: Hub, models_dir: Path, models: list[RemoteModel]
) -> None:
    first = Watched(hub, models_dir)
    fake.fault("/content/", status(403))
    key = first.downloads.start(models[0])
    failed = first.wait_for_stage(FAILED)
    assert "does not let you read" in failed.error
    first.downloads.close()
    asked = len(fake.requests)
    second = Watched(hub, models_dir)
    [left] = second.downloads.states
    assert (left.key, left.stage, left.name) == (key, PAUSED, "m0-Q4_0")
    assert len(fake.requests) == asked
    second.downloads.resume(key)
    assert second.wait_for_stage(DONE).path
    assert Watched(hub, models_dir).downloads.states == ()


def test_discarded_it_is_gone(
    fake: FakeHub, hub: Hub, watched: Watched, models: list[RemoteModel], models_dir: Path
) -> None:
    fake.hold(0)
    key = watched.downloads.start(models[0])
    watched.downloads.discard(key)
    fake.hold(None)
    assert watched.downloads.states == ()
    assert Watched(hub, models_dir).downloads.states == ()


def test_unsafe_names_are_refused_at_once(watched: Watched) -> None:
    file = RemoteFile("o/r", "x", "../../m.gguf", 10, "0" * 64)
    with pytest.raises(HubError, match="not safe"):
        watched.downloads.start(RemoteModel("m", "", (file,)))
    assert watched.downloads.states == ()


@pytest.mark.parametrize(
    "entry",
    ["", "[", "{}", json.dumps({"name": "m", "files": []}), json.dumps({"name": "m", "files": [{"name": 3}]}),
     json.dumps({"name": "m", "files": [{"repo_id": "o/r", "revision": "", "name": "../x", "size_bytes": 1}]})],
)  # fmt: skip
@pytest.mark.logs("is no download")
def test_damaged_entries_are_passed_over(hub: Hub, models_dir: Path, entry: str) -> None:
    staging_dir(models_dir).mkdir()
    (staging_dir(models_dir) / "x.json").write_text(entry)
    assert Watched(hub, models_dir).downloads.states == ()


@pytest.mark.logs("in a way that nobody foresaw")
def test_an_error_that_nobody_foresaw_is_a_sentence(
    watched: Watched, models: list[RemoteModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads_module.Download, "run", lambda self: 1 / 0)
    watched.downloads.start(models[0])
    assert "the log" in watched.wait_for_stage(FAILED).error
