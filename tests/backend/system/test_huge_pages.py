"""The engine's large buffers are advised for huge pages, and nothing else is."""

from __future__ import annotations

import itertools
import os
import re
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from kvdesk.backend.settings import ContextSettings
from kvdesk.backend.system import huge_pages
from kvdesk.backend.system.child_process import ChildProcess
from tests.engine.harness import Desk
from tests.tiny_models import write_tiny

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's tunables")


def test_a_choice_of_the_persons_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    assert huge_pages.environment() == {"GLIBC_TUNABLES": "glibc.malloc.check=1:glibc.malloc.hugetlb=1"}
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    assert huge_pages.environment() == {}
    monkeypatch.delenv("GLIBC_TUNABLES")
    assert huge_pages.environment() == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def tell_environment(connection: Connection, *names: str) -> None:
    connection.send([os.environ.get(name) for name in names])


def test_what_a_process_is_started_with_does_not_stay_with_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVDESK_TEST_ONE", "ours")
    more = {"KVDESK_TEST_ONE": "theirs", "KVDESK_TEST_TWO": "new"}
    process = ChildProcess(tell_environment, "a test", *more, environment=more)
    assert process.connection.recv() == ["theirs", "new"]
    assert process.wait(10)
    process.release()
    assert [os.environ.get(name) for name in more] == ["ours", None]


@pytest.mark.skipif(
    "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    if Path("/sys/kernel/mm/transparent_hugepage/enabled").exists()
    else True,
    reason="the kernel has no transparent huge pages",
)
def test_the_cells_of_the_engine_are_advised_for_huge_pages(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        loaded = desk.load(
            write_tiny("llama", tmp_path), ContextSettings(n_ctx=16_384, n_threads=1, allocation="reserve")
        )
        maps = Path(f"/proc/{desk.engine.pid}/smaps").read_text().split("VmFlags:")
    advised = [
        int(size) << 10
        for mapping, flags in itertools.pairwise(maps)
        if "hg" in flags.splitlines()[0].split()
        for size in re.findall(r"^Size: +(\d+) kB", mapping, re.MULTILINE)
    ]
    assert max(advised, default=0) >= loaded.context.kv.bytes_allocated
