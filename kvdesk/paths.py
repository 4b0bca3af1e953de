"""Where kvdesk keeps its files, on every system; the one frozen/unfrozen test. Any process.

``KVDESK_HOME`` moves everything under one folder (tests, portable installs). In place of a folder that cannot be written
there is one among the system's temporary files, and ``problem`` says so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
from pathlib import Path


def _folder(kind: str) -> Path:
    home = os.environ.get("KVDESK_HOME")
    if home:
        path = Path(home) / kind
    else:
        import platformdirs

        dirs = platformdirs.PlatformDirs("kvdesk", appauthor=False)
        path = {
            "config": dirs.user_config_path,
            "data": dirs.user_data_path,
            "cache": dirs.user_cache_path,
            "log": dirs.user_log_path,
        }[kind]
    return _usable(path)


FOLDER_ADVICE = "Give yourself the right to write there, or set KVDESK_HOME to another folder."
_stand_ins: dict[Path, Path] = {}
"""A folder that cannot be written -> the one in its place."""
_reasons: dict[Path, str] = {}
"""Why it cannot."""


def _usable(path: Path) -> Path:
    """``path``, made when absent, or what stands in for it in this process: a person can chat without a folder of theirs."""
    if path in _stand_ins:
        return _stand_ins[path]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = _private(path)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        _stand_ins[path] = folder = _temporary(path.name)
        is_file = isinstance(error, FileExistsError | NotADirectoryError)
        _reasons[path] = "a file is in the way" if is_file else error.strerror or str(error)
    return folder


def _temporary(name: str) -> Path:
    """A folder of this user among the system's temporary files: the same one as long as it is theirs alone."""
    user = str(os.getuid()) if sys.platform != "win32" else "user"
    top = Path(tempfile.gettempdir()) / f"kvdesk-{user}"
    with contextlib.suppress(OSError):
        top.mkdir(mode=0o700, exist_ok=True)
        if sys.platform == "win32" or (not top.is_symlink() and top.stat().st_uid == os.getuid()):
            return _private(_private(top) / name)
    return Path(tempfile.mkdtemp(prefix="kvdesk-"))


def problem() -> str:
    """A sentence that names the folders that cannot be written, "" where all can."""
    for folder in (config_dir, data_dir, cache_dir, log_dir, models_dir, sessions_dir, snapshots_dir):
        folder()
    if not _reasons:
        return ""
    there = " and ".join(sorted({str(stand_in.parent) for stand_in in _stand_ins.values()}))
    return (
        f"{', '.join(map(str, _reasons))} cannot be written ({', '.join(sorted(set(_reasons.values())))}); what kvdesk keeps "
        f"is in {there} meanwhile, which the system may clean up. {FOLDER_ADVICE}"
    )


def _private(folder: Path) -> Path:
    """``folder``, made when absent and closed to other users of this machine (0700), whatever the umask is and also when
    an earlier version made it open. On Windows the user's profile does that."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if os.name == "posix" and folder.stat().st_mode & 0o077:
        with contextlib.suppress(OSError):  # somebody else's folder, chosen with KVDESK_HOME
            folder.chmod(0o700)
    return folder


def config_dir() -> Path:
    """The folder of settings; it is made if it is not there."""
    return _folder("config")


def data_dir() -> Path:
    """Conversations, session logs, snapshots; made when absent."""
    return _folder("data")


def cache_dir() -> Path:
    """What can be made again; made when absent."""
    return _folder("cache")


def log_dir() -> Path:
    """Per-run logs of both processes; made when absent."""
    return _folder("log")


def models_dir() -> Path:
    """Models that kvdesk downloaded, as owner/repository/file; made when absent."""
    return _usable(data_dir() / "models")


def sessions_dir() -> Path:
    """Memory logs of sessions, one file each; made when absent."""
    return _usable(data_dir() / "sessions")


def snapshots_dir() -> Path:
    """KV caches of conversations; made when absent."""
    return _usable(data_dir() / "snapshots")


def rescue_dirs() -> tuple[Path, ...]:
    """Where what cannot be stored at the end is written, the first that takes it: the disk of the first may be full, so
    the last is that for temporary files (backend/conversations/rescue.py)."""
    return (data_dir(), config_dir(), log_dir(), Path(tempfile.gettempdir()))


def fallback_file() -> Path:
    """What this machine's CPU could not do (backend/system/cpu_fallback.py)."""
    return data_dir() / "fallback.json"


def calibration_file() -> Path:
    """What first loads on this machine taught, and how predictions were met (backend/planning/calibration.py)."""
    return data_dir() / "calibration.json"


def is_frozen() -> bool:
    """True inside a PyInstaller bundle."""
    return bool(getattr(sys, "frozen", False))


def resource_dir() -> Path:
    """Icons and style sheets: in the package when installed or frozen, beside it in a checkout."""
    package = Path(getattr(sys, "_MEIPASS", "")) / "kvdesk" if is_frozen() else Path(__file__).parent
    installed = package / "resources"
    return installed if installed.is_dir() else package.parent / "resources"
