"""A download through everything that goes wrong on the way: whole and right in its place, or not there at all."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from kvdesk.backend.library.find import find_models
from kvdesk.backend.library.hub import download as download_module
from kvdesk.backend.library.hub.download import Download, DownloadStopped, Progress, staging_dir
from kvdesk.backend.library.hub.download_state import WAITING
from kvdesk.backend.library.hub.hub import Hub
from kvdesk.backend.library.hub.repository import RemoteFile
from kvdesk.backend.library.places import Place
from kvdesk.errors import HubError
from tests.backend.library.hub.conftest import REPO
from tests.fakes.fake_hub import (
    PIECE_BYTES,
    FakeHub,
    FakeRepository,
    another_range,
    break_off,
    garbled,
    status,
    web_page,
    without_ranges,
)

CONTENT = b"GGUF" + bytes(range(256)) * 4000


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between tries; that they are made is what is tested."""
    monkeypatch.setattr(download_module, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(download_module, "LONGEST_PAUSE_S", 0.0)


@pytest.fixture
def repository(fake: FakeHub) -> FakeRepository:
    fake.repositories["o/r"] = FakeRepository({"m.gguf": CONTENT})
    return fake.repositories["o/r"]


def files(hub: Hub, repo_id: str = "o/r") -> tuple[RemoteFile, ...]:
    model = hub.repository(repo_id).models[0]
    return (*model.files, *((model.projector,) if model.projector else ()))


def leftovers(models_dir: Path) -> list[str]:
    """What is in the folder beside locks."""
    return sorted(str(file.relative_to(models_dir)) for file in models_dir.rglob("*")
                  if file.is_file() and file.suffix != ".lock")  # fmt: skip


def test_a_model_arrives_with_its_projector(fake: FakeHub, hub: Hub, models_dir: Path, tiny_bytes: bytes) -> None:
    told: list[Progress] = []
    download = Download(hub, files(hub, REPO), models_dir, told.append)
    path = download.run()
    assert path == models_dir / "maker" / "tiny-GGUF" / "tiny-Q4_K_M.gguf"
    assert path.read_bytes() == tiny_bytes
    assert leftovers(models_dir) == ["maker/tiny-GGUF/mmproj-F16.gguf", "maker/tiny-GGUF/tiny-Q4_K_M.gguf"]
    loaded = [progress.done_bytes for progress in told]
    assert loaded == sorted(loaded)
    assert loaded[-1] == len(tiny_bytes) + len(b"GGUF projector")
    [found] = find_models([Place("kvdesk", models_dir)])
    assert found.projector is not None


@pytest.mark.parametrize(
    "faults",
    [
        [break_off(300_000)],
        [break_off(0)] * 4,
        [break_off(100_000)] * 10,
        [break_off(300_000), without_ranges],
        [status(500), status(503), status(429, Retry_After="1")],
    ],
    ids=["breaks off", "nothing comes four times", "breaks off often", "no ranges when going on", "out of order"],
)
def test_it_goes_on_where_it_stopped(
    fake: FakeHub, hub: Hub, repository: FakeRepository, models_dir: Path, faults: list[object]
) -> None:
    fake.fault("/content/", *faults)  # type: ignore[arg-type]
    assert Download(hub, files(hub), models_dir).run().read_bytes() == CONTENT
    assert leftovers(models_dir) == ["o/r/m.gguf"]


def test_going_on_asks_for_the_rest_only(fake: FakeHub, hub: Hub, repository: FakeRepository, models_dir: Path) -> None:
    fake.fault("/content/", break_off(300_000))
    Download(hub, files(hub), models_dir).run()
    [_, second] = [asked for asked in fake.requests if "/content/" in asked.path]
    start = int(second.headers["Range"].removeprefix("bytes=").rstrip("-"))
    assert 0 < start <= 300_000


def test_nothing_at_all_is_given_up(fake: FakeHub, hub: Hub, repository: FakeRepository, models_dir: Path) -> None:
    fake.fault("/content/", *[break_off(0)] * 5)
    with pytest.raises(HubError, match="broke off"):
        Download(hub, files(hub), models_dir).run()
    assert len(fake.paths("/content/")) == 5


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (web_page, "another size|something else"),
        (garbled, "damaged on the way"),
        (status(403), "does not let you read"),
        (status(404), "or not this file"),
    ],
)
def test_what_is_not_the_file_is_never_kept(
    fake: FakeHub, hub: Hub, repository: FakeRepository, models_dir: Path, fault: object, sentence: str
) -> None:
    fake.fault("/content/", fault)  # type: ignore[arg-type]
    with pytest.raises(HubError, match=sentence):
        Download(hub, files(hub), models_dir).run()
    assert not (models_dir / "o").exists()
    assert Download(hub, files(hub), models_dir).run().read_bytes() == CONTENT


