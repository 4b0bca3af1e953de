"""The generated models are real: llama.cpp loads each, tokenizes, decodes, and answers differently to other words."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvdesk.backend.gguf.model_file import ModelFile, read_model_file
from kvdesk.errors import ModelFileError
from tests import tiny_models
from tests.tiny_models import ARCHITECTURES, NO_CHAT, write_all, write_sparse_header, write_tiny

_DECODER = Path(tiny_models.__file__).with_name("decode_models.py")


def _decode(paths: list[Path], n_tokens: int = 8) -> dict[Path, dict[str, Any]]:
    """What the decoder process says of each model; one that killed it says so, and the next process goes on."""
    outcomes: dict[Path, dict[str, Any]] = {}
    while left := [path for path in paths if path not in outcomes]:
        done = subprocess.run(
            [sys.executable, str(_DECODER), str(n_tokens), *map(str, left)],
            capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"GGML_NO_BACKTRACE": "1"},
        )  # fmt: skip
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                outcome = json.loads(line)
                outcomes[Path(outcome["path"])] = outcome
        if done.returncode != 0:
            killer = next(path for path in left if path not in outcomes)
            outcomes[killer] = {"error": f"the process ended with {done.returncode}: {done.stderr[-1000:]}"}
    return outcomes


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("tiny"), ARCHITECTURES + NO_CHAT)


@pytest.fixture(scope="module")
def decoded(written: dict[str, Path]) -> dict[str, dict[str, Any]]:
    outcomes = _decode([written[name] for name in ARCHITECTURES])
    return {name: outcomes[written[name]] for name in ARCHITECTURES}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_llama_cpp_loads_and_decodes(architecture: str, decoded: dict[str, dict[str, Any]]) -> None:
    outcome = decoded[architecture]
    assert "error" not in outcome, outcome["error"]
    assert outcome["prompt"][0] == tiny_models.BOS_ID
    assert len(outcome["reply"]) == 8
    assert min(outcome["reply"]) >= len(tiny_models.SPECIAL_TOKENS) + 256, "greedy picked a special or byte token"


@pytest.mark.parametrize("architecture", ARCHITECTURES + NO_CHAT)
def test_header_reads_back(architecture: str, written: dict[str, Path]) -> None:
    model = read_model_file(written[architecture])
    model.check_loadable()
    assert (model.architecture, model.is_complete, model.has_vocab) == (architecture, True, True)
    assert model.size_bytes == written[architecture].stat().st_size < 10_000_000
    if architecture in ARCHITECTURES:
        model.check_can_chat()
    else:
        with pytest.raises(ModelFileError):
            model.check_can_chat()


WITH_AN_INDEXER = ("deepseek32", "deepseek4", "dots3note", "glm-dsa", "glm5-next", "hy_v4", "minimax-m3", "qwen4exp")
"""Sparse attention keeps caches for its index as well, which the header facts do not count."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_header_facts_are_llama_cpps_own(
    architecture: str, written: dict[str, Path], decoded: dict[str, dict[str, Any]]
) -> None:
    model = read_model_file(written[architecture])
    told = decoded[architecture]["facts"]
    if architecture in ("exaone4", "deepseek4"):
        told.pop("sliding_window")  # a window that is not used, and one that is not told
    ours: dict[str, object] = {name: getattr(model, name) for name in told}
    ours |= {"n_head": model.n_head[0], "n_head_kv": model.n_head_kv[0]}
    if "sliding_window" in told:
        ours["sliding_window"] = model.sliding_window or 0
    assert ours == told
    if architecture not in WITH_AN_INDEXER:
        assert _cache_sizes(model) == [_cache_size(line) for line in decoded[architecture]["caches"]]


def _cache_size(line: str) -> tuple[int, int, float, float]:
    """Layers, cells, and MiB of K and V from llama.cpp's line about one cache."""
    found = re.search(r"\( *(\d+) cells, +(\d+) layers.* K \(f16\): +([\d.]+) MiB, V \(f16\): +([\d.]+) MiB", line)
    assert found
    return int(found[2]), int(found[1]), float(found[3]), float(found[4])


def _cache_sizes(model: ModelFile) -> list[tuple[int, int, float, float]]:
    """The same by the header: a cache for the layers that see everything, and one for those with a window."""
    cells, sizes = 512, []
    for windowed in (False, True) if model.sliding_window else (False,):
        layers = [i for i in range(model.n_layer) if model.cached_layers[i] and model.windowed_layers[i] == windowed]
        heads = sum(model.n_head_kv[i] for i in layers)
        k = model.head_size_k_swa if windowed else model.head_size_k
        v = 0 if model.caches_latent else model.head_size_v_swa if windowed else model.head_size_v
        sizes.append((len(layers), cells, *(round(heads * size * cells * 2 / 2**20, 2) for size in (k, v))))
    return [] if model.is_recurrent else sizes


def test_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    first = write_tiny("llama", tmp_path, file_name="a.gguf")
    assert write_tiny("llama", tmp_path, file_name="b.gguf").read_bytes() == first.read_bytes()
    assert write_tiny("llama", tmp_path, file_name="c.gguf", seed=2).read_bytes() != first.read_bytes()


def test_overrides_template_and_weight_types_load(tmp_path: Path) -> None:
    paths = [
        write_tiny(
            "llama", tmp_path, file_name=f"{kind}.gguf", n_layer=3, n_ctx_train=32768, weight_type=kind,
            n_head_kv=1, chat_template=tiny_models.CHATML, rope__freq_base=500000.0,
        )
        for kind in ("f32", "q8_0", "q4_0")
    ]  # fmt: skip
    for path, outcome in _decode(paths).items():
        assert "error" not in outcome, outcome["error"]
        model = read_model_file(path)
        assert (model.n_layer, model.n_ctx_train, model.n_head_kv) == (3, 32768, (1, 1, 1))
        assert model.has_chat_template
        assert model.metadata["llama.rope.freq_base"] == 500000.0


def test_without_vocabulary_it_decodes_ids_only(tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path, vocab=False)
    assert not read_model_file(path).has_vocab
    assert "error" not in _decode([path])[path]


def test_sparse_header_has_the_same_facts(tmp_path: Path) -> None:
    whole = write_tiny("llama", tmp_path)
    header = write_sparse_header(whole, tmp_path / "header.gguf")
    sparse = write_sparse_header(whole, tmp_path / "sparse.gguf", full_size=True)
    assert header.stat().st_size < whole.stat().st_size == sparse.stat().st_size
    assert read_model_file(header).tensors == read_model_file(sparse).tensors == read_model_file(whole).tensors
    assert not read_model_file(header).is_complete
