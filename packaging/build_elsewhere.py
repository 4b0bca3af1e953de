"""Freezes the app on Windows and macOS: environment, llama.cpp, icon, PyInstaller. Written, never run there.

``make package`` does the same on Linux. Needs a C++ compiler and CMake; Metal is llama.cpp's default on macOS.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "package"
ENVIRONMENT = ROOT / "build" / "package-venv"
ICON = """
import sys
from PySide6.QtGui import QGuiApplication, QIcon
application = QGuiApplication([])
sys.exit(not QIcon(sys.argv[1]).pixmap(256, 256).save(sys.argv[2]))
"""


def main() -> int:
    """Build; 0."""
    OUT.mkdir(parents=True, exist_ok=True)
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    for name in ("app", "packaging"):
        _run(python, "-m", "pip", "install", "--require-hashes", "-r", f"requirements/{name}.txt")
    _run(python, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-binary", "llama-cpp-python",
         "-d", "build/llama", "-r", "requirements/llama.txt")  # fmt: skip
    source = next((ROOT / "build" / "llama").glob("llama_cpp_python-*.tar.gz"))
    told = subprocess.run(
        [python, "packaging/build_llama.py", "--source", source],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    _run(python, "-m", "pip", "install", "--no-deps", "--no-index", "--force-reinstall", told.stdout.split()[-1])
    icon = OUT / ("kvdesk.ico" if os.name == "nt" else "kvdesk.icns")
    _run(python, "-c", ICON, "resources/kvdesk.svg", icon)
    _run(
        python,
        "-m",
        "PyInstaller",
        "--noconfirm",
        "--distpath",
        OUT,
        "--workpath",
        OUT / "work",
        "packaging/kvdesk.spec",
    )
    return 0


def _run(*command: str | Path) -> None:
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "QT_QPA_PLATFORM": "offscreen"})


if __name__ == "__main__":
    sys.exit(main())
