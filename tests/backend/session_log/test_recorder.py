"""The flight recorder and its reader: real files, really truncated; real processes, really killed."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvdesk.backend.protocol.facts import KvState
from kvdesk.backend.session_log.reader import (
    companions,
    find_session,
    last_unclean_session,
    list_sessions,
    open_session,
    session_files,
    size_on_disk,
)
from kvdesk.backend.session_log.recorder import Recorder, drop_oldest
from kvdesk.backend.session_log.rows import pack_note, pack_sample, recover
from kvdesk.backend.system.machine import Machine
from kvdesk.backend.system.monitor import Monitor
from kvdesk.backend.system.process_identity import process_identity
from kvdesk.backend.system.samples import DomainReading, MachineReading, Sample
from kvdesk.errors import StoreError, UsageError
from tests.fakes.made_up_session import recorded, recording, sample

KIB, MIB, GIB = 1024, 1024**2, 1024**3
REPOSITORY = Path(__file__).parents[3]


# --- what goes in comes out --------------------------------------------------------------------------------------


def test_a_session_comes_back_as_it_was_recorded(tmp_path: Path) -> None:
    path = recorded(tmp_path, 50)
    session = open_session(path)
    assert not session.damaged
    assert list(session.samples()) == [sample(i) for i in range(50)]
    assert list(session.samples(10, 12)) == [sample(10), sample(11)]
    assert [event.kind for event in session.events] == ["start", "load", "grow", "exit"]
    assert session.events[1].values == {"model": "gemma", "settings": {"context": {"n_ctx": 8192}}}
    assert session.header["details"] == {"llama-cpp-python": "0.3.36"}
    assert session.last_minute(2.0) == [sample(i) for i in range(45, 50)]
    (summary,) = list_sessions(tmp_path)
    assert (summary.app, summary.version, summary.model, summary.how_ended) == ("window", "0.1.0", "gemma", "closed")
    assert (summary.n_samples, summary.damaged, summary.pid) == (50, False, os.getpid())
    assert summary.peak_bytes == session.peak_bytes == GIB + 49 * KIB
    assert summary.size_bytes == path.stat().st_size
    assert not any(part.exists() for part in companions(path))
    assert dataclasses.replace(session.summary, duration_s=None) == dataclasses.replace(summary, duration_s=None)


sizes = st.none() | st.integers(0, 1 << 41).map(lambda kib: kib // KIB * KIB)
domains = st.builds(
    DomainReading,
    st.sampled_from(["RAM", "CUDA0", "RPC0[127.0.0.1:50052]"]),
    st.just("ram") | st.just("gpu"),
    sizes, sizes, sizes, sizes, sizes,
    st.sampled_from(["kernel counters", "unknown"]),
)  # fmt: skip
counts = st.integers(0, (1 << 32) - 3)
samples = st.builds(
    Sample,
    st.floats(0, 2e9),
    st.floats(0, 1e9),
    st.builds(
        MachineReading,
        st.lists(domains, max_size=3, unique_by=lambda domain: domain.name).map(tuple),
        sizes, sizes, sizes, sizes, sizes,
    ),
    st.none() | st.integers(1, 1 << 22),
    st.none() | st.builds(KvState, counts, counts, st.integers(0, 1 << 45), st.integers(0, 1 << 45)),
    st.none() | st.floats(0, 1e5),
    st.text(max_size=9),
    st.none() | st.lists(st.tuples(st.sampled_from(["RAM", "CUDA0"]), st.integers(0, 1 << 45)), unique_by=lambda p: p[0]).map(tuple),
    st.integers(0, 1 << 40),
)  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(samples, min_size=1, max_size=8))
def test_any_sample_survives_with_its_unknowns(tmp_path_factory: pytest.TempPathFactory, some: list[Sample]) -> None:
    folder = tmp_path_factory.mktemp("sessions")
    with recording(folder) as recorder:
        for one in some:
            recorder.sample(one)
    session = open_session(recorder.path)
    assert list(session.samples()) == some
    assert recorder.problem is None
    assert_columns_match(session.columns, some)


def assert_columns_match(columns: object, some: list[Sample]) -> None:
    """Every figure of the arrays is that of the samples."""

    def same(column: np.ndarray, values: list[float | None]) -> None:
        np.testing.assert_array_equal(column, [math.nan if value is None else float(value) for value in values])

    same(columns.time_s, [one.time_s for one in some])
    same(columns.kv_cells_used, [one.kv.cells_used if one.kv else None for one in some])
    same(columns.kv_bytes_allocated, [one.kv.bytes_allocated if one.kv else None for one in some])
    same(columns.tokens_per_second, [one.tokens_per_second for one in some])
    same(columns.engine_peak_bytes, [one.machine.engine_peak_bytes for one in some])
    assert [columns.states[code] for code in columns.state] == [one.state for one in some]
    for name in {domain.name for one in some for domain in one.domains}:
        column, readings = columns.domain(name), [one.domain(name) for one in some]
        if len({reading.kind for reading in readings if reading}) > 1:
            continue  # no device changes its kind; the columns keep the first
        for figure in ("capacity_bytes", "available_bytes", "engine_bytes", "others_bytes", "ceiling_bytes"):
            same(getattr(column, figure), [getattr(reading, figure) if reading else None for reading in readings])
        lines = [one.domain(name).oom_line(one.margin_bytes) if one.domain(name) else None for one in some]
        same(column.oom_line_bytes, lines)
        same(column.predicted_bytes, [one.predicted(name) for one in some])


def test_an_hour_takes_about_a_megabyte(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        for i in range(7200):
            recorder.sample(sample(i, state="generating" if i % 50 < 25 else "ready"))
    assert open_session(recorder.path).n_samples == 7200
    assert recorder.path.stat().st_size < 1.05e6


def test_a_session_is_read_while_it_is_written(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        for i in range(3):
            recorder.sample(sample(i))
            assert recorder.flush()
            session = open_session(recorder.path)
            assert (session.n_samples, session.damaged, session.summary.how_ended) == (i + 1, False, "running")
            assert session.summary.ended_s is None


def test_values_that_json_does_not_know_become_text(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        recorder.event("warning", "a \ud800 half character\x00", {"path": Path("/models/x.gguf"), "nan": math.nan})
    event = open_session(recorder.path).events[1]
    assert event.values["path"] == str(Path("/models/x.gguf"))
    assert event.text == "a \ud800 half character\x00"
    assert recorder.problem is None


def test_after_close_nothing_is_recorded_and_nobody_waits(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        recorder.sample(sample(0))
    recorder.sample(sample(1))
    recorder.event("warning", "late")
    recorder.close("twice")
    assert not recorder.flush()
    session = open_session(recorder.path)
    assert session.n_samples == 1
    assert session.exit is not None
    assert session.exit.text == "closed"


# --- what a kill leaves --------------------------------------------------------------------------------------------

WRITER = """
import sys, time
from pathlib import Path
from tests.fakes.made_up_session import sample
from kvdesk.backend.session_log.recorder import Recorder
recorder = Recorder(Path(sys.argv[1]), sys.argv[2], "0.1.0")
recorder.event("load", "Loading", {"model": "gemma"})
for i in range(1_000_000):
    recorder.sample(sample(i))
    print(i, flush=True)
    time.sleep(0.01)
"""


def killed_session(folder: Path, n: int, app: str = "window") -> tuple[Path, int]:
    """A process records and is killed with SIGKILL; its file and the number of the last sample that it handed over."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), app], stdout=subprocess.PIPE, cwd=REPOSITORY, text=True
    )
    assert process.stdout is not None
    handed_over = -1
    while handed_over < n:
        handed_over = int(process.stdout.readline())
    process.kill()
    handed_over = max([handed_over, *map(int, process.stdout.read().split())])
    process.wait(10)
    process.stdout.close()
    return session_files(folder)[-1], handed_over


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_sigkill_loses_less_than_the_last_second_and_the_next_start_knows(tmp_path: Path) -> None:
    path, handed_over = killed_session(tmp_path, 60)
    session = open_session(path)
    assert not session.damaged
    got = list(session.samples())
    assert got == [sample(i) for i in range(len(got))]
    assert handed_over - len(got) < 100  # a second of this writer's
    (summary,) = list_sessions(tmp_path)
    assert (summary.how_ended, summary.ended_s, summary.model) == ("killed", None, "gemma")
    assert summary.n_samples == len(got)
    assert summary.peak_bytes == GIB + (len(got) - 1) * KIB
    unclean = last_unclean_session(tmp_path)
    assert unclean == summary
    assert last_unclean_session(tmp_path, "chat") is None
    with recording(tmp_path):
        assert last_unclean_session(tmp_path) == summary  # the session that asks does not count
    assert last_unclean_session(tmp_path) is None  # and once it ended in order there is nothing to offer

    # The write-ahead log is all there is of the last seconds; cut anywhere it still gives a beginning.
    log = companions(path)[0]
    raw = log.read_bytes()
    for cut in random.Random(1).sample(range(len(raw)), 5):
        log.write_bytes(raw[:cut])
        companions(path)[1].unlink(missing_ok=True)
        try:
            part = list(open_session(path).samples())
        except StoreError:
            part = []  # cut before the first row
        assert part == got[: len(part)]
    log.write_bytes(raw)
    companions(path)[1].unlink(missing_ok=True)
    assert list(open_session(path).samples()) == got


