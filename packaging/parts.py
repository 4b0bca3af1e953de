"""What the frozen app is made of: each Python package, system library and program, with its version and licence texts.

Read from PyInstaller's own tables of contents and from what is installed here (package metadata, dpkg).
"""

from __future__ import annotations

import ast
import importlib.metadata
import platform
import subprocess
import sysconfig
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURSELVES = "kvdesk"


@dataclass
class Part:
    """One thing that is bundled. ``purl`` names it in the SBOM; ``texts`` are its licence files (name -> text)."""

    name: str
    version: str
    purl: str
    licence: str
    size_bytes: int = 0
    texts: dict[str, str] = field(default_factory=dict[str, str])


def parts_of(work: Path, bundle: Path, llama_source: Path) -> list[Part]:
    """Every part of ``bundle``, largest first. ``work`` is PyInstaller's work folder, ``llama_source`` the source archive
    that llama.cpp was compiled from. Raises LookupError when a file's origin is not known."""
    owners = _python_owners()
    found: dict[str, Part] = {}
    python_lib = Path(sysconfig.get_paths()["stdlib"]).resolve()
    for source, size in _sources(work, bundle):
        name, owner = source.resolve(), owners.get(str(source)) or owners.get(str(source.resolve()))
        if owner == OURSELVES or (owner is None and ROOT in source.parents):
            part = None
        elif owner:
            part = found.setdefault(owner, found.get(owner) or _python_part(owner))
        elif python_lib in name.parents or name.name.startswith("libpython"):
            part = found.get("python") or found.setdefault("python", _python_itself(python_lib))
        else:
            package = _debian_package(name)
            part = found.get(package) or found.setdefault(package, _debian_part(package))
        if part:
            part.size_bytes += size
    found["llama.cpp"] = _llama_part(llama_source)
    return sorted(found.values(), key=lambda part: -part.size_bytes)


def _sources(work: Path, bundle: Path) -> list[tuple[Path, int]]:
    """Source file and size in the bundle (0 for modules: they share one archive) of all that PyInstaller took."""
    entries: list[tuple[Path, int]] = []
    for table in ("COLLECT-00.toc", "PYZ-00.toc"):
        for inner in ast.literal_eval((work / table).read_text("utf-8")):
            if not isinstance(inner, list):
                continue
            for name, source, kind in (entry[:3] for entry in inner):
                target = bundle / "_internal" / str(name)
                is_taken = kind == "PYMODULE" or (target.is_file() and not target.is_symlink())
                if kind != "EXECUTABLE" and is_taken and source and source != "-" and Path(source).is_file():
                    entries.append((Path(source), target.stat().st_size if kind != "PYMODULE" else 0))
    own_work = work.resolve()
    return [(source, size) for source, size in entries if own_work not in source.resolve().parents]


def _python_owners() -> dict[str, str]:
    """File -> name of the installed Python distribution that it belongs to."""
    return {
        str(Path(str(distribution.locate_file(file))).resolve()): distribution.metadata["Name"]
        for distribution in importlib.metadata.distributions()
        for file in distribution.files or ()
    }


def _python_part(name: str) -> Part:
    distribution = importlib.metadata.distribution(name)
    texts = {
        Path(str(file)).name: Path(str(distribution.locate_file(file))).read_text("utf-8", "replace")
        for file in distribution.files or ()
        if ".dist-info/" in str(file) and _is_licence(Path(str(file)).name)
    }
    metadata = distribution.metadata
    licence = metadata.get("License-Expression") or metadata.get("License") or ""
    if not licence or len(licence) > 60:  # some put the whole text there
        named = [c.rpartition(":: ")[2] for c in metadata.get_all("Classifier") or () if c.startswith("License ::")]
        licence = ", ".join(named)
    if not texts and licence == "":
        raise LookupError(f"{name} says nothing of its licence; see docs/RELEASE.md, Licences")
    return Part(name, distribution.version, f"pkg:pypi/{name.lower()}@{distribution.version}", licence, texts=texts)


def _is_licence(name: str) -> bool:
    return name.upper().startswith(("LICEN", "COPYING", "NOTICE", "AUTHORS"))


def _python_itself(python_lib: Path) -> Part:
    version = platform.python_version()
    text = (python_lib / "LICENSE.txt").read_text("utf-8")
    return Part("python", version, f"pkg:generic/cpython@{version}", "PSF-2.0", texts={"LICENSE.txt": text})


def _debian_package(library: Path) -> str:
    """The Debian package of a library: also where /lib is a link to /usr/lib. Raises LookupError."""
    for path in (library, Path(str(library).removeprefix("/usr"))):
        done = subprocess.run(["dpkg", "-S", str(path)], capture_output=True, text=True, check=False, timeout=60)
        if done.returncode == 0:
            return done.stdout.partition(":")[0]
    raise LookupError(f"{library} belongs to no Debian package: its licence is not known")


def _debian_part(package: str) -> Part:
    done = subprocess.run(
        ["dpkg-query", "-W", "-f=${Version} ${Architecture}\n", package],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    version, architecture = done.stdout.split("\n")[0].split()
    text = Path("/usr/share/doc", package, "copyright").read_text("utf-8", "replace")
    purl = f"pkg:deb/debian/{package}@{version}?arch={architecture}"
    return Part(package, version, purl, "", texts={"copyright": text})


def _llama_part(source: Path) -> Part:
    """llama.cpp within llama-cpp-python: its licence, and those of what it brings."""
    version = importlib.metadata.version("llama_cpp_python")
    texts: dict[str, str] = {}
    with tarfile.open(source) as archive:
        for member in archive:
            inner = member.name.partition("/vendor/llama.cpp/")[2]
            if inner == "LICENSE" or inner.startswith("licenses/LICENSE"):
                file = archive.extractfile(member)
                texts[Path(inner).name] = file.read().decode("utf-8") if file else ""
    return Part("llama.cpp", f"as in llama-cpp-python {version}", "pkg:github/ggml-org/llama.cpp", "MIT", texts=texts)
