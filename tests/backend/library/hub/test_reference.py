"""What people paste, and what of a repository it means."""

from __future__ import annotations

import pytest

from kvdesk.backend.library.hub.reference import Reference, chosen_model, read_reference
from kvdesk.backend.library.hub.repository import RemoteFile, Repository
from kvdesk.errors import HubError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("o/r", Reference("o/r")),
        (" o/r-GGUF \n", Reference("o/r-GGUF")),
        ("o/r:q4_k_m", Reference("o/r", quantization="Q4_K_M")),
        ("hf.co/o/r", Reference("o/r")),
        ("hf.co/o/r:Q8_0", Reference("o/r", quantization="Q8_0")),
        ("hf://o/r", Reference("o/r")),
        ("https://huggingface.co/o/r", Reference("o/r")),
        ("https://huggingface.co/o/r/tree/main", Reference("o/r", "main")),
        ("https://huggingface.co/o/r/resolve/main/sub/m.gguf?download=true", Reference("o/r", "main", "sub/m.gguf")),
        ("https://hf.co/o/r/blob/abc/m%20x.gguf", Reference("o/r", "abc", "m x.gguf")),
        ("o/r/m.gguf", Reference("o/r", file_name="m.gguf")),
        ("https://huggingface.co/o/r/discussions/3", Reference("o/r")),
    ],
)
def test_references_are_read(text: str, expected: Reference) -> None:
    assert read_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    ["gemma", "two words/here", "https://example.com/o/r", "ftp://huggingface.co/o/r", "../r", "o/", "", "http://[",
     "https://huggingface.co/", "o/r" * 1000, "javascript://huggingface.co/o/r"],
)  # fmt: skip
def test_other_texts_are_searched_for(text: str) -> None:
    assert read_reference(text) is None


def repository(*names: str) -> Repository:
    return Repository("o/r", files=tuple(RemoteFile("o/r", "x", name, 10 + n) for n, name in enumerate(names)))


def test_the_named_model_is_chosen() -> None:
    both = repository("m-Q4_0.gguf", "m-Q8_0.gguf")
    assert chosen_model(both, Reference("o/r")) is None
    for reference in (Reference("o/r", quantization="Q8_0"), Reference("o/r", file_name="m-Q8_0.gguf")):
        chosen = chosen_model(both, reference)
        assert chosen is not None
        assert chosen.name == "m-Q8_0"
    only = chosen_model(repository("m.gguf"), Reference("o/r"))
    assert only is not None


def test_what_is_not_there_is_said_with_what_is() -> None:
    with pytest.raises(HubError, match=r"o/r has no Q2_K\. It has: Q4_0, Q8_0\."):
        chosen_model(repository("m-Q4_0.gguf", "m-Q8_0.gguf"), Reference("o/r", quantization="Q2_K"))
    with pytest.raises(HubError, match="has no GGUF model"):
        chosen_model(repository("README.md"), Reference("o/r"))
