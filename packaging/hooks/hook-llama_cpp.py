"""PyInstaller hook: llama.cpp's libraries, backends that it opens by name included, stay beside each other in llama_cpp/lib."""

from pathlib import Path

from PyInstaller.utils.hooks import get_package_paths

_LIBRARIES = ("*.so", "*.so.*", "*.dylib", "*.dll", "*.metallib")

_folder = Path(get_package_paths("llama_cpp")[1]) / "lib"
binaries = [(str(path), "llama_cpp/lib") for pattern in _LIBRARIES for path in sorted(_folder.glob(pattern))]
