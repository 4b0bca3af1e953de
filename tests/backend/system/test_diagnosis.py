"""What ``kvdesk doctor`` makes of a machine, on small stand-ins for its files and for what llama.cpp says."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from kvdesk.backend.protocol.facts import Backend, Device
from kvdesk.backend.system.diagnosis import acceleration, desktop, storage
from kvdesk.backend.system.diagnosis.finding import Verdict
from kvdesk.backend.system.graphics_cards import GraphicsCard, graphics_cards
from kvdesk.sizes import GIB

VULKAN_WITHOUT_LOADER = Backend(
    "Vulkan", "libggml-vulkan.so", why="libvulkan.so.1: cannot open shared object file: No such file or directory"
)


def make_card(root: Path, name: str, vendor: str, address: str, driver: str = "", **counts: int) -> None:
    """A card as /sys/class/drm shows it."""
    device = root / "sys/devices/pci0000:00" / address
    device.mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    for file, count in counts.items():
        (device / file).write_text(f"{count}\n")
    if driver:
        (root / "sys/bus/pci/drivers" / driver).mkdir(parents=True)
        (device / "driver").symlink_to(root / "sys/bus/pci/drivers" / driver)
    card = root / "sys/class/drm" / name
    card.mkdir(parents=True)
    (card / "device").symlink_to(device)


# --- cards --------------------------------------------------------------------------------------------------------


def test_cards_are_read_as_linux_lists_them(tmp_path: Path) -> None:
    make_card(
        tmp_path, "card0", "0x1002", "0000:03:00.0", "amdgpu",
        mem_info_vram_used=2 * GIB, mem_info_vram_total=16 * GIB, mem_info_gtt_used=GIB, mem_info_gtt_total=8 * GIB,
    )  # fmt: skip
    make_card(tmp_path, "card1", "0x8086", "0000:00:02.0", "i915")
    (tmp_path / "sys/class/drm/card0-DP-1").mkdir()  # a plug, not a card
    amd, intel = graphics_cards(tmp_path)
    assert amd == GraphicsCard("card0", "AMD", "0000:03:00.0", "amdgpu", (2 * GIB, 16 * GIB), (GIB, 8 * GIB))
    assert intel == GraphicsCard("card1", "Intel", "0000:00:02.0", "i915", None, None)


def test_a_machine_without_cards_has_none(tmp_path: Path) -> None:
    assert graphics_cards(tmp_path) == ()


def test_a_card_that_no_backend_uses_says_how_to_get_one() -> None:
    card = GraphicsCard("card0", "AMD", "0000:03:00.0", "amdgpu", (0, 16 * GIB), None)
    (unused,) = acceleration.check_cards([card], [Backend("CPU")], [])
    assert (unused.verdict, unused.text) == (
        Verdict.NOTE, "AMD at 0000:03:00.0, driver amdgpu, 16.0 GiB; this build does not use it",
    )  # fmt: skip
    assert "Vulkan" in unused.advice
    vulkan = [Backend("CPU"), Backend("Vulkan", "libggml-vulkan.so")]
    device = Device("Vulkan0", "AMD Radeon", "gpu", None, None, "0000:03:00.0")
    (used,) = acceleration.check_cards([card], vulkan, [device])
    assert used.verdict is Verdict.FINE
    (not_found,) = acceleration.check_cards([card], vulkan, [])
    assert not_found.text.endswith("llama.cpp finds no device on it")
    assert "group render" in not_found.advice


def test_a_card_without_a_driver_asks_for_one() -> None:
    (finding,) = acceleration.check_cards([GraphicsCard("card0", "NVIDIA", "0000:01:00.0", "")], [Backend("CPU")], [])
    assert (finding.verdict, finding.advice) == (Verdict.NOTE, "install the driver for NVIDIA's cards")


# --- backends and devices -----------------------------------------------------------------------------------------


def test_a_backend_that_did_not_load_says_what_is_missing_and_what_to_install() -> None:
    in_use, unused = acceleration.check_backends([Backend("CPU", "libggml-cpu-zen4.so", "zen4"), VULKAN_WITHOUT_LOADER])
    assert (in_use.verdict, in_use.text) == (Verdict.FINE, "CPU (zen4)")
    assert unused.text.startswith("Vulkan is not used: libvulkan.so.1")
    assert "libvulkan1" in unused.advice


def test_a_device_tells_its_memory() -> None:
    device = Device("CUDA0", "NVIDIA L4", "gpu", 20 * GIB, 24 * GIB, "0000:01:00.0")
    (finding,) = acceleration.check_devices([device])
    assert (finding.subject, finding.text) == ("device CUDA0", "NVIDIA L4, 20.0 GiB free of 24.0 GiB, 0000:01:00.0")


@pytest.mark.parametrize(("fails", "verdict"), [(True, Verdict.NOTE), (False, Verdict.FINE)])
def test_repacking_that_fails_here_is_a_note(fails: bool, verdict: Verdict) -> None:
    assert acceleration.check_repacking(fails).verdict is verdict


# --- folders and disk ---------------------------------------------------------------------------------------------


def test_a_folder_of_ones_own_is_fine(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    finding = storage.check_folder("logs", tmp_path)
    assert (finding.subject, finding.verdict, finding.text) == ("logs", Verdict.FINE, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="POSIX rights")
def test_a_folder_that_others_can_read_is_noted(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    finding = storage.check_folder("logs", tmp_path)
    assert (finding.verdict, finding.advice) == (Verdict.NOTE, f"chmod 700 {tmp_path}")


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    finding = storage.check_folder("logs", tmp_path / "gone")
    assert finding.verdict is Verdict.PROBLEM
    assert "KVDESK_HOME" in finding.advice


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(("free", "verdict"), [(GIB, Verdict.PROBLEM), (50 * GIB, Verdict.FINE)])
def test_a_full_disk_is_a_problem(free: int, verdict: Verdict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 * GIB, 100 * GIB - free, free))
    assert storage.check_disk("disk", tmp_path).verdict is verdict


# --- the window ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="other systems always have one")
def test_no_display_says_what_works_without() -> None:
    assert desktop.check_display({"DISPLAY": ":0"}).verdict is Verdict.FINE
    assert "kvdesk chat" in desktop.check_display({}).advice


def test_a_machine_without_fonts_is_told_which_to_install(tmp_path: Path) -> None:
    assert desktop.check_fonts(tmp_path).verdict is Verdict.PROBLEM
    (tmp_path / "usr/share/fonts/dejavu").mkdir(parents=True)
    (tmp_path / "usr/share/fonts/dejavu/DejaVuSans.ttf").touch()
    assert desktop.check_fonts(tmp_path).verdict is Verdict.FINE


def test_a_missing_library_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desktop, "NEEDED_LIBRARIES", {"libnobodyhasthis.so.9": "libnobody9"})
    finding = desktop.check_libraries()
    assert finding.verdict is Verdict.PROBLEM
    assert "libnobody9" in finding.advice
