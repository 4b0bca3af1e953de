"""Runs first in the frozen program: gives LD_LIBRARY_PATH back its value from before PyInstaller's bootloader.

The app's own loader has read the bundle's path already. What it starts (the engine, whose GPU drivers are the system's;
a browser, a file manager) must not look for the system's libraries in the bundle.
"""

import os

before = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
if before:
    os.environ["LD_LIBRARY_PATH"] = before
else:
    os.environ.pop("LD_LIBRARY_PATH", None)
