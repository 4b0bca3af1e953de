"""What the frozen app leaves out of what PyInstaller finds, and which libraries it asks the system for. Tables."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "package"
BUNDLE = OUT / "kvdesk"
"""The folder of the frozen app."""

EXCLUDED_MODULES = [
    "OpenGL",
    "diskcache",
    "distutils",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "llama_cpp._internals",
    "llama_cpp.llama",
    "llama_cpp.llama_cache",
    "llama_cpp.llama_chat_format",
    "llama_cpp.mtmd_cpp",
    "llama_cpp.server",
    "matplotlib",
    "numpy.f2py",
    "pip",
    "pydoc_data",
    "pyqtgraph.examples",
    "pyqtgraph.opengl",
    "pytest",
    "scipy",
    "setuptools",
    "tkinter",
    "turtledemo",
]
"""Modules that something imports in a branch that kvdesk never takes."""

SYSTEM_LIBRARIES = {
    "ld-linux-x86-64.so.2": "libc6",
    "libc.so.6": "libc6",
    "libdl.so.2": "libc6",
    "libm.so.6": "libc6",
    "libpthread.so.0": "libc6",
    "libresolv.so.2": "libc6",
    "librt.so.1": "libc6",
    "libutil.so.1": "libc6",
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libGLX.so.0": "libglx0",
    "libOpenGL.so.0": "libopengl0",
    "libX11-xcb.so.1": "libx11-xcb1",
    "libX11.so.6": "libx11-6",
    "libdbus-1.so.3": "libdbus-1-3",
    "libdrm.so.2": "libdrm2",
    "libexpat.so.1": "libexpat1",
    "libfontconfig.so.1": "libfontconfig1",
    "libfreetype.so.6": "libfreetype6",
    "libgcc_s.so.1": "libgcc-s1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgobject-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libstdc++.so.6": "libstdc++6",
    "libwayland-client.so.0": "libwayland-client0",
    "libwayland-cursor.so.0": "libwayland-cursor0",
    "libwayland-egl.so.1": "libwayland-egl1",
    "libxcb.so.1": "libxcb1",
}
"""Library -> the Debian package that brings it. These are never bundled: a newer system's GPU driver needs that system's
newer copies (with an older libstdc++ in the process it does not load), and each is in every system with a desktop."""

_NEVER_BUNDLED = (
    "|".join(re.escape(name) for name in SYSTEM_LIBRARIES)
    + r"|libgbm\.so.*|libXau\.so.*|libXdmcp\.so.*|libgtk-3\.so.*|libgdk-3\.so.*|libgio-2\.0\.so.*|libsystemd\.so.*"
)
_UNUSED_QT = (
    r"platformthemes/libqgtk3|platforminputcontexts/libqtvirtualkeyboard|sqldrivers/|qmltooling/|imageformats/libqpdf"
    r"|platforms/lib(qeglfs|qlinuxfb|qvkkhrdisplay|qvnc|qminimalegl|qminimal\.)|egldeviceintegrations/"
    r"|generic/|networkinformation/|tls/|wayland-graphics-integration-server/"
)
_LEFT_OUT = re.compile(rf"(.*/)?({_NEVER_BUNDLED}|plugins/({_UNUSED_QT}).*|PySide6/Qt/translations/.*)")


def is_left_out(name: str) -> bool:
    """Whether the file that would lie at ``name`` in the bundle stays out."""
    return _LEFT_OUT.fullmatch(name.replace("\\", "/")) is not None
