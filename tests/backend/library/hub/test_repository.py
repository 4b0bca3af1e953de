"""Files of a repository as models, and names by strangers that never become paths elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvdesk.backend.library.hub.repository import RemoteFile, models_in, quantization_in, target_path
from kvdesk.errors import HubError


def files(*names: str) -> list[RemoteFile]:
    return [RemoteFile("o/r", "rev", name, 100 + len(name)) for name in names]


def test_split_files_are_one_model_and_half_a_model_is_none() -> None:
    models = models_in(files(
        "Q4_K_M/m-Q4_K_M-00001-of-00002.gguf", "Q4_K_M/m-Q4_K_M-00002-of-00002.gguf",
        "m-Q8_0-00001-of-00003.gguf", "m-Q8_0-00003-of-00003.gguf", "m-IQ2_XS.gguf", "imatrix.dat", "README.md",
    ))  # fmt: skip
    assert [(model.name, model.quantization, len(model.files)) for model in models] == [
        ("m-IQ2_XS", "IQ2_XS", 1), ("m-Q4_K_M", "Q4_K_M", 2),
    ]  # fmt: skip


def test_the_projector_comes_with_its_models() -> None:
    [model] = models_in(files("m-Q4_0.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-F32.gguf"))
    assert model.projector is not None
    assert model.projector.name == "mmproj-F16.gguf"
    [plain] = models_in(files("m-Q4_0.gguf"))
    assert plain.projector is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gemma-3-4b-it-Q4_K_M.gguf", "Q4_K_M"), ("Qwen3-8B.Q5_0.gguf", "Q5_0"), ("m-UD-IQ1_S.gguf", "UD-IQ1_S"),
        ("m-bf16.gguf", "BF16"), ("gpt-oss-20b-mxfp4.gguf", "MXFP4"), ("F16/model-00001-of-00002.gguf", "F16"),
        ("plain.gguf", ""), ("m-TQ1_0.gguf", "TQ1_0"), ("q4_k_m/part.gguf", "Q4_K_M"),
    ],
)  # fmt: skip
def test_quantizations_are_read_from_names(name: str, expected: str) -> None:
    assert quantization_in(name) == expected


def test_a_file_goes_below_its_repository() -> None:
    assert target_path(Path("/m"), RemoteFile("o/r", "", "sub/m.gguf", 1)) == Path("/m/o/r/sub/m.gguf")


@pytest.mark.parametrize(
    "name",
    [
        "../m.gguf", "a/../../m.gguf", "/etc/m.gguf", "a//m.gguf", "", ".hidden.gguf", "a/.git/m.gguf", "..\\m.gguf",
        "C:m.gguf", "m\x00.gguf", "m\n.gguf", "m\x1b[31m.gguf", "\u202egguf.m", "nul.gguf", "m" * 300 + ".gguf", "m.gguf.",
        "m.gguf ", "<b>m</b>.gguf", "COM1", "m?.gguf",
    ],
)  # fmt: skip
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(HubError, match="not safe"):
        target_path(Path("/m"), RemoteFile("o/r", "", name, 1))


@pytest.mark.parametrize("repo_id", ["../r", "o/..", "o", "o/r/x", "o/", "/r", "o/<b>", "o/r\n", ".o/r"])
def test_unsafe_repositories_are_refused(repo_id: str) -> None:
    with pytest.raises(HubError, match="none that the hub allows"):
        target_path(Path("/m"), RemoteFile(repo_id, "", "m.gguf", 1))
