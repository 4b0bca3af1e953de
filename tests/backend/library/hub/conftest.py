"""A hub of the test's own, with one repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvdesk.backend.library.hub.hub import Hub
from tests.fakes.fake_hub import FakeHub, FakeRepository
from tests.tiny_models import write_tiny

REPO = "maker/tiny-GGUF"


@pytest.fixture(scope="session")
def tiny_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_tiny("llama", tmp_path_factory.mktemp("tiny"), n_ctx_train=131_072).read_bytes()


@pytest.fixture
def fake(tiny_bytes: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with FakeHub() as hub:
        hub.repositories[REPO] = FakeRepository(
            {
                "README.md": b"hello",
                "tiny-Q4_K_M.gguf": tiny_bytes,
                "tiny-Q8_0.gguf": tiny_bytes + bytes(100_000),
                "mmproj-F16.gguf": b"GGUF projector",
            },
            small=frozenset({"README.md"}),
        )
        yield hub


@pytest.fixture
def hub(fake: FakeHub) -> Hub:
    return Hub(fake.endpoint)


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder
