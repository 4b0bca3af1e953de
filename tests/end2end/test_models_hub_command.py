"""``kvdesk models search|info|get`` as a person runs it, against a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.fake_hub import FakeHub, FakeRepository, break_off, status
from tests.tiny_models import write_tiny

REPO = "maker/tiny-GGUF"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_tiny("llama", tmp_path_factory.mktemp("tiny"), n_ctx_train=8192).read_bytes()


@pytest.fixture
def fake(content: bytes) -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.repositories[REPO] = FakeRepository(
            {"t-Q4_0.gguf": content, "t-Q8_0.gguf": content + bytes(50_000), "t-F16.gguf": content + bytes(90_000)}
        )
        yield hub


def run(fake: FakeHub, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: huggingface_hub reads HF_ENDPOINT when it is imported."""
    environment = {name: text for name, text in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"HF_ENDPOINT": fake.endpoint, "KVDESK_HOME": str(home), "HF_HOME": str(home / "hf")}
    return subprocess.run(
        [sys.executable, "-m", "kvdesk", "models", *arguments],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_from_a_search_to_a_model_in_the_list(fake: FakeHub, home: Path, content: bytes) -> None:
    found = json.loads(run(fake, home, "search", "tiny", "--json").stdout)
    assert [one["repo_id"] for one in found["repositories"]] == [REPO]

    info = json.loads(run(fake, home, "info", REPO, "--json").stdout)
    by_name = {model["quantization"]: model for model in info["models"]}
    assert {name: model["fit"]["kind"] for name, model in by_name.items()} == dict.fromkeys(
        ("Q4_0", "Q8_0", "F16"), "fits"
    )
    assert [name for name, model in by_name.items() if model["is_best"]] == ["Q8_0"]
    assert by_name["Q4_0"]["fit"]["source"] == "dry-run"

    fake.fault("/content/", break_off(70_000), status(503))
    done = run(fake, home, "get", f"{REPO}:q4_0", "--json")
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["stage"], last["done_bytes"]) == ("done", len(content))
    assert Path(last["path"]).read_bytes() == content

    [listed] = json.loads(run(fake, home, "list", "--no-fit", "--json", "--folder", str(home)).stdout)["models"][:1]
    assert (listed["path"], listed["source"]) == (last["path"], "kvdesk")


def test_without_a_quantization_the_best_is_taken(fake: FakeHub, home: Path, content: bytes) -> None:
    done = run(fake, home, "get", REPO)
    assert done.returncode == 0, done.stderr
    assert "Q8_0: The best for this machine" in done.stderr
    assert done.stdout.splitlines()[-1].endswith("t-Q8_0.gguf")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["get", "nobody/nothing"], 1, "nobody/nothing does not exist, or is private"),
        (["get", f"{REPO}:Q2_K"], 1, "has no Q2_K. It has: Q4_0, Q8_0, F16."),
        (["get", "just words"], 2, "names no repository"),
        (["info", "https://example.com/model.gguf"], 2, "names no repository"),
    ],
)
def test_every_error_is_a_sentence(fake: FakeHub, home: Path, arguments: list[str], code: int, sentence: str) -> None:
    done = run(fake, home, *arguments)
    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