def test_a_process_with_the_dead_ones_number_is_not_taken_for_it(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = process_identity(process.pid)
    assert identity is not None
    assert identity == process_identity(process.pid)
    assert identity != process_identity(os.getpid())
    assert process.stdin is not None
    process.stdin.close()
    process.wait(10)
    assert process_identity(process.pid) is None
    recorder = Recorder(tmp_path, "window", "0.1.0")
    recorder.flush()
    with closing(sqlite3.connect(recorder.path)) as database, database:
        (body,) = database.execute("SELECT body FROM notes WHERE kind = 'session'").fetchone()
        _, _, mark, body = pack_note(1, json.loads(body) | {"process": "another one with this pid"})
        database.execute("UPDATE notes SET mark = ?, body = ? WHERE seq = 1", (mark, body))
    assert list_sessions(tmp_path)[0].how_ended == "killed"
    recorder.close()


# --- what damage leaves --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """3,000 samples: enough that the tree has inner pages."""
    return recorded(tmp_path_factory.mktemp("long"), 3000).read_bytes()


@pytest.mark.parametrize("seed", range(12))
def test_a_truncated_log_opens_up_to_the_cut(tmp_path: Path, long_file: bytes, seed: int) -> None:
    cut = random.Random(seed).randrange(20_000, len(long_file) - 1)
    path = tmp_path / "20260101-000000-000000-window-1.sqlite3"
    path.write_bytes(long_file[:cut])
    session = open_session(path)
    assert session.damaged
    got = list(session.samples())
    numbers = [one.kv.cells_used for one in got]
    assert got == [sample(i) for i in numbers]
    assert numbers == sorted(numbers)
    assert numbers[-1] + 1 - len(numbers) < 40  # all but some of the page that the cut goes through
    assert len(got) > 3000 * cut / len(long_file) - 200
    assert session.events[1].values["model"] == "gemma"
    assert session.columns.time_s.size == len(got)
    assert list_sessions(tmp_path)[0].damaged


@pytest.mark.parametrize("cut", [0, 1, 15, 100, 4096, 5000])
def test_a_log_cut_before_its_first_row_says_so(tmp_path: Path, long_file: bytes, cut: int) -> None:
    path = tmp_path / "20260101-000000-000000-window-1.sqlite3"
    path.write_bytes(long_file[:cut])
    with pytest.raises(StoreError, match="damaged from its beginning"):
        open_session(path)
    (summary,) = list_sessions(tmp_path)
    assert summary.damaged
    assert "damaged" in summary.how_ended
    assert (summary.n_samples, summary.size_bytes, summary.peak_bytes) == (0, cut, None)


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_log_gives_every_whole_row_and_no_false_one(tmp_path: Path, long_file: bytes, seed: int) -> None:
    chance = random.Random(seed)
    raw = bytearray(long_file)
    for _ in range(chance.randrange(1, 4)):
        at, length = chance.randrange(20_000, len(raw)), chance.randrange(1, 20_000)
        raw[at : at + length] = chance.randbytes(len(raw[at : at + length]))
    path = tmp_path / "20260101-000000-000000-window-1.sqlite3"
    path.write_bytes(raw)
    session = open_session(path)
    whole = {i: sample(i) for i in range(3000)}
    got = list(session.samples())
    assert session.damaged
    assert all(one == whole[one.kv.cells_used] for one in got)
    assert [one.kv.cells_used for one in got] == sorted({one.kv.cells_used for one in got})
    assert len(got) > 2000


def test_one_flipped_bit_is_noticed(tmp_path: Path, long_file: bytes) -> None:
    at = long_file.rindex(b"KVS1") + 30
    path = tmp_path / "20260101-000000-000000-window-1.sqlite3"
    path.write_bytes(long_file[:at] + bytes([long_file[at] ^ 4]) + long_file[at + 1 :])
    session = open_session(path)
    assert session.damaged
    assert session.n_samples == 2999


def test_combing_takes_nothing_for_a_row_that_only_looks_like_one() -> None:
    whole = pack_sample(7, 1, sample(3))
    assert recover(b"KVS1" + whole + b"KVS1" + whole[:50] + b"KVN1zzKVN1" + b"0" * 16 + b"KVN100000000ffffffff{}") == (
        {},
        {7: whole},
    )


@pytest.mark.parametrize("content", [b"", b"plain text\n" * 500, b"SQLite format 3\0" + bytes(5000)])
def test_a_file_that_is_no_log_gives_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.sqlite3"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"notes\.sqlite3 cannot be read"):
        open_session(path)


def test_another_programs_database_gives_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE samples (a, b)")
    with pytest.raises(StoreError, match="no session log"):
        open_session(path)
    with pytest.raises(StoreError, match="There is no session log"):
        open_session(tmp_path / "missing.sqlite3")


def test_a_newer_kvdesks_log_is_refused_not_guessed_at(tmp_path: Path) -> None:
    path = recorded(tmp_path, 3)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer kvdesk"):
        open_session(path)
    assert "newer kvdesk" in list_sessions(tmp_path)[0].how_ended


# --- the disk ------------------------------------------------------------------------------------------------------


@pytest.mark.logs("cannot be written")
def test_a_folder_that_cannot_be_written_is_a_sentence_and_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING), recording(tmp_path / "file" / "sessions") as recorder:
        recorder.sample(sample(0))
        recorder.flush()
        assert recorder.problem is not None
        assert recorder.problem.startswith("The session log cannot be written in")
    assert len(caplog.records) == 1


