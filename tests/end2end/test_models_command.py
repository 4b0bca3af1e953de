"""``kvdesk models`` as a person runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kvdesk import cli, paths
from tests.tiny_models import write_tiny


def run(*arguments: object) -> int:
    try:
        return cli.main(["models", *map(str, arguments)])
    except SystemExit as left:
        return int(left.code or 0)


@pytest.fixture
def elsewhere(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without models of this machine's."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "person")
    for variable in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "XDG_DATA_HOME", "OLLAMA_MODELS", "LLAMA_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "person"


def test_json_has_every_model_with_its_fit(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = paths.models_dir() / "owner" / "repo"
    theirs = elsewhere / ".lmstudio" / "models" / "o" / "r"
    own.mkdir(parents=True)
    theirs.mkdir(parents=True)
    shutil.copy(write_tiny("llama", own, file_name="b.gguf"), theirs / "copy.gguf")
    (theirs / "broken.gguf").write_bytes(b"no model")
    assert run("list", "--json") == 0
    rows = {Path(row["path"]).name: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert (rows["b.gguf"]["source"], rows["copy.gguf"]["source"]) == ("kvdesk", "LM Studio")
    assert (rows["b.gguf"]["duplicate_of"], rows["copy.gguf"]["duplicate_of"]) == (None, str(own / "b.gguf"))
    assert rows["b.gguf"]["fit"]["kind"] == "fits"
    assert rows["b.gguf"]["fit"]["source"] == "dry-run"
    assert "not a GGUF file" in rows["broken.gguf"]["error"]
    assert rows["broken.gguf"]["fit"] is None


def test_the_table_is_plain_and_harmless(elsewhere: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    write_tiny("llama", folder, file_name="red\x1b[31m.gguf")
    assert run("scan", "--no-fit", "--folder", folder) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "Tiny llama" in shown
    assert str(paths.models_dir()) in shown


def test_an_empty_machine_is_no_error(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    assert capsys.readouterr().out == "There are no models on this machine yet.\n"


def test_a_folder_that_is_not_there_is_a_usage_error(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--folder", elsewhere / "nowhere") == 2
    assert "There is no folder" in capsys.readouterr().err


def test_rm_asks_first(elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    own = paths.models_dir() / "owner" / "repo"
    own.mkdir(parents=True)
    model = write_tiny("llama", own)
    assert run("rm", model) == 2  # no terminal to ask on
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: "n")
    assert run("rm", model) == 1
    assert model.exists()
    monkeypatch.setattr("builtins.input", lambda prompt: "y")
    assert run("rm", model) == 0
    assert not model.exists()


def test_rm_leaves_other_programs_models(elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_tiny("llama", tmp_path)
    assert run("rm", model, "--yes") == 1
    assert "not in kvdesk's own folder" in capsys.readouterr().err
    assert model.exists()


def test_it_runs_as_a_program_without_qt(home: Path) -> None:
    check = "import sys; from kvdesk import cli; code = cli.main(['models', 'list', '--no-fit']); "
    check += "sys.exit(code or 'PySide6' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_fits_are_told_for_another_machine(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = paths.models_dir() / "owner" / "repo"
    own.mkdir(parents=True)
    write_tiny("llama", own)
    assert run("list", "--json", "--as", "24 GiB VRAM, 64 GiB RAM") == 0
    [row] = json.loads(capsys.readouterr().out)["models"]
    assert [domain["name"] for domain in row["fit"]["domains"]] == ["RAM", "GPU0"]
    assert run("list", "--as", "nonsense") == 2


def test_the_details_of_a_file_are_priced(elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_tiny("qwen3moe", tmp_path, n_ctx_train=16_384)
    assert run("info", model, "--json", "--as", "64 GiB RAM") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["architecture"], told["trained_context"]) == ("qwen3moe", "16,384 tokens")
    assert "experts" in told["experts"]
    prices = {(price["n_ctx"], price["cache_type"]): price for price in told["prices"]}
    assert {n_ctx for n_ctx, _ in prices} == {8192, 16_384}
    assert prices[16_384, "f16"]["kv_bytes"] == 2 * prices[8192, "f16"]["kv_bytes"]
    assert all(price["fits"] for price in prices.values())
    assert run("info", model) == 0
    assert "KV cache" in capsys.readouterr().out
