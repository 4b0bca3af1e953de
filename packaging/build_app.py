"""Builds the frozen app into build/package/kvdesk: PyInstaller, libraries tidied, licences and SBOM beside it, sizes told.

Run by ``make package`` with the Python of the packaging environment. The packages are made of its folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import elf_bundle
from bundle_contents import BUNDLE, OUT, ROOT, SYSTEM_LIBRARIES
from parts import Part, parts_of
from sbom import cyclonedx

QT_NOTE = """\
kvdesk {version} is free software under the MIT licence (LICENSE). What it is bundled with keeps its own licences; their
texts are in the folders here, one for each part, and sbom.cdx.json lists the parts with their versions.

Qt and PySide6 are used under the GNU Lesser General Public License, version 3 (qt/LGPL-3, qt/GPL-3). They are separate
shared libraries in _internal/PySide6 and _internal/shiboken6: replace them with builds of your own of the same version
and kvdesk runs on those. Their source is that of Qt for Python {qt} (PySide6-Essentials on PyPI names its repository).
"""


def main() -> int:
    """Build; 0, or 1 with a sentence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama-source", type=Path, required=True, help="the source archive of llama-cpp-python")
    parser.add_argument("--with-starter", action="store_true", help="put the starter model in (Gemma's terms apply)")
    arguments = parser.parse_args()
    os.environ["KVDESK_PACKAGE_STARTER"] = "1" if arguments.with_starter else ""
    _freeze()
    libraries = BUNDLE / "_internal"
    if sys.platform == "linux":
        _strip(next(libraries.glob("libpython*.so.*")))
        removed = elf_bundle.finish(libraries)
        print(f"removed {len(removed)} libraries that only left-out parts needed: {' '.join(removed)}")
        unknown = elf_bundle.asked_of_the_system(BUNDLE) - set(SYSTEM_LIBRARIES)
        if unknown:
            print(f"nobody brings these libraries (packaging/bundle_contents.py): {unknown}", file=sys.stderr)
            return 1
    sys.path.insert(0, str(ROOT))
    from kvdesk import __version__

    parts = parts_of(OUT / "work" / "kvdesk", BUNDLE, arguments.llama_source)
    _write_licences(BUNDLE / "licences", parts, __version__)
    (BUNDLE / "licences" / "sbom.cdx.json").write_text(cyclonedx(__version__, parts), "utf-8")
    _tell_sizes(parts)
    return 0


def _freeze() -> None:
    shutil.rmtree(BUNDLE, ignore_errors=True)
    OUT.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN",
            "--distpath", str(OUT), "--workpath", str(OUT / "work"), str(ROOT / "packaging" / "kvdesk.spec"),
        ],
        cwd=ROOT, check=True, env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
    )  # fmt: skip


def _strip(library: Path) -> None:
    """Take the debugging symbols out of libpython (25 MB). Not of wheels' libraries: strip breaks some of those."""
    subprocess.run(["strip", "--strip-unneeded", str(library)], check=True)


def _write_licences(folder: Path, parts: list[Part], version: str) -> None:
    folder.mkdir()
    qt = next((part.version for part in parts if part.name.lower().startswith("pyside6")), "")
    (folder / "README.txt").write_text(QT_NOTE.format(version=version, qt=qt), "utf-8")
    shutil.copy(ROOT / "LICENSE", folder / "LICENSE")
    shutil.copytree(ROOT / "packaging" / "licences", folder / "qt")
    for part in parts:
        if part.texts:
            (folder / part.name).mkdir(exist_ok=True)
        for name, text in part.texts.items():
            (folder / part.name / name).write_text(text, "utf-8")


def _tell_sizes(parts: list[Part]) -> None:
    total = sum(path.stat().st_size for path in BUNDLE.rglob("*") if path.is_file() and not path.is_symlink())
    for part in (part for part in parts if part.size_bytes > 500_000):
        print(f"{part.size_bytes / 1e6:8.1f} MB  {part.name} {part.version}")
    print(f"{total / 1e6:8.1f} MB  in all, unpacked")


if __name__ == "__main__":
    sys.exit(main())
