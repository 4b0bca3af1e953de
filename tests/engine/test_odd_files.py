"""Files that are odd and good for chat all the same: none of them is refused, none ends the engine."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvdesk import cli
from kvdesk.backend.llama import library
from kvdesk.backend.llama.model import Model
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.settings import EngineSettings, ModelSettings
from kvdesk.errors import ModelFileError
from tests.engine.harness import SAFE, Desk
from tests.tiny_models import CHATML, write_tiny

UNKNOWN = 0
"""The unknown token of tiny models."""


@pytest.fixture
def spelled(tmp_path: Path) -> Iterator[Model]:
    """A model whose vocabulary has no byte tokens."""
    library.start()
    model = Model(str(write_tiny("llama", tmp_path, byte_tokens=False)), ModelSettings())
    yield model
    model.close()


@pytest.mark.parametrize(
    ("text", "parse_special", "pieces"),
    [
        ("the", False, ["t", "h", "e"]),
        ("a☃b", False, ["a", None, "b"]),
        ("\n☃", True, [None, None]),
        ("é", True, [None]),
        ("", True, []),
        ("<|im_start|>☃<|im_end|>", True, ["<|im_start|>", None, "<|im_end|>"]),
    ],
)
def test_what_a_vocabulary_lacks_is_its_unknown_token(
    spelled: Model, text: str, parse_special: bool, pieces: list[str | None]
) -> None:
    tokens = spelled.tokenize(text, parse_special=parse_special)
    assert [None if token == UNKNOWN else spelled.text([token]) for token in tokens] == pieces


def test_a_mark_in_what_people_write_stays_text_there_too(spelled: Model) -> None:
    tokens = spelled.tokenize("<|im_start|>☃", parse_special=False)
    assert spelled.text(tokens[:-1]) == "<|im_start|>"
    assert len(tokens) > 5
    assert tokens[-1] == UNKNOWN


def test_any_text_is_answered_without_byte_tokens(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        desk.load(write_tiny("llama", tmp_path, byte_tokens=False, chat_template=CHATML))
        text, stats = desk.answer("Schöne Grüße ☃\n\tund 你好")
        assert text
        assert stats.completion_tokens == 16


@pytest.mark.parametrize("pooling_type", [0, 4294967295])
def test_a_model_that_pools_nothing_can_chat(tmp_path: Path, pooling_type: int) -> None:
    library.start()
    model = Model(str(write_tiny("llama", tmp_path, pooling_type=pooling_type)), ModelSettings())
    model.require_chat()
    model.close()


def test_a_model_that_pools_is_an_embedding_model(tmp_path: Path) -> None:
    library.start()
    model = Model(str(write_tiny("llama", tmp_path, pooling_type=1)), ModelSettings())
    with pytest.raises(ModelFileError, match="embedding"):
        model.require_chat()
    model.close()


def test_a_chat_can_read_the_weights_and_split_the_context(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_tiny("llama", tmp_path)
    flags = ["--no-mmap", "--parallel", "2", "--n-ctx", "1024", "--allocation", "reserve", "--max-tokens", "4"]
    assert cli.main(["chat", str(model), "-p", "hello", "--json", "--threads", "1", *flags]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["model"]["use_mmap"] is False
    assert told["settings"]["context"]["n_seq_max"] == 2
    assert told["turns"][0]["completion_tokens"] == 4
    assert told["kv"]["cells_allocated"] == 512  # one of the two has this conversation


def test_a_file_that_changes_while_it_is_loaded_is_refused(tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path, n_layer=12)
    loaded = threading.Event()

    def write_on() -> None:
        while not loaded.is_set():
            os.utime(path)

    writer = threading.Thread(target=write_on)
    with Desk(tmp_path) as desk:
        desk.load(path)
        writer.start()
        desk.engine.load(path, EngineSettings(SAFE))
        failed = desk.until(m.Failed)
        loaded.set()
        writer.join()
        assert failed.sentence == "tiny-llama.gguf was changed or replaced while it was loaded; open it again."
        desk.load(path)
        assert desk.answer("hello")[0]
