"""Machines described by hand, in the ways that people write them."""

from __future__ import annotations

import pytest

from kvdesk.backend.planning.described_machine import DescribedMachine, read_description
from kvdesk.backend.settings import EngineSettings
from kvdesk.errors import UsageError
from kvdesk.sizes import GIB


@pytest.mark.parametrize(
    ("text", "machine"),
    [
        ("24 GiB VRAM, 64 GiB RAM", DescribedMachine(64 * GIB, (24 * GIB,))),
        ("64gb ram + 24gb vram", DescribedMachine(64 * GIB, (24 * GIB,))),
        ("2x 16 GiB VRAM and 32 GiB RAM", DescribedMachine(32 * GIB, (16 * GIB, 16 * GIB))),
        ("16G VRAM, 8G VRAM, 32G RAM", DescribedMachine(32 * GIB, (16 * GIB, 8 * GIB))),
        ("16 GiB RAM", DescribedMachine(16 * GIB)),
        ("1.5 GiB RAM", DescribedMachine(GIB * 3 // 2)),
    ],
)
def test_descriptions_are_read(text: str, machine: DescribedMachine) -> None:
    assert read_description(text) == machine


@pytest.mark.parametrize(
    "text", ["", "a big one", "24 GiB VRAM", "24 VRAM, 64 RAM", "0 GiB RAM", "0 GiB VRAM, 8 GiB RAM", "8 GiB RAM please",
             "99x 24 GiB VRAM, 8 GiB RAM", "-8 GiB RAM"],
)  # fmt: skip
def test_what_is_no_machine_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="24 GiB VRAM, 64 GiB RAM"):
        read_description(text)


def test_its_memory_is_free() -> None:
    machine = read_description("24 GiB VRAM, 64 GiB RAM")
    assert {reading.name: reading.ceiling_bytes for reading in machine.readings} == {"RAM": 64 * GIB, "GPU0": 24 * GIB}
    assert machine.applied_to(EngineSettings()).model.rpc_servers == ("described:GPU0",)
