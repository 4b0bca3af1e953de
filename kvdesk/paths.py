"""Where kvdesk keeps its files, on every system; the one frozen/unfrozen test. Any process.

``KVDESK_HOME`` moves everything under one folder (tests, portable installs).
"""

from __future__ import annotations

import contextlib
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
    path.parent.mkdir(parents=True, exist_ok=True)
    return _private(path)


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
    return _private(data_dir() / "models")


def sessions_dir() -> Path:
    """Memory logs of sessions, one file each; made when absent."""
    return _private(data_dir() / "sessions")


def snapshots_dir() -> Path:
    """KV caches of conversations; made when absent."""
    return _private(data_dir() / "snapshots")


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
