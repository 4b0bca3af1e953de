"""What the packages hold, ask of the system and do when installed. Building them takes minutes: ``make package`` does."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from kvdesk import __version__

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"


@pytest.fixture(autouse=True)
def _packaging_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PACKAGING))


# --- what is left out ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "libstdc++.so.6",  # a bundled one keeps newer systems' GPU drivers from loading
        "libgcc_s.so.1",
        "libexpat.so.1",
        "libdrm.so.2",
        "libwayland-client.so.0",
        "PySide6/Qt/plugins/platformthemes/libqgtk3.so",
        "PySide6\\plugins\\sqldrivers\\qsqlite.dll",
        "PySide6/Qt/translations/qt_de.qm",
    ],
)
def test_what_the_system_brings_and_unused_parts_of_qt_stay_out(name: str) -> None:
    from bundle_contents import is_left_out

    assert is_left_out(name)


@pytest.mark.parametrize(
    "name",
    [
        "libstdc++.so.60",
        "libxcb-cursor.so.0",  # not on every system, and Qt does not start without it
        "libsqlite3.so.0",
        "PySide6/Qt/lib/libQt6OpenGL.so.6",  # pyqtgraph
        "PySide6/Qt/plugins/platforms/libqxcb.so",
        "PySide6/Qt/plugins/platforms/libqoffscreen.so",
        "llama_cpp/lib/libggml-cpu.so.0",
    ],
)
def test_what_the_app_needs_stays_in(name: str) -> None:
    from bundle_contents import is_left_out

    assert not is_left_out(name)


# --- what is asked of the system ----------------------------------------------------------------------------------


def test_the_deb_depends_on_the_packages_of_its_libraries() -> None:
    from build_linux_packages import depends_on

    assert depends_on({"libxcb.so.1", "libm.so.6", "libGL.so.1"}, (2, 35)) == "libc6 (>= 2.35), libgl1, libxcb1"


def test_the_glibc_floor_is_the_newest_symbol_version_that_is_asked_for(tmp_path: Path) -> None:
    from elf_bundle import glibc_floor

    (tmp_path / "a.so").write_bytes(b"\x7fELF..\x00GLIBC_2.2.5\x00GLIBC_2.28\x00")
    (tmp_path / "b.so").write_bytes(b"\x7fELF..\x00GLIBC_2.9\x00GLIBC_PRIVATE\x00")
    assert glibc_floor([tmp_path / "a.so", tmp_path / "b.so"]) == (2, 28)


def test_appstream_names_this_release() -> None:
    from build_linux_packages import with_release

    written = with_release((ROOT / "resources/kvdesk.metainfo.xml").read_text("utf-8"), __version__, "2026-11-27")
    assert f'<release version="{__version__}" date="2026-11-27"/>' in written


# --- the archive that installs itself -----------------------------------------------------------------------------

PROGRAM = b"#!/bin/sh\necho started\n"


@pytest.fixture
def installer(tmp_path: Path) -> Path:
    """packaging/installer.sh with a small tree behind it, made as build_linux_packages makes it."""
    if not shutil.which("xz"):
        pytest.skip("needs xz")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        for name, content in {
            "lib/kvdesk/kvdesk": PROGRAM,
            "share/applications/kvdesk.desktop": (ROOT / "resources/kvdesk.desktop").read_bytes(),
            "share/mime/packages/kvdesk.xml": (ROOT / "resources/kvdesk-mime.xml").read_bytes(),
        }.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
        for name in ("kvdesk", "kvdesk-window"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "../lib/kvdesk/kvdesk"
            archive.addfile(link)
    script = (PACKAGING / "installer.sh").read_text("utf-8").replace("@VERSION@", __version__)
    file = tmp_path / "kvdesk.run"
    file.write_bytes(script.encode() + packed.getvalue())
    return file


def run(installer: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(installer), *arguments],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="a Linux package")
def test_the_archive_installs_for_one_person_and_leaves_without_a_trace(installer: Path, tmp_path: Path) -> None:
    home = tmp_path / "a home"
    kept = home / ".local/share/kvdesk/conversations.db"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"mine")

    done = run(installer, home)
    assert done.returncode == 0, done.stderr
    assert __version__ in done.stdout
    started = subprocess.run([home / ".local/bin/kvdesk"], capture_output=True, text=True, check=True)
    assert started.stdout == "started\n"
    entry = (home / ".local/share/applications/kvdesk.desktop").read_text("utf-8")
    assert f'Exec="{home}/.local/bin/kvdesk-window" %f' in entry.splitlines()

    assert run(installer, home).returncode == 0  # an update: over itself
    assert run(installer, home, "--uninstall").returncode == 0
    made_by_the_desktop = {"mime.cache", "mimeinfo.cache", "icon-theme.cache"}
    left = {
        path.name
        for path in home.rglob("*kvdesk*")
        if path.is_file() or path.is_symlink()
        if path.name not in made_by_the_desktop
    }
    assert left == set()
    assert kept.read_bytes() == b"mine"


@pytest.mark.skipif(sys.platform != "linux", reason="a Linux package")
def test_a_download_that_was_cut_short_installs_nothing(installer: Path, tmp_path: Path) -> None:
    installer.write_bytes(installer.read_bytes()[:-200])
    done = run(installer, tmp_path / "home")
    assert done.returncode == 1
    assert "cut short" in done.stderr
    assert not (tmp_path / "home/.local/lib/kvdesk").exists()
