"""What the project promises about itself: one version, locked requirements, the command line that its issues name."""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import kvdesk
from kvdesk.cli import COMMANDS

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"([a-z0-9][a-z0-9._-]*)==([^\s;]+)")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def _pins(lock: Path) -> dict[str, list[str]]:
    """ "name==version" -> its hashes. Every line that is no comment must belong to a pin."""
    logical = lock.read_text("utf-8").replace("\\\n", " ").splitlines()
    pins: dict[str, list[str]] = {}
    for line in logical:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pin = PIN.match(line)
        assert pin, f"{lock.name}: no exact pin in {line[:80]!r}"
        pins[pin[0]] = re.findall(r"--hash=sha256:[0-9a-f]{64}\b", line)
    return pins


# --- one version --------------------------------------------------------------------------------------------------


def test_the_package_holds_the_version(project: dict[str, Any]) -> None:
    assert project["project"]["dynamic"] == ["version"]
    source = ROOT / project["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{kvdesk.__version__}"' in source.read_text("utf-8")


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert versions[0] == kvdesk.__version__


def test_the_module_says_its_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kvdesk", "--version"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"kvdesk {kvdesk.__version__}\n", "")


def test_the_licence_is_mit(project: dict[str, Any]) -> None:
    assert project["project"]["license"] == "MIT"
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert text.startswith("MIT License")
    assert "Permission is hereby granted, free of charge" in text


# --- locked requirements ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_pin_has_hashes_and_no_address(lock: Path) -> None:
    pins = _pins(lock)
    assert pins
    assert {pin for pin, hashes in pins.items() if not hashes} == set()
    text = lock.read_text("utf-8")
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host| @ ", text)


def test_the_locks_cover_what_the_project_asks_for(project: dict[str, Any]) -> None:
    locked = {lock.stem: {pin.partition("==")[0] for pin in _pins(lock)} for lock in LOCKS}

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\s<>=!~\[;]", one.lower(), maxsplit=1)[0] for one in requirements}

    asked = names(project["project"]["dependencies"])
    assert asked - locked["app"] == {"llama-cpp-python"}
    assert locked["llama"] == {"llama-cpp-python"}
    assert names(project["project"]["optional-dependencies"]["starter"]) <= locked["app"]
    assert names(project["dependency-groups"]["dev"]) <= locked["dev"]


def test_the_locks_agree() -> None:
    assert set(_pins(ROOT / "requirements/app.txt")) <= set(_pins(ROOT / "requirements/dev.txt"))
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    assert next(iter(_pins(ROOT / "requirements/llama.txt"))) in wanted


# --- the command line ---------------------------------------------------------------------------------------------

MEMORY_FLAGS = "--n-ctx --cache-type-k --cache-type-v --flash-attn --gpu-layers --rpc --json"
PROMISED = {
    "chat": f"{MEMORY_FLAGS} -p --system --threads --max-tokens --temperature --seed"
    " --allocation --initial-ctx --overflow --snapshot-dir",
    "plan": f"{MEMORY_FLAGS} --batch --ubatch --swa-full --parallel --curve --fit",
    "log list": "--json",
    "log export": "--session --format -o",
    "worker": "--host --port",
    "doctor": "--json --retry-repacking",
}
"""The flags that scripts may rely on."""


def _parser(words: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    importlib.import_module(COMMANDS[words[0]][0]).add_arguments(parser)
    for word in words[1:]:
        choices = next(a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = choices[word]
    return parser


@pytest.mark.parametrize("command", PROMISED)
def test_promised_flags_exist(command: str) -> None:
    flags = {flag for action in _parser(command.split())._actions for flag in action.option_strings}
    assert set(PROMISED[command].split()) - flags == set()


@pytest.mark.parametrize("command", PROMISED)
def test_every_flag_is_documented(command: str) -> None:
    """docs/COMMAND_LINE.md names each one, in the section of its command."""
    sections = re.split(r"^## ", (ROOT / "docs/COMMAND_LINE.md").read_text("utf-8"), flags=re.MULTILINE)
    section = next(one for one in sections if one.startswith(f"`kvdesk {command.partition(' ')[0]}"))
    actions = [action for action in _parser(command.split())._actions if action.dest != "help"]
    unnamed = [
        action.option_strings for action in actions if not any(f"`{f}" in section for f in action.option_strings)
    ]
    assert [flags for flags in unnamed if flags] == []


def test_every_command_is_in_the_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kvdesk", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    words = " ".join(done.stdout.split())
    assert done.returncode == 0
    assert [name for name in COMMANDS if f"{name} - " not in words] == []
    assert "--rpc" in words


# --- files ----------------------------------------------------------------------------------------------------------


def test_scripts_that_make_runs_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    scripts = re.findall(r"(?:python|\$\(PYTHON\)) ([\w/]+\.py)", makefile)
    assert scripts
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


def test_what_the_threat_model_names_exists() -> None:
    """docs/SECURITY.md says which module holds what and which test shows it; neither may be gone."""
    text = (ROOT / "docs/SECURITY.md").read_text("utf-8")
    named = re.findall(r"`((?:kvdesk|tests)/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 50
    missing = [
        f"{path}::{test}"
        for path, test in named
        if not (ROOT / path).is_file() or (test and f"def {test}(" not in (ROOT / path).read_text("utf-8"))
    ]
    assert missing == []
