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
from kvdesk.backend.conversations.store import FILE_NAME, ConversationStore
from kvdesk.backend.session_log.reader import open_session, session_files
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