def test_a_sign_in_page_of_the_right_size_is_noticed_at_once(
    fake: FakeHub, hub: Hub, repository: FakeRepository, models_dir: Path
) -> None:
    wanted = files(hub)
    repository.files["m.gguf"] = b"<!DOCTYPE html>".ljust(len(CONTENT))
    with pytest.raises(HubError, match="something else"):
        Download(hub, wanted, models_dir).run()
    assert find_models([Place("kvdesk", models_dir)]) == []


def test_a_wrong_checksum_leaves_nothing(fake: FakeHub, hub: Hub, repository: FakeRepository, models_dir: Path) -> None:
    repository.checksums["m.gguf"] = "0" * 64
    with pytest.raises(HubError, match="damaged on the way"):
        Download(hub, files(hub), models_dir).run()
    assert leftovers(models_dir) == []


@pytest.mark.parametrize("lie", [-1000, 1000])
def test_a_wrong_size_is_noticed(
    fake: FakeHub, hub: Hub, repository: FakeRepository, models_dir: Path, lie: int
) -> None:
    repository.sizes["m.gguf"] = len(CONTENT) + lie
    with pytest.raises(HubError, match="another size"):
        Download(hub, files(hub), models_dir).run()
    assert not (models_dir / "o").exists()


def test_another_range_than_asked_for_is_refused(
    fake: FakeHub, hub: Hub, repository: FakeRepository, models_dir: Path
) -> None:
    fake.fault("/content/", break_off(300_000), another_range)
    with pytest.raises(HubError, match="another piece"):
        Download(hub, files(hub), models_dir).run()
    assert not (models_dir / "o").exists()


def test_a_damaged_part_is_found_by_the_checksum(
    fake: FakeHub, hub: Hub, repository: FakeRepository, models_dir: Path
) -> None:
    download = Download(hub, files(hub), models_dir)
    part = download.part_of(files(hub)[0])
    part.parent.mkdir(parents=True)
    part.write_bytes(b"GGUF" + bytes(500_000))  # a disk that lost its power
    with pytest.raises(HubError, match="damaged on the way"):
        download.run()
    assert Download(hub, files(hub), models_dir).run().read_bytes() == CONTENT


def test_what_is_here_already_is_not_fetched_again(
    fake: FakeHub, hub: Hub, repository: FakeRepository, models_dir: Path
) -> None:
    path = Download(hub, files(hub), models_dir).run()
    Download(hub, files(hub), models_dir).run()
    assert len(fake.paths("/content/")) == 1
    path.write_bytes(bytes(len(CONTENT)))
    assert Download(hub, files(hub), models_dir).run().read_bytes() == CONTENT


