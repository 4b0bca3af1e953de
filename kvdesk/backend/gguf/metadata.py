"""Checked access to the metadata of one GGUF header: every missing, mistyped or impossible value names its key.

What the values mean is gguf/layers.py's and model_file.py's. Any thread or process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kvdesk.backend.gguf.header import GgufHeader, MetadataValue, refusal
from kvdesk.errors import ModelFileError

_NOT_A_MODEL: Mapping[str, str] = {
    "mmproj": "is a multimodal projector (mmproj), which only works beside its model; open the model instead",
    "clip": "is a multimodal projector (mmproj), which only works beside its model; open the model instead",
    "adapter": "is a LoRA adapter, which only works on top of its model; open the model instead",
    "controlvector": "is a control vector, which only works on top of its model; open the model instead",
    "imatrix": "is an importance matrix for quantizing, not a model",
    "vocab": "holds only a vocabulary and no weights",
}
"""general.type or general.architecture -> why it is no model."""


class HeaderFacts:
    """Checked access to one header's metadata; every fault names its key."""

    def __init__(self, header: GgufHeader) -> None:
        self.header = header
        self.path = header.path
        self.metadata = header.metadata
        self.architecture = self.text("general.architecture") or ""

    def fault(self, key: str, sentence: str) -> ModelFileError:
        """The error to raise for ``key``; ``sentence`` goes without its full stop."""
        return refusal(self.path, key, sentence)

    def refuse_other_kinds(self) -> None:
        """Raise ModelFileError for a GGUF file that is something else than a model, saying what."""
        kind = self.text("general.type") or "model"
        for word in (kind, self.architecture):
            if word in _NOT_A_MODEL:
                raise ModelFileError(f"{self.path.name} {_NOT_A_MODEL[word]}.", self.path, "general.type")
        if not self.architecture:
            raise self.fault("general.architecture", "the header does not say which architecture this is")
        if not re.fullmatch(r"[\w.+-]{1,64}", self.architecture):
            raise self.fault("general.architecture", f"{self.architecture!r} is no architecture's name")
        if not self.header.tensors and self.integer("split.count", 0) < 2:
            raise ModelFileError(f"{self.path.name} {_NOT_A_MODEL['vocab']}.", self.path, "tensor count")

    def text(self, key: str) -> str | None:
        """The string ``key``, None when it is not there."""
        value = self.metadata.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self.fault(key, f"{key} is not a text")

    def flag(self, key: str, default: bool) -> bool:
        """The truth value of ``key``."""
        value = self.metadata.get(key, default)
        if isinstance(value, bool):
            return value
        raise self.fault(key, f"{key} is neither true nor false")

    def integer(self, key: str, default: int | None = None) -> int:
        """The unsigned 32-bit value of ``key``; without ``default`` it must be there."""
        value = self.metadata.get(key, default)
        if value is None:
            raise self.fault(key, f"{key} is missing from the header")
        return self._checked(key, value)

    def of_arch(self, key: str, default: int | None = None) -> int:
        """As ``integer``, for a key with the architecture's prefix."""
        return self.integer(f"{self.architecture}.{key}", default)

    def per_layer(self, key: str, n_layer: int, default: int | tuple[int, ...]) -> tuple[int, ...]:
        """One value for each layer; a single value holds for all (llama-model-loader.cpp, get_key_or_arr)."""
        key = f"{self.architecture}.{key}"
        value = self.metadata.get(key, default)
        if isinstance(value, tuple):
            if len(value) != n_layer:
                raise self.fault(key, f"{key} has {len(value)} values for {n_layer} layers")
            return tuple(self._checked(key, item) for item in value)
        return (self._checked(key, value),) * n_layer

    def _checked(self, key: str, value: MetadataValue) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fault(key, f"{key} is not a whole number")
        if not 0 <= value < 2**32:
            raise self.fault(key, f"{key} is {value}, out of range")
        return value
