"""``kvdesk doctor`` as a person runs it."""

from __future__ import annotations

import json

import pytest

from kvdesk import cli, paths
from kvdesk.backend.system.cpu_fallback import remember
from tests.fakes.dead_process import die


def test_a_remembered_crash_is_shown_and_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    remember(paths.fallback_file())
    assert cli.main(["doctor", "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["repacking_fails_here"] is True
    assert cli.main(["doctor", "--retry-repacking"]) in (0, 1)
    assert "nothing is known against them" in capsys.readouterr().out
    assert cli.main(["doctor", "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["repacking_fails_here"] is False


def test_the_engine_that_starts_here_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert "CPU" in {backend["name"] for backend in told["backends"]}
    assert "CPU" in {device["name"] for device in told["devices"]}
    assert "SSE3" in told["system_info"] or "NEON" in told["system_info"]


def test_an_engine_that_does_not_start_is_a_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvdesk.backend.processes.engine_process.worker_main", die)
    assert cli.main(["doctor"]) == 1
    assert "X engine" in capsys.readouterr().out