def test_split_files_appear_together(fake: FakeHub, hub: Hub, models_dir: Path) -> None:
    names = [f"m-Q4_0-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    fake.repositories["o/r"] = FakeRepository({name: CONTENT + name.encode() for name in names})
    fake.fault("00003-of", status(404))
    with pytest.raises(HubError):
        Download(hub, files(hub), models_dir).run()
    assert find_models([Place("kvdesk", models_dir)]) == []
    assert not (models_dir / "o").exists()
    path = Download(hub, files(hub), models_dir).run()
    assert [file.name for file in sorted(path.parent.iterdir())] == names
    assert len(fake.paths("/content/o/r//m-Q4_0-00001")) == 1  # the parts that were whole are not fetched again


def test_small_files_are_checked_by_gits_checksum(fake: FakeHub, hub: Hub, models_dir: Path) -> None:
    fake.repositories["o/r"] = FakeRepository({"m.gguf": CONTENT}, small=frozenset({"m.gguf"}))
    wanted = files(hub)
    assert wanted[0].sha256 == ""
    assert Download(hub, wanted, models_dir).run().read_bytes() == CONTENT
    fake.repositories["o/r"].files["m.gguf"] = b"GGUF" + bytes(len(CONTENT) - 4)
    with pytest.raises(HubError, match="damaged"):
        Download(hub, wanted, models_dir / "another").run()


def test_a_full_disk_is_said_before_anything_is_fetched(
    fake: FakeHub, hub: Hub, repository: FakeRepository, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(HubError, match=r"disk is too full: 1 MB are needed, 1 MB are free"):
        Download(hub, files(hub), models_dir).run()
    assert fake.paths("/content/") == []


def test_a_folder_that_cannot_be_written_is_a_sentence(
    fake: FakeHub, hub: Hub, repository: FakeRepository, models_dir: Path
) -> None:
    staging_dir(models_dir).write_text("in the way")
    with pytest.raises(HubError, match="cannot be written to the disk"):
        Download(hub, files(hub), models_dir).run()


def test_a_pause_keeps_what_is_here(fake: FakeHub, hub: Hub, repository: FakeRepository, models_dir: Path) -> None:
    download = Download(hub, files(hub), models_dir, lambda progress: download.stop.set())  # after the first bytes
    with pytest.raises(DownloadStopped):
        download.run()
    part = download.part_of(files(hub)[0])
    assert 0 < part.stat().st_size < len(CONTENT)
    assert CONTENT.startswith(part.read_bytes())
    assert find_models([Place("kvdesk", models_dir)]) == []
    download.discard()
    assert leftovers(models_dir) == []


def test_a_second_kvdesk_waits_and_finds_it_done(
    fake: FakeHub, hub: Hub, repository: FakeRepository, models_dir: Path
) -> None:
    wanted = files(hub)
    first = Download(hub, wanted, models_dir)
    waits = threading.Event()

    def told(progress: Progress) -> None:
        if progress.stage == WAITING:
            waits.set()

    lock = FileLock(first.part_of(wanted[0]).with_suffix(".lock"))
    staging_dir(models_dir).mkdir()
    second = Download(hub, wanted, models_dir, told)
    with lock:
        thread = threading.Thread(target=second.run)
        thread.start()
        assert waits.wait(30)
        assert fake.paths("/content/") == []
        (models_dir / "o" / "r").mkdir(parents=True)
        (models_dir / "o" / "r" / "m.gguf").write_bytes(CONTENT)  # the first one is done
    thread.join(30)
    assert not thread.is_alive()
    assert fake.paths("/content/") == []


def test_killed_again_and_again_it_still_arrives(fake: FakeHub, models_dir: Path, home: Path) -> None:
    """A real process, killed while bytes flow, loses nothing: the next one goes on."""
    content = b"GGUF" + hashlib.sha256(b"x").digest() * 200_000
    fake.repositories["o/r"] = FakeRepository({"m.gguf": content})
    code = (
        "from pathlib import Path; from kvdesk.backend.library.hub.hub import Hub\n"
        "from kvdesk.backend.library.hub.download import Download\n"
        f"hub = Hub({fake.endpoint!r})\n"
        f"models = hub.repository('o/r').models\n"
        f"download = Download(hub, models[0].files, Path({str(models_dir)!r}), lambda now: print(now.done_bytes, flush=True))\n"
        "print(download.run())"
    )
    for kill_at in (PIECE_BYTES, 20 * PIECE_BYTES, 60 * PIECE_BYTES):
        fake.hold(kill_at)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert any(int(line) == kill_at for line in process.stdout)
        process.kill()
        process.communicate(timeout=30)
        assert find_models([Place("kvdesk", models_dir)]) == []
    fake.hold(None)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)
    assert (models_dir / "o" / "r" / "m.gguf").read_bytes() == content
    ranges = [asked.headers.get("Range", "bytes=0-") for asked in fake.requests if "/content/" in asked.path]
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in ranges]
    assert starts == [0, PIECE_BYTES, 20 * PIECE_BYTES, 60 * PIECE_BYTES]
