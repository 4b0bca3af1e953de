"""Whether the window can be shown here: a display, the libraries that Qt needs from the system, a font. Any thread."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from kvdesk.backend.system.diagnosis.finding import Finding, fine, note, problem

NEEDED_LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
}
"""Library -> Debian's package of it, for the window (Linux)."""
FONT_FOLDERS = ("usr/share/fonts", "usr/local/share/fonts", "System/Library/Fonts", "Windows/Fonts")
_FONT_FILES = (".ttf", ".otf", ".ttc")


def check_display(environment: Mapping[str, str] = os.environ) -> Finding:
    """Where the window would be shown."""
    if sys.platform != "linux":
        return fine("display", "the system's own")
    for variable in ("WAYLAND_DISPLAY", "DISPLAY"):
        if environment.get(variable):
            return fine("display", f"{variable}={environment[variable]}")
    return note(
        "display",
        "there is none: neither WAYLAND_DISPLAY nor DISPLAY is set",
        "start the window in a desktop session; `kvdesk chat` and `kvdesk plan` need none",
    )


def check_libraries() -> Finding:
    """Whether the system has what Qt is linked with."""
    if sys.platform != "linux":
        return fine("window libraries", "not needed on this system")
    missing = [package for library, package in NEEDED_LIBRARIES.items() if not _loads(library)]
    if missing:
        return problem(
            "window libraries",
            f"the window cannot be shown without {', '.join(missing)}",
            f"install them (Debian, Ubuntu: apt install {' '.join(missing)})",
        )
    return fine("window libraries", "all there")


def check_fonts(root: Path = Path("/")) -> Finding:
    """Whether there is any font: without one every letter is a box."""
    for folder in (root / name for name in FONT_FOLDERS):
        for _, _, files in os.walk(folder):
            if any(name.lower().endswith(_FONT_FILES) for name in files):
                return fine("fonts", f"in {folder}")
    return problem(
        "fonts",
        "no font is installed, so letters are shown as boxes",
        "install one (Debian, Ubuntu: apt install fonts-dejavu-core fonts-noto-core)",
    )


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
