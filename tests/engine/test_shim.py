"""The shim and the ways on without it tell the same of a real model and context."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvdesk.backend.llama import library, shim
from kvdesk.backend.llama.abort_flag import AbortFlag
from kvdesk.backend.llama.context import Context
from kvdesk.backend.llama.model import Model
from kvdesk.backend.llama.sizing import memory_breakdown
from kvdesk.backend.settings import ContextSettings, ModelSettings
from tests.tiny_models import write_tiny


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    library.start()
    model = Model(str(write_tiny("gemma3", tmp_path)), ModelSettings(use_extra_bufts=False))
    context = Context(model, ContextSettings(n_ctx=512), 512)
    yield context
    context.close()
    model.close()


def test_it_is_built_with_llama_cpp() -> None:
    assert shim.is_there()


def test_breakdown_and_places_are_the_same_without_it(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> tuple[Any, Any]:
        return memory_breakdown.read(context.ptr), memory_breakdown.tensor_buffer_types(context.model.ptr)

    with_it = told()
    monkeypatch.setattr(shim, "_shim", lambda: None)
    assert shim.weights(context.model.ptr) is None
    without = told()
    assert with_it[0]
    assert without[0]
    assert sorted(with_it[0], key=repr) == sorted(without[0], key=repr)
    assert sorted(with_it[1]) == sorted(without[1])


@pytest.mark.parametrize("has_shim", [True, False])
def test_llama_cpp_sees_the_flag(has_shim: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_shim:
        monkeypatch.setattr(shim, "_shim", lambda: None)
    flag = AbortFlag()
    asked = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)(ctypes.cast(flag.callback, ctypes.c_void_p).value or 0)
    assert not asked(flag.user_data)
    flag.set()
    assert asked(flag.user_data)
    assert flag.is_set()
    flag.clear()
    assert not asked(flag.user_data)
    assert not flag.is_set()


def test_every_weight_has_a_place(context: Context) -> None:
    weights = shim.weights(context.model.ptr)
    assert weights
    assert all(weight.address and weight.buffer_type and weight.size_bytes for weight in weights)
    assert "token_embd.weight" in {weight.name for weight in weights}
