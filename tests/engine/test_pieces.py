"""The text of a token belongs to who asked for it: a count and a reply ask one model from two threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvdesk.backend.llama import library
from kvdesk.backend.llama import model as model_module
from kvdesk.backend.llama.model import Model
from kvdesk.backend.settings import ModelSettings
from tests.tiny_models import write_tiny


def test_a_piece_asked_for_meanwhile_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second question comes where the first has its bytes and has not taken them yet."""
    library.start()
    model = Model(str(write_tiny("llama", tmp_path)), ModelSettings())
    first, second = (token for token in range(300) if model.piece(token, special=True) in (b"a", b"b"))
    expected = model.piece(first, special=True), model.piece(second, special=True)
    real = model_module.lib.llama_token_to_piece
    meanwhile: list[bytes] = []

    def interrupted(vocab: Any, token: int, *rest: Any) -> int:
        n = real(vocab, token, *rest)
        if token == first:
            meanwhile.append(model.piece(second, special=True))
        return n

    monkeypatch.setattr(model_module.lib, "llama_token_to_piece", interrupted)
    assert (model.piece(first, special=True), meanwhile[0]) == expected
    monkeypatch.undo()
    model.close()
