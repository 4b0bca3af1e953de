"""How fast weights can be read: measured once for a disk, and unknown rather than guessed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvdesk.backend.system import disk_speed as module
from kvdesk.backend.system.disk_speed import CHUNK_BYTES, disk_speed


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_known", {})


def test_a_disk_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "some"
    path.write_bytes(os.urandom(2 * CHUNK_BYTES))
    first = disk_speed(path)
    if first is None:
        pytest.skip("this file system has no direct reads")
    assert first > 0
    path.write_bytes(b"")
    assert disk_speed(path) == first


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    assert disk_speed(tmp_path / "none") is None
    short = tmp_path / "short"
    short.write_bytes(b"x" * 100)
    assert disk_speed(short) is None
