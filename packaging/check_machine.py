"""Says, before anything is installed, what this machine lacks for kvdesk and which packages bring it."""

import ctypes.util
import shutil
import sys

PACKAGES = {
    "EGL": "libegl1",
    "GL": "libgl1",
    "xkbcommon": "libxkbcommon0",
    "dbus-1": "libdbus-1-3",
    "fontconfig": "libfontconfig1",
}


def main() -> int:
    """Print what is missing; 1 when setting up cannot work."""
    missing = []
    if sys.version_info < (3, 11):
        missing.append(f"Python 3.11 or newer (this is {sys.version.split()[0]})")
    if not (shutil.which("g++") or shutil.which("c++") or shutil.which("cl")):
        missing.append("a C++ compiler (Debian: apt install g++)")
    if missing:
        print("kvdesk cannot be set up here; missing: " + "; ".join(missing), file=sys.stderr)
        return 1
    if sys.platform == "linux":
        lacking = [package for name, package in PACKAGES.items() if not ctypes.util.find_library(name)]
        if lacking:
            print(
                f"The window needs system libraries that are not here: apt install {' '.join(lacking)}", file=sys.stderr
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
