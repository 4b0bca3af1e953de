"""The generated models are real: llama.cpp loads each, tokenizes, decodes, and answers differently to other words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvdesk.backend.model_file import read_model_file
from tests import tiny_models
from tests.tiny_models import ARCHITECTURES, write_sparse_header, write_tiny

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
    folder = tmp_path_factory.mktemp("tiny")
    return {name: write_tiny(name, folder) for name in ARCHITECTURES}


@pytest.fixture(scope="module")
def decoded(written: dict[str, Path]) -> dict[str, dict[str, Any]]:
    outcomes = _decode(list(written.values()))
    return {name: outcomes[path] for name, path in written.items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_llama_cpp_loads_and_decodes(architecture: str, decoded: dict[str, dict[str, Any]]) -> None:
    outcome = decoded[architecture]
    assert "error" not in outcome, outcome["error"]
    assert outcome["prompt"][0] == tiny_models.BOS_ID
    assert len(outcome["reply"]) == 8
    assert min(outcome["reply"]) >= len(tiny_models.SPECIAL_TOKENS) + 256, "greedy picked a special or byte token"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_header_reads_back(architecture: str, written: dict[str, Path]) -> None:
    model = read_model_file(written[architecture])
    model.check_loadable()
    assert (model.architecture, model.n_vocab, model.is_complete) == (architecture, 512, True)
    assert model.size_bytes == written[architecture].stat().st_size < 4_000_000


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
