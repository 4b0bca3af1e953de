"""The version of llama.cpp that the code was read against: docs/DEVELOPING.md lists every place that is tied to it."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "DEVELOPING.md"
READ_AGAINST = "0.3.36"
"""llama-cpp-python. Change it after going through the guide's list."""


def tied_places() -> list[str]:
    """The paths in the first column of the guide's table."""
    table = GUIDE.read_text("utf-8").split("## Moving to a newer llama.cpp")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    return [path for row in rows for path in re.findall(r"`([\w/.]+)`", row) if "/" in path or "." in path]


def test_the_installed_version_is_the_one_that_was_read() -> None:
    assert importlib.metadata.version("llama-cpp-python") == READ_AGAINST, (
        f"Another llama.cpp: go through 'Moving to a newer llama.cpp' in {GUIDE.name}: {', '.join(tied_places())}"
    )
    assert f"llama-cpp-python=={READ_AGAINST}" in (ROOT / "requirements" / "llama.txt").read_text("utf-8")


def test_every_place_in_the_list_exists() -> None:
    places = tied_places()
    assert len(places) > 9
    assert [place for place in places if not (ROOT / place).exists()] == []


def test_every_module_that_names_the_version_is_in_the_list() -> None:
    naming = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "kvdesk").rglob("*.py"))
        if READ_AGAINST in path.read_text("utf-8")
    ]
    assert set(naming) <= set(tied_places())
