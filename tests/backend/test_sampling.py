"""Sampling settings by themselves: what cannot be used, and what a model's file recommends."""

from __future__ import annotations

from kvdesk.backend.sampling import SamplingSettings, recommended, sampling_problems


def test_what_needs_no_model_to_be_seen_is_told_before() -> None:
    assert not sampling_problems(SamplingSettings())
    assert "TOKEN=BIAS" in sampling_problems(SamplingSettings(logit_bias=("cat=purr",)))["logit_bias"]
    assert not sampling_problems(SamplingSettings(logit_bias=("a=b=-1", "15=-inf")))
    assert "line 2" in sampling_problems(SamplingSettings(grammar='{"a":\n}'))["grammar"]
    assert "root ::=" in sampling_problems(SamplingSettings(grammar="yes or no"))["grammar"]
    assert "nested" in sampling_problems(SamplingSettings(grammar="{" + '"a":{' * 100_000))["grammar"]


def test_a_files_recommendations_are_settings() -> None:
    said = {"temp": "0.600000", "top_k": "20", "top_p": "0.95", "penalty_last_n": "128", "mirostat": "2"}
    read = {f"general.sampling.{key}": text for key, text in said.items()}
    assert recommended(lambda key: read.get(key, "")) == {
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "repeat_last_n": 128,
        "mirostat": "2",
    }


def test_impossible_recommendations_are_left_out() -> None:
    said = {"temp": "-3", "top_k": "many", "top_p": "nan", "min_p": "inf", "mirostat": "7", "xtc_probability": "0.5"}
    read = {f"general.sampling.{key}": text for key, text in said.items()}
    assert recommended(lambda key: read.get(key, "")) == {"xtc_probability": 0.5}
    assert recommended(lambda key: "") == {}
