"""Makes a .deb and an archive that installs itself (.run) of the frozen app in build/package/kvdesk. Linux.

Needs dpkg-deb and xz. Both packages hold the same tree under usr/; neither holds a maintainer script: desktop entry, icon,
AppStream and MIME files are found by the system's own triggers.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import elf_bundle
from bundle_contents import BUNDLE, OUT, ROOT, SYSTEM_LIBRARIES

sys.path.insert(0, str(ROOT))
from kvdesk import __version__

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
RECOMMENDED = "libvulkan1, mesa-vulkan-drivers, fonts-dejavu-core | fonts-noto-core, xdg-utils"
CONTROL = """\
Package: kvdesk
Version: {version}
Architecture: {architecture}
Maintainer: kvdesk developers <kvdesk@localhost>
Installed-Size: {kib}
Depends: {depends}
Recommends: {recommends}
Section: science
Priority: optional
Description: Chat with local language models and see where the memory goes
 A desktop chat over llama.cpp. The memory that a model and its settings will
 take is shown before anything is loaded, and compared afterwards. Conversations
 stay on this computer.
"""


def main() -> int:
    """Make both; 0."""
    machine = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout.strip()
    tree = OUT / "tree"
    _lay_tree(tree)
    packages = [_build_deb(tree, ARCHITECTURES[machine]), _build_run(tree, machine)]
    for package in packages:
        print(f"{package.stat().st_size / 1e6:8.1f} MB  {package.relative_to(ROOT)}")
    return 0


def _lay_tree(tree: Path) -> None:
    """The files as they will lie under /."""
    shutil.rmtree(tree, ignore_errors=True)
    share = tree / "usr" / "share"
    shutil.copytree(BUNDLE, tree / "usr" / "lib" / "kvdesk", symlinks=True)
    for source, target in (
        ("resources/kvdesk.desktop", "applications/kvdesk.desktop"),
        ("resources/kvdesk.svg", "icons/hicolor/scalable/apps/kvdesk.svg"),
        ("resources/kvdesk-mime.xml", "mime/packages/kvdesk.xml"),
        ("LICENSE", "doc/kvdesk/copyright"),
    ):
        (share / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, share / target)
    metainfo = share / "metainfo" / "kvdesk.metainfo.xml"
    metainfo.parent.mkdir(parents=True)
    metainfo.write_text(
        with_release((ROOT / "resources" / "kvdesk.metainfo.xml").read_text("utf-8"), __version__, _release_date()),
        "utf-8",
    )
    programs = tree / "usr" / "bin"
    programs.mkdir()
    for name in ("kvdesk", "kvdesk-window"):
        (programs / name).symlink_to("../lib/kvdesk/kvdesk")
    for path in (path for path in tree.rglob("*") if not path.is_symlink()):
        is_program = path.is_dir() or path.name == "kvdesk" or ".so" in path.name
        path.chmod(0o755 if is_program else 0o644)


def with_release(metainfo: str, version: str, date: str) -> str:
    """``metainfo`` (AppStream) naming this release: the version is written in one place, kvdesk/__init__.py."""
    return metainfo.replace(
        "</component>", f'  <releases>\n    <release version="{version}" date="{date}"/>\n  </releases>\n</component>'
    )


def _release_date() -> str:
    """The date in the changelog's heading for this version, else today's."""
    heading = re.search(rf"^## {re.escape(__version__)}.*?(\d{{4}}-\d\d-\d\d)", _changelog(), re.MULTILINE)
    return heading[1] if heading else dt.datetime.now(dt.UTC).date().isoformat()


def _changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text("utf-8")


def depends_on(libraries: set[str], glibc: tuple[int, int]) -> str:
    """The field Depends of a package that is linked with ``libraries``."""
    packages = {SYSTEM_LIBRARIES[name] for name in libraries} - {"libc6"}
    return ", ".join([f"libc6 (>= {glibc[0]}.{glibc[1]})", *sorted(packages)])


def _build_deb(tree: Path, architecture: str) -> Path:
    folder = tree.parent / "deb"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tree, folder, symlinks=True)
    glibc = elf_bundle.glibc_floor([BUNDLE / "kvdesk", *elf_bundle.elf_files(BUNDLE / "_internal")])
    kib = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink()) // 1024
    control = CONTROL.format(
        version=__version__,
        architecture=architecture,
        kib=kib,
        depends=depends_on(elf_bundle.asked_of_the_system(BUNDLE), glibc),
        recommends=RECOMMENDED,
    )
    (folder / "DEBIAN").mkdir()
    (folder / "DEBIAN" / "control").write_text(control, "utf-8")
    package = OUT / f"kvdesk_{__version__}_{architecture}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(folder), str(package)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shutil.rmtree(folder)
    return package


def _build_run(tree: Path, machine: str) -> Path:
    """``installer.sh`` with the tree behind it, as a compressed tar."""
    package = OUT / f"kvdesk-{__version__}-{machine}.run"
    payload = OUT / "payload.tar.xz"
    subprocess.run(
        ["tar", "--owner=0", "--group=0", "--sort=name", "-C", str(tree / "usr"), "-cJf", str(payload), "."],
        check=True,
        env={**os.environ, "XZ_OPT": "-T0"},
    )
    script = (ROOT / "packaging" / "installer.sh").read_text("utf-8").replace("@VERSION@", __version__)
    package.write_bytes(script.encode() + payload.read_bytes())
    package.chmod(0o755)
    payload.unlink()
    return package


if __name__ == "__main__":
    sys.exit(main())
