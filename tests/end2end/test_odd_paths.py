"""A model file whose name is no UTF-8 opens like any other, from the command line and in the window."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from kvdesk import cli
from tests.end2end.conftest import StartApp
from tests.tiny_models import write_tiny

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems' file names are Unicode")
SHOWN = "caf\N{REPLACEMENT CHARACTER}.gguf"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.gguf"))
    return write_tiny("llama", tmp_path, **{"/general.name": ""}).rename(path)


@pytest.mark.usefixtures("home")
def test_every_command_opens_it(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(model), "--json"]) == 0
    plan = json.loads(capfd.readouterr().out)
    assert plan["model"]["path"] == str(model)
    assert plan["source"] == "dry-run"
    odd = "What is \udcff?"  # as Python hands over a byte of the command line that is no UTF-8
    assert cli.main(["chat", str(model), "-p", odd, "--threads", "1", "--max-tokens", "4"]) == 0
    assert cli.main(["template", str(model)]) == 0
    assert cli.main(["models", "info", str(model)]) == 0
    assert SHOWN.removesuffix(".gguf") in capfd.readouterr().out


def test_the_window_opens_it_and_knows_it_again(start_app: StartApp, model: Path) -> None:
    person = start_app(model)
    reply = person.ask("Hello")
    person.app.close()
    again = start_app(model)
    again.wait_until(lambda: again.messages == ["Hello", reply])
    again.wait_until(lambda: SHOWN in [action.text() for action in again.window.model_bar._menu.actions()])
    assert not [notice for notice in again.notices if "codec" in notice]
