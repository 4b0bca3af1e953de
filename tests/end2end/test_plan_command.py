"""``kvdesk plan`` as a user runs it: the table, the JSON, the exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kvdesk import cli
from tests.tiny_models import write_sparse_header, write_tiny

MODEL_KEYS = {
    "path", "name", "architecture", "n_layer", "n_ctx_train", "n_head", "n_head_kv", "head_size_k", "head_size_v",
    "attention",
}  # fmt: skip
DEVICE_KEYS = {
    "name", "kind", "weights_bytes", "weights_mapped_bytes", "kv_bytes", "recurrent_bytes", "compute_bytes",
    "output_bytes", "overhead_bytes", "total_bytes", "capacity_bytes", "others_bytes", "ceiling_bytes",
    "oom_line_bytes", "fits",
}  # fmt: skip


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("gemma3", tmp_path_factory.mktemp("models"))


def plan(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kvdesk", "plan", *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def run_here(*arguments: object) -> int:
    """The exit code of the same command in this process; argparse leaves by SystemExit."""
    try:
        return cli.main(["plan", *map(str, arguments)])
    except SystemExit as left:
        return int(left.code or 0)


def told(*arguments: object) -> dict[str, Any]:
    done = plan(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_json_is_the_contract(gemma: Path) -> None:
    answer = told(gemma, "--n-ctx", 3000, "--cache-type-k", "q8_0", "--cache-type-v", "q8_0", "--curve")
    assert answer["model"].keys() >= MODEL_KEYS
    assert answer["model"]["attention"] == ["MQA", "SWA"]
    assert (answer["model"]["n_head"], answer["model"]["n_head_kv"]) == (2, 1)
    assert answer["source"] == "dry-run"
    (device,) = answer["devices"]
    assert device.keys() >= DEVICE_KEYS
    assert device["oom_line_bytes"] == device["ceiling_bytes"] - 1024**3
    kinds = ("weights", "kv", "recurrent", "compute", "output", "overhead", "checkpoints")
    assert device["total_bytes"] == sum(device[f"{kind}_bytes"] for kind in kinds)
    assert answer["kv"]["cells"] == 3072
    assert answer["kv"]["total_bytes"] == device["kv_bytes"]
    assert answer["settings"]["type_k"] == "q8_0"
    assert answer["fits"] is True
    assert answer["max_n_ctx"] == 4096
    curves = {(curve["type_k"], curve["type_v"]): curve["points"] for curve in answer["curve"]}
    assert curves.keys() == {("f16", "f16"), ("q8_0", "q8_0"), ("q4_0", "q4_0")}
    sizes = dict(map(tuple, curves["q8_0", "q8_0"]))
    assert abs(sizes[3072] - answer["total_bytes"]) < 128 * 1024
    assert list(sizes) == sorted(sizes)


def test_the_table_ends_in_one_sentence(gemma: Path) -> None:
    done = plan(gemma)
    assert done.returncode == 0
    rows = {line[:22].strip(): line[22:].strip() for line in done.stdout.splitlines()}
    assert rows.keys() >= {"weights", "KV cache", "compute", "overhead", "total", "ceiling", "OOM line"}
    assert "Fits, " in done.stdout
    assert " under the line." in done.stdout


@pytest.fixture(scope="module")
def margin_mib(gemma: Path) -> int:
    """A margin that leaves about 2 GiB, whatever this machine has; other programs come and go by less than that."""
    return (told(gemma)["devices"][0]["ceiling_bytes"] - 2 * 1024**3) // 1024**2


def test_fit_is_the_longest_under_the_line(margin_mib: int, tmp_path: Path) -> None:
    long = write_tiny("gemma3", tmp_path, n_ctx_train=2**22)
    fitted = told(long, "--fit", "--margin", margin_mib)
    assert fitted["fits"] is True
    assert fitted["settings"]["n_ctx"] == fitted["max_n_ctx"]
    assert 100_000 < fitted["max_n_ctx"] < 2**22
    assert fitted["max_n_ctx"] % 256 == 0


def test_what_does_not_fit_offers_priced_options(gemma: Path, margin_mib: int) -> None:
    answer = told(gemma, "--n-ctx", 2**21, "--margin", margin_mib)
    assert answer["fits"] is False
    assert answer["options"]
    assert all({"label", "settings", "total_bytes", "difference_bytes", "fits"} <= o.keys() for o in answer["options"])
    shorter = next(option for option in answer["options"] if option["change"] == "n_ctx")
    assert shorter["fits"] is True


def test_a_header_alone_and_a_file_without_vocabulary(gemma: Path, tmp_path: Path) -> None:
    whole, header = told(gemma), told(write_sparse_header(gemma, tmp_path / "header.gguf"))
    for name in ("weights_bytes", "kv_bytes", "compute_bytes", "output_bytes"):
        assert header["devices"][0][name] == whole["devices"][0][name]
    assert (whole["model"]["is_complete"], header["model"]["is_complete"]) == (True, False)
    assert told(write_tiny("gemma3", tmp_path, vocab=False))["source"] == "dry-run"


def test_a_cut_file_is_not_said_to_fit(gemma: Path, tmp_path: Path) -> None:
    content = gemma.read_bytes()
    piece = tmp_path / "gemma.part1of2"
    piece.write_bytes(content[:-200_000])
    done = plan(piece)
    assert done.returncode == 0, done.stderr
    assert "\nFits" not in done.stdout
    assert "\nOnce the file is whole: fits, " in done.stdout
    assert "200 kB are missing" in done.stdout
    assert "cat gemma.part1of2 gemma.part2of2 > gemma.gguf" in done.stdout
    piece.with_name("gemma.part2of2").write_bytes(content[-200_000:])
    done = plan(tmp_path / "gemma.part2of2")
    assert done.returncode == 1
    assert "gemma.part2of2 is piece 2 of 2 of gemma.gguf" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cache-type-v", "q8_0", "--flash-attn", "off"), "Flash Attention. Nearest possible: --flash-attn auto"),
        (("--n-ctx", "-1"), "Nearest possible: --n-ctx 0"),
        (("--n-ctx", "99999999999"), "Nearest possible: --n-ctx 16777216"),
        (("--parallel", "1000"), "Nearest possible: --parallel 256"),
        (("--ubatch", "0"), "Nearest possible: --ubatch 1"),
        (("--cache-type-k", "q9_9"), "invalid choice"),
    ],
)
def test_impossible_settings_exit_with_2_and_the_nearest(
    gemma: Path, arguments: Sequence[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(gemma, *arguments) == 2
    told_on = capsys.readouterr()
    assert words in told_on.err
    assert told_on.out == ""


def test_bad_files_exit_with_1_and_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("once upon a time", encoding="utf-8")
    for path in (text, tmp_path / "missing.gguf", tmp_path):
        assert run_here(path, "--json") == 1
        told_on = capsys.readouterr()
        assert len(told_on.err.strip().splitlines()) == 1
        assert told_on.out == ""


def test_no_qt_and_no_numpy_are_needed(gemma: Path, tmp_path: Path) -> None:
    """A folder in front of the path makes importing them an error."""
    for name in ("PySide6", "pyqtgraph", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not for kvdesk plan')\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "kvdesk", "plan", str(gemma), "--json"],
        capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["source"] == "dry-run"


# --- another machine ----------------------------------------------------------------------------------------------


def test_a_described_machine_is_planned_by_llama_cpp_itself(gemma: Path) -> None:
    answer = told(gemma, "--as", "2x 24 GiB VRAM, 64 GiB RAM")
    devices = {device["name"]: device for device in answer["devices"]}
    assert list(devices) == ["RAM", "GPU0", "GPU1"]
    assert answer["source"] == "dry-run"
    assert [devices[name]["capacity_bytes"] >> 30 for name in devices] == [64, 24, 24]
    assert devices["GPU0"]["kv_bytes"] + devices["GPU1"]["kv_bytes"] == answer["kv"]["total_bytes"]
    assert devices["RAM"]["kv_bytes"] == 0
    assert answer["fits"] is True
    assert "worker" not in json.dumps(answer)


def test_a_small_gpu_does_not_hold_it_and_layers_are_offered(gemma: Path) -> None:
    answer = told(gemma, "--as", "1 MiB VRAM, 64 GiB RAM")
    assert answer["fits"] is False
    assert "GPU0" in answer["verdict"]
    assert "n_gpu_layers" in {option["change"] for option in answer["options"]}


@pytest.mark.parametrize("arguments", [["--as", "a big one"], ["--as", "8 GiB RAM", "--rpc", "127.0.0.1:50052"]])
def test_an_impossible_description_is_a_usage_error(gemma: Path, arguments: list[str]) -> None:
    assert run_here(gemma, *arguments) == 2
