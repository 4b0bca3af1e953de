"""``kvdesk worker`` and ``kvdesk chat --rpc`` on loopback: layers split across processes, and what happens when one goes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from kvdesk import cli, paths
from kvdesk.backend.session_log.reader import find_session, open_session
from kvdesk.backend.system.cpu_fallback import remember
from kvdesk.backend.system.rpc_probe import check_worker
from kvdesk.errors import EngineError
from tests.tiny_models import write_tiny

Chat = Callable[..., dict[str, Any]]


@contextlib.contextmanager
def running_worker(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A worker that listens, and its address."""
    command = [sys.executable, "-m", "kvdesk", "worker", "--port", "0", "--threads", "1", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            said = process.stdout.readline()
            assert said.startswith("listening on 127.0.0.1:")
            yield process, said.split()[2].rstrip(",")
        finally:
            process.kill()


@pytest.fixture(scope="module")
def worker() -> Iterator[str]:
    with running_worker() as (_, endpoint):
        yield endpoint


@pytest.fixture
def chat(home: Path, capsys: pytest.CaptureFixture[str]) -> Chat:
    """Runs ``kvdesk chat --json``, without repacked weights, which a worker has not either; its object."""
    remember(paths.fallback_file())

    def run(model: Path, *arguments: str) -> dict[str, Any]:
        fixed = ["--temperature", "0", "--threads", "1", "--allocation", "reserve", "--n-ctx", "1024", "--json"]
        assert cli.main(["chat", str(model), "-p", "Once upon a time", *fixed, *arguments]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def plan(capsys: pytest.CaptureFixture[str], model: Path, *arguments: str) -> dict[str, Any]:
    assert cli.main(["plan", str(model), "--n-ctx", "1024", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("gpu_layers", ["-1", "2"])
def test_layers_on_a_worker_say_the_same_and_take_what_was_planned(
    chat: Chat, worker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], gpu_layers: str
) -> None:
    model = write_tiny("llama", tmp_path)
    short = ["--max-tokens", "24"]
    local = chat(model, *short)
    split = ["--rpc", worker, "--gpu-layers", gpu_layers]
    remote = chat(model, *short, *split)
    assert remote["turns"][0]["text"] == local["turns"][0]["text"]
    assert local["memory"]["devices"] == []
    (device,) = remote["memory"]["devices"]
    assert device["name"] == "RPC0"
    assert device["total_bytes"] > 2**30
    planned = next(one for one in plan(capsys, model, *split)["devices"] if one["name"] == "RPC0")
    parts = ("weights_bytes", "kv_bytes", "recurrent_bytes", "compute_bytes", "output_bytes")
    assert device["used_bytes"] == sum(planned[part] for part in parts)
    assert planned["weights_bytes"] > 0
    assert planned["kv_bytes"] > 0


@pytest.mark.starter
def test_the_starter_split_over_a_worker(chat: Chat, worker: str, starter: Path) -> None:
    short = ["--max-tokens", "6"]
    local = chat(starter, *short)
    for gpu_layers in ("-1", "9"):
        remote = chat(starter, *short, "--rpc", worker, "--gpu-layers", gpu_layers)
        assert remote["turns"][0]["text"] == local["turns"][0]["text"]
        assert remote["memory"]["devices"][0]["used_bytes"] > 100 * 2**20
        assert remote["memory"]["anonymous_bytes"] < local["memory"]["anonymous_bytes"]


def test_the_worker_is_a_domain_of_the_session_log(chat: Chat, worker: str, tmp_path: Path) -> None:
    chat(write_tiny("llama", tmp_path), "--max-tokens", "200", "--rpc", worker)
    session = open_session(find_session(paths.sessions_dir()))
    last = list(session.samples())[-1].domain("RPC0")
    assert last
    assert last.kind == "rpc"
    assert last.engine_bytes
    assert list(session.samples())[-1].predicted("RPC0")


def test_a_worker_that_goes_away_is_a_sentence(home: Path, tmp_path: Path) -> None:
    model = write_tiny("llama", tmp_path)
    with running_worker() as (lost, endpoint):
        command = ["chat", str(model), "-p", "Hello", "--rpc", endpoint, "--max-tokens", "0", "--n-ctx", "32768"]
        with subprocess.Popen(
            [sys.executable, "-m", "kvdesk", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout
            assert process.stderr
            try:
                assert process.stdout.read(1)
                lost.kill()
                while process.stdout.read(4096):
                    pass
                assert process.wait(30) == 1
                said = process.stderr.read().decode()
            finally:
                process.kill()
    words = f"The engine lost the network worker {endpoint} while writing a reply."
    assert words in said
    session = open_session(find_session(paths.sessions_dir()))
    (crash,) = [event for event in session.events if event.kind == "crash"]
    assert crash.text.startswith(words)
    assert crash.values["signal"] == "SIGABRT"


def test_nobody_at_the_address_is_a_sentence(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        assert cli.main(["chat", str(write_tiny("llama", tmp_path)), "-p", "Hello", "--rpc", endpoint]) == 1
    assert f"No network worker answers at {endpoint}; is `kvdesk worker` running there?" in capsys.readouterr().err


@pytest.mark.parametrize("endpoint", ["here", "host:", "host:0", "host:99999", "[::1]:50052", "a b:1"])
def test_what_is_no_address_is_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], endpoint: str
) -> None:
    assert cli.main(["chat", str(write_tiny("llama", tmp_path)), "-p", "Hello", "--rpc", endpoint]) == 2
    assert "is no network worker's address" in capsys.readouterr().err


def test_a_worker_serves_one_program_at_a_time_and_then_the_next(worker: str) -> None:
    host, _, port = worker.partition(":")
    with socket.create_connection((host, int(port))), pytest.raises(EngineError, match="is busy"):
        check_worker(worker, timeout_s=0.3)
    check_worker(worker)


def test_another_server_is_not_taken_for_a_worker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"127.0.0.1:{server.getsockname()[1]}"
        answers = iter([b"HTTP/1.1 400 Bad Request\r\n\r\n and more", b"", b"\x1c" + bytes(7) + b"\x06" + bytes(27)])

        def answer_next() -> None:
            client, _ = server.accept()
            with client:
                client.recv(64)
                client.sendall(next(answers))

        for words in ("no llama.cpp RPC worker", "no llama.cpp RPC worker", "speaks llama.cpp's RPC protocol 6.0"):
            thread = threading.Thread(target=answer_next)
            thread.start()
            with pytest.raises(EngineError, match=words):
                check_worker(endpoint)
            thread.join()


def test_ctrl_c_ends_a_worker_and_its_process(home: Path) -> None:
    with running_worker() as (process, endpoint):
        (child,) = [one for one in psutil.Process(process.pid).children() if "spawn_main" in " ".join(one.cmdline())]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "stopped\n", "")
        psutil.wait_procs([child], timeout=5)
        assert not child.is_running()
    with pytest.raises(EngineError, match="No network worker answers"):
        check_worker(endpoint)


def test_a_killed_worker_leaves_no_process(home: Path) -> None:
    with running_worker() as (process, _):
        children = psutil.Process(process.pid).children()
        process.kill()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []


def test_a_server_process_that_dies_is_told(home: Path) -> None:
    with running_worker() as (process, _):
        for child in psutil.Process(process.pid).children():
            if "spawn_main" in " ".join(child.cmdline()):
                os.kill(child.pid, signal.SIGSEGV)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "The worker crashed (segmentation fault) while serving." in err


def test_a_port_in_use_is_a_sentence(worker: str, capsys: pytest.CaptureFixture[str]) -> None:
    port = worker.rpartition(":")[2]
    assert cli.main(["worker", "--port", port]) == 1
    assert f"{worker} cannot be listened on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "add --allow-remote"),
        (["--host", "192.0.2.7"], "add --allow-remote"),
        (["--host", "::1"], "no IPv4 address"),
        (["--port", "70000"], "no port"),
        (["--threads", "-1"], "is negative"),
    ],
)
def test_what_a_worker_refuses(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert cli.main(["worker", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_an_open_worker_warns_that_nobody_is_asked_who_he_is(home: Path) -> None:
    command = [sys.executable, "-m", "kvdesk", "worker", "--host", "0.0.0.0", "--port", "0", "--allow-remote"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline().startswith("listening on 0.0.0.0:")
        finally:
            process.kill()
        assert process.stderr
        assert "no authentication" in process.stderr.read()


def test_a_build_without_rpc_says_so() -> None:
    script = (
        "from kvdesk.backend.llama import library\n"
        "library._reg_by_name = lambda name: None\n"
        "library.add_rpc_server('127.0.0.1:1')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "EngineError: This build of llama.cpp has no RPC backend" in done.stderr
