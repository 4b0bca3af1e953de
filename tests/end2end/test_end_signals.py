"""Ctrl+C and SIGTERM end the window in order: what is typed and said is kept, the engine is gone, the log is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from kvdesk import paths
from kvdesk.backend import preferences
from kvdesk.backend.conversations.store import FILE_NAME, ConversationStore
from kvdesk.backend.session_log.reader import open_session, session_files
from tests.end2end.conftest import StartApp
from tests.tiny_models import write_tiny

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

TYPING = """
import sys
from PySide6.QtCore import QTimer
from kvdesk.ui.shell import start

opened = start.open_app

def open_app(application, model, rpc_servers, joined):
    def ready(app):
        joined(app)
        app.window.composer.set_draft("a word that was never sent")
        app.session.add_listener(lambda change: change.now.can_answer and print("ready", flush=True))
    return opened(application, model, rpc_servers, ready)

start.open_app = open_app
from kvdesk.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_window_ends_in_order(number: signal.Signals, home: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "KVDESK_HOME": str(home), "QT_QPA_PLATFORM": "offscreen"}
    with subprocess.Popen(
        [sys.executable, "-c", TYPING, str(write_tiny("llama", tmp_path))],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    until = time.monotonic() + 10
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
        assert time.monotonic() < until, "a process of the app is left"
        time.sleep(0.01)
    (session,) = session_files(paths.sessions_dir())
    assert open_session(session).events[-1].text == f"closed by {number.name}"
    store = ConversationStore(paths.data_dir() / FILE_NAME)
    assert [row.draft for row in store.conversations()] == ["a word that was never sent"]
    store.close()


def test_a_window_that_was_killed_comes_back_with_its_conversation_and_draft(
    start_app: StartApp, home: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "KVDESK_HOME": str(home), "QT_QPA_PLATFORM": "offscreen"}
    model = write_tiny("llama", tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", TYPING, str(model)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        until = time.monotonic() + 30
        state = paths.config_dir() / preferences.WINDOW_FILE_NAME
        while not preferences.load_window_state(state).conversation_id and time.monotonic() < until:
            time.sleep(0.1)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    psutil.wait_procs(children, timeout=30)
    person = start_app(model)
    person.wait_until(lambda: person.window.composer.draft() == "a word that was never sent")
