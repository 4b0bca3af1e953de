"""Snapshots on disk: what is kept, for whom, within which budget, and what happens to damaged ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kvdesk.backend.conversations.snapshots import SnapshotKey, SnapshotStore, model_identity

KEY = SnapshotKey("chat-1", "model", "llama-cpp-python 0.3.36", "f16", "f16", True)
TOKENS = (2, 105, 262143, 0)
STATE = bytes(range(256)) * 40


def other(number: int) -> SnapshotKey:
    return replace(KEY, conversation_id=f"other-{number}")


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "snapshots")


def only_file(store_folder: Path) -> Path:
    (path,) = store_folder.iterdir()
    return path


def test_what_was_saved_comes_back(store: SnapshotStore, tmp_path: Path) -> None:
    assert store.save(KEY, TOKENS, memoryview(STATE))
    loaded = SnapshotStore(tmp_path / "snapshots").load(KEY)
    assert loaded is not None
    assert (loaded.key, loaded.tokens, bytes(loaded.state)) == (KEY, TOKENS, STATE)
    head = store.peek("chat-1")
    assert head is not None
    assert (head.key, head.tokens) == (KEY, TOKENS)


def test_a_conversation_keeps_only_its_latest(store: SnapshotStore) -> None:
    store.save(KEY, TOKENS, STATE)
    store.save(replace(KEY, type_k="q8_0"), TOKENS, STATE[:100])
    assert store.load(KEY) is None
    assert store.load(replace(KEY, type_k="q8_0")) is not None
    assert store.total_bytes == store.size_of("chat-1")


def test_sizes_are_those_on_disk(store: SnapshotStore, tmp_path: Path) -> None:
    assert store.size_of("chat-1") == store.total_bytes == 0
    store.save(KEY, TOKENS, STATE)
    store.save(other(1), TOKENS, STATE)
    assert min(store.size_of("chat-1"), store.size_of("other-1")) > len(STATE)
    assert store.total_bytes == sum(path.stat().st_size for path in (tmp_path / "snapshots").iterdir())
    store.delete("chat-1")
    assert store.size_of("chat-1") == 0
    assert store.load(KEY) is None
    assert store.load(other(1)) is not None
    store.delete("never saved")


@pytest.mark.parametrize(
    "change",
    [{"model_id": "another"}, {"type_v": "q4_0"}, {"flash_attn": False}],
    ids=lambda change: next(iter(change)),
)
def test_anothers_snapshot_is_not_given_but_kept(store: SnapshotStore, change: dict[str, str | bool]) -> None:
    store.save(KEY, TOKENS, STATE)
    assert store.load(replace(KEY, **change)) is None  # type: ignore[arg-type]
    assert store.load(KEY) is not None


@pytest.mark.logs("is not used: made by")
def test_one_of_another_engine_is_removed(store: SnapshotStore) -> None:
    store.save(KEY, TOKENS, STATE)
    assert store.load(replace(KEY, engine="llama-cpp-python 0.4.0")) is None
    assert store.size_of("chat-1") == 0


@pytest.mark.logs("its head is damaged", "its state is damaged", "it is truncated", "it is no snapshot")
def test_any_flipped_byte_is_noticed_and_the_file_removed(store: SnapshotStore, tmp_path: Path) -> None:
    store.save(KEY, TOKENS, STATE[:64])
    path = only_file(tmp_path / "snapshots")
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
        assert store.load(KEY) is None, place
        assert not path.exists(), place


@pytest.mark.parametrize("kept", [0, 1, 20, 100, -1])
@pytest.mark.logs("is not used: it is (no snapshot|truncated)")
def test_a_truncated_or_grown_file_is_removed(store: SnapshotStore, tmp_path: Path, kept: int) -> None:
    store.save(KEY, TOKENS, STATE)
    path = only_file(tmp_path / "snapshots")
    whole = path.read_bytes()
    path.write_bytes(whole[:kept] if kept >= 0 else whole + b"x")
    assert store.peek("chat-1") is None
    assert not path.exists()


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path, budget_bytes=4 * (len(STATE) + 400))
    for number in range(4):
        before = set(tmp_path.iterdir())
        assert store.save(other(number), TOKENS, STATE)
        (added,) = set(tmp_path.iterdir()) - before
        os.utime(added, ns=(number, number))
    assert store.load(other(0)) is not None  # a use: now the latest
    assert store.save(KEY, TOKENS, STATE)
    assert [number for number in range(4) if store.size_of(f"other-{number}")] == [0, 2, 3]
    assert store.total_bytes <= store.budget_bytes


def test_one_over_the_budget_is_refused_and_drops_no_other(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path, budget_bytes=len(STATE) + 400)
    store.save(other(1), TOKENS, b"small")
    store.save(KEY, TOKENS, b"small")
    assert not store.save(KEY, TOKENS, STATE * 2)
    assert store.load(KEY) is None  # the old one no longer is the latest
    assert store.load(other(1)) is not None


@pytest.mark.logs("cannot use .* for snapshots", "cannot write", "cannot read")
def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("a file where the folder should be")
    store = SnapshotStore(in_the_way)
    assert not store.save(KEY, TOKENS, STATE)
    assert store.load(KEY) is None
    assert store.total_bytes == 0


@pytest.mark.skipif(os.name != "posix", reason="stops the writer with SIGKILL")
def test_a_kill_while_writing_leaves_the_old_snapshot_and_no_litter(tmp_path: Path) -> None:
    SnapshotStore(tmp_path).save(KEY, TOKENS, STATE)
    writer = """
import os, signal, sys
from pathlib import Path
from kvdesk.backend.conversations import snapshots
from tests.backend.conversations.test_snapshots import KEY, STATE
snapshots.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
snapshots.SnapshotStore(Path(sys.argv[1])).save(KEY, (7,), STATE * 2)
"""
    killed = subprocess.run([sys.executable, "-c", writer, str(tmp_path)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    reopened = SnapshotStore(tmp_path)
    loaded = reopened.load(KEY)
    assert loaded is not None
    assert loaded.tokens == TOKENS
    assert len(list(tmp_path.iterdir())) == 1


def test_a_model_is_known_by_its_content_not_its_name(tmp_path: Path) -> None:
    model = tmp_path / "a.gguf"
    model.write_bytes(os.urandom(1_000_000))
    before = model_identity(model)
    moved = model.rename(tmp_path / "b.gguf")
    assert model_identity(moved) == before
    with moved.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    assert model_identity(moved) != before
    assert model_identity(moved, moved) != model_identity(moved)
    small = tmp_path / "small"
    small.write_bytes(b"GGUF")
    assert model_identity(small) != before
