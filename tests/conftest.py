"""What every test shares: a home of its own, an offscreen screen, the starter model; and that it leaves nothing behind."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

# the same examples each time, and no clock: machines that run these are shared and slow at times
settings.register_profile(
    "kvdesk", deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("kvdesk")

from tests.left_behind import LeftBehind, Warnings  # noqa: E402 - Qt reads QT_QPA_PLATFORM


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Config, data, logs of this run stay away from the user's."""
    os.environ["KVDESK_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module", autouse=True)
def _module_leaves_nothing_behind(_home: None) -> Iterator[None]:
    """As for every test, after the module's own fixtures are gone."""
    before = LeftBehind()
    yield
    if left := before.sentences():
        pytest.fail("\n".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(request: pytest.FixtureRequest, _home: None) -> Iterator[None]:
    """Fails a test that leaves a window, timer, thread or child process, or logs a warning without the mark ``logs``.

    It is set up before the test's other fixtures and so looks after theirs are gone.
    """
    marks = {name: request.node.get_closest_marker(name) for name in ("logs", "may_log", "shares")}
    logs, may_log, shares = (mark.args if mark else () for mark in marks.values())
    warnings = Warnings(logs, may_log)
    before = LeftBehind(shares)
    logging.getLogger().addHandler(warnings)
    yield
    left = before.sentences()
    logging.getLogger().removeHandler(warnings)
    if problems := [*left, *warnings.sentences()]:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of this test's own."""
    monkeypatch.setenv("KVDESK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def starter(_home: None) -> Path:
    """The starter model, put together once per run."""
    from kvdesk.backend.library.models import starter_model

    path = starter_model()
    assert path is not None, "the starter package is part of the locked requirements"
    return path
