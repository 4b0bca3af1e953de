"""The app as it is started: a process of its own, the window first and all else behind it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.tiny_models import write_tiny

BROKEN = """
import sys
import kvdesk.ui.shell.application

def broken(self, *_):
    raise RuntimeError("nothing works today")

kvdesk.ui.shell.application.App.__init__ = broken
from kvdesk.cli import main
sys.exit(main([]))
"""


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KVDESK_HOME": str(home), "QT_QPA_PLATFORM": "offscreen"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=180, check=False
    )


def test_one_question_asked_of_the_real_program(home: Path, tmp_path: Path) -> None:
    model, picture = write_tiny("llama", tmp_path), tmp_path / "pictures" / "window.png"
    ran = run(home, "-m", "kvdesk", str(model), "--demo", "Once upon a time", "--screenshot", str(picture))
    assert ran.returncode == 0, ran.stderr
    assert "Question: Once upon a time\nAnswer: " in ran.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_window_with_nothing_behind_it_does_not_stay(home: Path) -> None:
    ran = run(home, "-c", BROKEN)
    assert ran.returncode == 1
    assert "nothing works today" in ran.stderr


NO_ENGINE = """
import sys
sys.path.insert(0, sys.argv.pop())
import kvdesk.backend.engine.engine
from tests.fakes.dead_process import die

kvdesk.backend.engine.engine.worker_main = die
from kvdesk.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_question_to_an_engine_that_dies_is_no_wait(home: Path, tmp_path: Path) -> None:
    """The engine of a broken installation ends as it starts: the program says so and leaves."""
    model, root = write_tiny("llama", tmp_path), Path(__file__).parents[2]
    ran = run(home, "-c", NO_ENGINE, str(model), "--demo", "Hello", str(root))
    assert ran.returncode == 1
    assert "The engine ended unexpectedly" in ran.stderr
