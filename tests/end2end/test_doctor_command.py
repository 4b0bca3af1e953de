"""``kvdesk doctor`` as a person runs it."""

from __future__ import annotations

import json

import pytest

from kvdesk import cli, paths
from kvdesk.backend.system.cpu_fallback import remember


def test_a_remembered_crash_is_shown_and_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    remember(paths.fallback_file())
    assert cli.main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["repacking_fails_here"] is True
    assert cli.main(["doctor", "--retry-repacking"]) == 0
    assert "Nothing is known" in capsys.readouterr().out
    assert cli.main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["repacking_fails_here"] is False