FULL_DISK = """
import resource, sys
from pathlib import Path
from tests.fakes.made_up_session import sample
from kvdesk.backend.session_log.recorder import Recorder
recorder = Recorder(Path(sys.argv[1]), "window", "0.1.0")
assert recorder.flush() and recorder.problem is None
recorder.sample(sample(0))
recorder.flush()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
for i in (90, 91, 92):
    recorder.sample(sample(i))
assert recorder.flush()
print(recorder.problem)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
recorder.sample(sample(1))
assert recorder.flush()
print(recorder.problem)
recorder.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limits there")
def test_a_disk_that_fails_for_a_while_costs_only_that_while(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr
    failed, fine = process.stdout.splitlines()
    assert "cannot be written" in failed
    assert fine == "None"
    session = open_session(session_files(tmp_path)[0])
    assert list(session.samples()) == [sample(0), sample(1)]
    assert not session.damaged


def test_the_oldest_sessions_go_when_the_budget_is_spent(tmp_path: Path) -> None:
    old = [recorded(tmp_path, 300) for _ in range(4)]
    size = size_on_disk(old[0])
    with recording(tmp_path, budget_bytes=int(2.5 * size)) as recorder:
        recorder.flush()
        assert session_files(tmp_path) == [*old[2:], recorder.path]
        drop_oldest(tmp_path, 0, keep=old[3])
        assert session_files(tmp_path) == [old[3], recorder.path]  # one is kept, one is still being written
    assert not any(part.exists() for path in old[:3] for part in (path, *companions(path)))


def test_a_session_too_long_for_the_budget_goes_on_in_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvdesk.backend.session_log.recorder._CHECK_EVERY_S", 0.0)
    with recording(tmp_path, budget_bytes=1_000_000) as recorder:
        first = recorder.path
        for i in range(10_000):
            recorder.sample(sample(i))
            if i % 500 == 0:
                recorder.flush()
        recorder.flush()
        assert recorder.path != first
        assert sum(map(size_on_disk, session_files(tmp_path))) < 1_300_000
    kept = [one for path in session_files(tmp_path) for one in open_session(path).samples()]
    assert kept == [sample(i) for i in range(10_000 - len(kept), 10_000)]
    assert len(session_files(tmp_path)) > 1
    assert "continued in" in list_sessions(tmp_path)[-1].how_ended


def test_sessions_are_found_by_id_by_its_beginning_and_as_the_last(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No session has been recorded"):
        find_session(tmp_path)
    first, second = recorded(tmp_path, 1), recorded(tmp_path, 1, "chat")
    assert find_session(tmp_path) == second
    assert find_session(tmp_path, first.stem) == first
    assert find_session(tmp_path, first.stem[:22]) == first
    with pytest.raises(UsageError, match="2 sessions begin"):
        find_session(tmp_path, "20")
    with pytest.raises(UsageError, match="No session is called 'x'"):
        find_session(tmp_path, "x")
    assert [summary.app for summary in list_sessions(tmp_path)] == ["chat", "window"]


# --- with the real monitor -----------------------------------------------------------------------------------------

SPIKE = """
import sys
print("ready", flush=True)
for line in sys.stdin:
    block = bytearray(int(line))
    block[::4096] = b"1" * len(block[::4096])
    del block
    print("done", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's record is read from /proc")
def test_the_recorded_peak_is_the_kernels_own_even_between_samples(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SPIKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    monitor = Monitor(Machine().read, 0.05)
    monitor.set_engine(process.pid)
    sampled = threading.Semaphore(0)
    with recording(tmp_path) as recorder:
        monitor.add_callback(recorder.sample)
        monitor.add_callback(lambda _: sampled.release())
        monitor.start()
        print(200 * MIB, file=process.stdin, flush=True)  # there and gone, with luck between two samples
        assert process.stdout.readline() == "done\n"
        status = Path(f"/proc/{process.pid}/status").read_text()
        while sampled.acquire(blocking=False):
            pass  # of samples that may have been taken while it was only half full
        for _ in range(2):  # the first may have begun before
            assert sampled.acquire(timeout=10)
        monitor.stop()
    process.stdin.close()
    process.wait(10)
    process.stdout.close()
    kernel = next(int(line.split()[1]) * KIB for line in status.splitlines() if line.startswith("VmHWM"))
    assert kernel > 200 * MIB
    assert open_session(recorder.path).peak_bytes == pytest.approx(kernel, rel=0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_session_whose_engine_is_killed_goes_on(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    monitor = Monitor(Machine().read, 0.02)
    monitor.set_engine(process.pid)
    seen = threading.Semaphore(0)
    with recording(tmp_path) as recorder:
        monitor.add_callback(recorder.sample)
        monitor.add_callback(lambda one: seen.release() if one.domains[0].engine_bytes is None else None)
        monitor.start()
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        recorder.event("crash", "The engine was killed.", {"signal": "SIGKILL"})
        assert seen.acquire(timeout=10)
        monitor.stop()
    process.stdin.close()
    session = open_session(recorder.path)
    last = list(session.samples())[-1].domain("RAM")
    assert (last.engine_bytes, last.available_bytes is None) == (None, False)
    assert [event.kind for event in session.events] == ["start", "crash", "exit"]
