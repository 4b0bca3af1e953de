"""Preferences and window state: kept whole, read with patience."""

from __future__ import annotations

import json
import os

import pytest

from kvdesk.backend.preferences import (
    MB,
    Preferences,
    WindowState,
    load_preferences,
    load_window_state,
    save_values,
)
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import AUTOMATIC_MARGIN, ContextSettings, EngineSettings, ModelSettings
from kvdesk.errors import StoreError
from kvdesk.sizes import MIB


@pytest.fixture
def path(tmp_path):
    return tmp_path / "preferences.json"


def test_the_first_start_has_the_defaults_and_says_nothing(path):
    preferences, sentence = load_preferences(path)
    assert preferences == Preferences()
    assert sentence == ""
    assert preferences.margin_bytes == AUTOMATIC_MARGIN
    assert preferences.snapshot_budget_bytes == 4000 * MB
    assert not path.exists()


def test_all_of_it_comes_back(path):
    preferences = Preferences(
        theme="dark",
        margin_bytes=512 * MIB,
        rpc_servers=("127.0.0.1:50052", "box:1"),
        confirm_delete=True,
        system_prompt="Brief, bitte \N{CLOUD}",
        overflow="rolling",
        engine=EngineSettings(ModelSettings(n_gpu_layers=3), ContextSettings(n_ctx=4096, type_k="q8_0")),
        sampling=SamplingSettings(temperature=0.1),
    )
    save_values(preferences, path)
    assert load_preferences(path) == (preferences, "")
    state = WindowState(geometry="AAA=", layout="BBB=", conversation_id="c")
    save_values(state, path)
    assert load_window_state(path) == state


def test_what_a_newer_version_wrote_or_a_hand_broke_takes_its_default(path):
    path.write_text(
        json.dumps(
            {
                "theme": "pink",
                "margin_bytes": -(1 << 40),
                "log_budget_bytes": "much",
                "confirm_quit": 0,
                "rpc_servers": [1, 2],
                "from_the_future": {"a": 1},
                "engine": {"context": {"n_ctx": 4096, "type_k": "q99", "n_threads": 1e999}, "model": 3},
                "sampling": {"temperature": 1, "top_k": 2.5, "top_p": 17.0},
            }
        )
    )
    preferences, sentence = load_preferences(path)
    assert preferences == Preferences(
        engine=EngineSettings(context=ContextSettings(n_ctx=4096)), sampling=SamplingSettings(temperature=1.0)
    )
    assert sentence == ""


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b"[" * 200_000, b'{"theme": "dark"'])
def test_a_damaged_file_is_set_aside_and_said(path, content):
    path.write_bytes(content)
    preferences, sentence = load_preferences(path)
    assert preferences == Preferences()
    assert "kept as preferences.json.damaged" in sentence
    assert path.with_name("preferences.json.damaged").read_bytes() == content
    assert load_preferences(path) == (Preferences(), "")


def test_a_file_that_cannot_be_read_is_left_alone(path):
    path.mkdir()
    preferences, sentence = load_preferences(path)
    assert preferences == Preferences()
    assert "could not be read" in sentence
    assert path.is_dir()


def test_a_save_that_fails_leaves_the_old_file_and_no_litter(path, monkeypatch):
    save_values(Preferences(theme="dark"), path)

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(StoreError, match="No space left on device"):
            save_values(Preferences(theme="light"), path)
    assert load_preferences(path)[0].theme == "dark"
    assert os.listdir(path.parent) == ["preferences.json"]
    with pytest.raises(StoreError):
        save_values(Preferences(), path.parent / "gone" / "preferences.json")
