"""What llama.cpp computes on: the CPU and its variant, backends in use and not, devices, cards without a backend. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from kvdesk.backend.protocol.facts import Backend, Device
from kvdesk.backend.system.diagnosis.finding import Finding, Verdict, fine, note
from kvdesk.backend.system.graphics_cards import GraphicsCard
from kvdesk.sizes import format_bytes

GPU_BACKENDS = {"NVIDIA": ("CUDA", "Vulkan"), "AMD": ("ROCm", "Vulkan"), "Intel": ("SYCL", "Vulkan")}
"""Maker of a card -> the backends that can use it, the fastest first."""
_MISSING = {
    "libvulkan": "install the Vulkan loader and your card's driver (Debian, Ubuntu: apt install libvulkan1 mesa-vulkan-drivers)",
    "libcuda.so": "install NVIDIA's driver",
    "libcudart": "install CUDA's runtime of the same major version: `pip install nvidia-cuda-runtime nvidia-cublas`, or the toolkit",
    "libcublas": "install cuBLAS of the same major version: `pip install nvidia-cublas`, or the CUDA toolkit",
}
"""A part of the loader's message -> what to do."""
DRIVER_OF_USERS = (
    "install the part of the driver that programs use (Debian, Ubuntu: mesa-vulkan-drivers, or NVIDIA's own), and see that "
    "you may open /dev/dri/renderD* (group render)"
)
HOW_TO_GET_ONE = "docs/RELEASE.md, GPU builds: a build with Vulkan uses any card; CUDA is a library (libggml-cuda) put beside llama.cpp's"


def check_backends(backends: Sequence[Backend]) -> list[Finding]:
    """What is in use, and what is there but could not be used."""
    in_use = [backend for backend in backends if not backend.why]
    named = [f"{b.name} ({b.variant})" if b.variant else b.name for b in in_use]
    findings = [fine("backends", ", ".join(named))] if named else []
    for backend in backends:
        if backend.why:
            advice = next((text for part, text in _MISSING.items() if part in backend.why), "")
            findings.append(note("backends", f"{backend.name} is not used: {backend.why}", advice or HOW_TO_GET_ONE))
    return findings


def check_devices(devices: Sequence[Device]) -> list[Finding]:
    """Every device that llama.cpp knows, with its memory."""
    return [fine(f"device {device.name}", _device_text(device)) for device in devices]


def check_cards(cards: Sequence[GraphicsCard], backends: Sequence[Backend], devices: Sequence[Device]) -> list[Finding]:
    """Cards of this machine, and whether llama.cpp computes on them."""
    in_use = {backend.name for backend in backends if not backend.why}
    addresses = {device.device_id for device in devices}
    return [_card_finding(card, in_use, addresses) for card in cards]


def check_repacking(fails_here: bool) -> Finding:
    """Whether weights may be repacked for this CPU."""
    if fails_here:
        return Finding(
            "repacked weights",
            Verdict.NOTE,
            "they crashed the engine's first computation on this machine and are left off",
            "try again with `kvdesk doctor --retry-repacking`, after an update of the system or the virtual machine",
        )
    return fine("repacked weights", "nothing is known against them")


def _card_finding(card: GraphicsCard, in_use: set[str], addresses: set[str]) -> Finding:
    memory = f", {format_bytes(card.vram[1])}" if card.vram else ""
    text = f"{card.vendor or 'unknown maker'} at {card.address}, driver {card.driver or 'none'}{memory}"
    usable = GPU_BACKENDS.get(card.vendor, ())
    if not usable or card.address in addresses:
        return fine(f"card {card.name}", text)
    if not card.driver:
        return note(f"card {card.name}", text, f"install the driver for {card.vendor}'s cards")
    if not in_use.intersection(usable):
        return note(f"card {card.name}", f"{text}; this build does not use it", HOW_TO_GET_ONE)
    return note(f"card {card.name}", f"{text}; llama.cpp finds no device on it", DRIVER_OF_USERS)


def _device_text(device: Device) -> str:
    words = [device.description.strip() or device.kind]
    if device.total_bytes is not None:
        free = f"{format_bytes(device.free_bytes)} free of " if device.free_bytes is not None else ""
        words.append(f"{free}{format_bytes(device.total_bytes)}")
    if device.device_id:
        words.append(device.device_id)
    return ", ".join(words)
