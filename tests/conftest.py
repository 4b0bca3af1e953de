"""What every test shares: a home of its own, an offscreen screen, the starter model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

# the same examples each time, and no clock: machines that run these are shared and slow at times
settings.register_profile(
    "kvdesk", deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("kvdesk")


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Config, data, logs of this run stay away from the user's."""
    os.environ["KVDESK_HOME"] = str(tmp_path_factory.mktemp("home"))


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
