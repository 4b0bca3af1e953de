"""The list for newcomers: whole, pinned, and cut to what a machine can hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kvdesk import paths
from kvdesk.backend.library.first_models import FirstModel, read_first_models, suiting
from kvdesk.backend.library.hub.repository import REPOSITORY_NAME, quantization_in, target_path
from kvdesk.sizes import GIB


@pytest.fixture(scope="module")
def models() -> tuple[FirstModel, ...]:
    return read_first_models(paths.resource_dir())


def test_each_is_pinned_and_may_be_passed_on(models: tuple[FirstModel, ...]) -> None:
    assert len(models) >= 3
    for model in models:
        assert REPOSITORY_NAME.fullmatch(model.repo_id)
        assert re.fullmatch(r"[0-9a-f]{40}", model.revision)
        assert re.fullmatch(r"[0-9a-f]{64}", model.sha256)
        assert model.license in ("Apache-2.0", "MIT")
        assert quantization_in(model.file) == model.quantization
        assert target_path(Path("/m"), model.remote.files[0]).suffix == ".gguf"
        assert model.why.endswith(".")


@pytest.mark.parametrize(
    ("line_gib", "names"),
    [
        (2.5, ["Qwen2.5 1.5B Instruct"]),
        (8, ["Qwen2.5 1.5B Instruct", "Qwen3 4B", "Qwen3 8B"]),
        (24, ["Qwen3 4B", "Qwen3 8B", "Qwen3 14B"]),
        (0.5, ["Qwen2.5 1.5B Instruct"]),
    ],
)
def test_what_suits_a_machine(models: tuple[FirstModel, ...], line_gib: float, names: list[str]) -> None:
    assert [model.name for model in suiting(models, round(line_gib * GIB))] == names


def test_an_unknown_machine_gets_the_smallest(models: tuple[FirstModel, ...]) -> None:
    assert [model.name for model in suiting(models, None)] == ["Qwen2.5 1.5B Instruct"]


def test_about_is_near_what_such_a_model_takes(models: tuple[FirstModel, ...]) -> None:
    """Qwen3 4B with 8,192 tokens: 2.3 GiB of weights, 1.1 GiB of f16 cache (36 layers, 8 heads of 128), 0.3 GiB of logits."""
    four = next(model for model in models if model.name == "Qwen3 4B")
    assert four.kv_bytes_per_token == 2 * 36 * 8 * 128 * 2
    assert 3.7 * GIB < four.about_bytes < 4.1 * GIB
