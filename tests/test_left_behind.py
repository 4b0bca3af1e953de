"""The rules that tests/conftest.py holds every test to can fail: each is broken here, by a test run of its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BREAKS = {
    "left windows behind: QWidget the window": """
def test_it(qapp):
    from PySide6.QtWidgets import QWidget
    KEPT.append(QWidget())
    KEPT[0].setObjectName("the window")
""",
    "left timers behind: 60000 ms": """
def test_it(qapp):
    from PySide6.QtCore import QTimer
    KEPT.append(QTimer())
    KEPT[0].start(60_000)
""",
    "left threads behind: the thread": """
def test_it():
    import threading
    threading.Thread(target=threading.Event().wait, name="the thread", daemon=True).start()
""",
    "left processes behind: ": """
def test_it():
    import subprocess, sys
    KEPT.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
""",
    "logged 'kvdesk.x: the warning'": """
def test_it():
    import logging
    logging.getLogger("kvdesk.x").warning("the warning")
""",
    "never logged 'the warning'": """
import pytest
@pytest.mark.logs("the warning")
def test_it():
    pass
""",
}
"""What is said -> a test that breaks a rule."""
TIDY = """
import pytest
@pytest.mark.logs("the warning")
def test_it(qapp):
    import logging, threading
    from PySide6.QtCore import QTimer
    from PySide6.QtWidgets import QWidget
    logging.getLogger("kvdesk.x").warning("the warning")
    window, timer, thread = QWidget(), QTimer(), threading.Thread(target=str)
    timer.start(60_000)
    thread.start()
    timer.stop()
    window.deleteLater()
    KEPT.append(window)
"""


def run(tmp_path: Path, source: str) -> str:
    (tmp_path / "test_it.py").write_text(f"KEPT = []\n{source}")
    conftest = (
        "import tests.left_behind\ntests.left_behind.PATIENCE_S = 0.05\n"
        "from tests.conftest import _home, _leaves_nothing_behind\n"
    )
    (tmp_path / "conftest.py").write_text(conftest)
    arguments = ["-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), str(tmp_path / "test_it.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize("words", BREAKS)
def test_a_test_that_breaks_a_rule_fails(tmp_path: Path, words: str) -> None:
    said = run(tmp_path, BREAKS[words])
    assert words in said
    assert "1 error" in said


def test_one_that_keeps_them_passes(tmp_path: Path) -> None:
    assert "1 passed" in run(tmp_path, TIDY).splitlines()[-1]
