"""Converting saved states to other cache types and flash attention, compared with reading the tokens again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine import kv_lab
from tests.tiny_models import write_tiny


@pytest.fixture(scope="module", params=["llama", "gemma3", "lfm2", "qwen3moe", "deepseek2"])
def conversions(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """All pairs of f16, f16 without flash attention, q8_0 and q4_0, on a model of each kind of cache."""
    return kv_lab.run("convert", write_tiny(request.param, tmp_path_factory.mktemp(request.param)))


def test_every_pair_is_converted_into_what_the_target_takes(conversions: list[dict[str, Any]]) -> None:
    assert len(conversions) == 12
    assert [c for c in conversions if not (c["restored"] and c["same_size"])] == []


def test_a_conversion_is_as_near_as_reading_again(conversions: list[dict[str, Any]]) -> None:
    """By the median: in these random models one token may go to another expert and outweigh all others, either way."""
    assert [c for c in conversions if c["converted_median"] > 1.5 * c["reread_median"] + 1e-5] == []


def test_a_recurrent_model_has_nothing_to_convert(tmp_path: Path) -> None:
    conversions = kv_lab.run("convert", write_tiny("mamba", tmp_path))
    assert all(c["restored"] and c["converted"] == 0 for c in conversions)


@pytest.mark.starter
def test_the_starter_after_its_window_has_passed_the_first_tokens(starter: Path) -> None:
    conversions = kv_lab.run("convert", starter)
    assert [c["target"] for c in conversions] == ["q8_0", "q4_0"]
    assert all(c["restored"] for c in conversions)
    assert [c for c in conversions if c["converted"] > 1.5 * c["reread"]] == []


def test_a_checkpoint_is_converted_and_what_does_not_agree_is_refused(tmp_path: Path) -> None:
    result = kv_lab.run("convert_checkpoint", write_tiny("gemma3", tmp_path))
    assert result["back"]
    assert all(result["refused"].values()), result["refused"]
