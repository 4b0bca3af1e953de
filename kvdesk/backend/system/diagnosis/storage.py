"""Whether kvdesk's folders can be used, are closed to others, and have disk left. Any thread; writes one empty file in each."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from kvdesk.backend.system.diagnosis.finding import Finding, fine, note, problem
from kvdesk.sizes import GIB, format_bytes

LOW_DISK_BYTES = 2 * GIB
"""Below this a conversation's kept cells (1 GiB by default) and a log may fill the disk."""


def check_folder(subject: str, folder: Path) -> Finding:
    """Whether files can be made in ``folder``, and whether only its owner can read it."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return problem(
            subject,
            f"{folder} cannot be written ({error.strerror or error})",
            "give yourself the right to write there, or move kvdesk's files elsewhere with KVDESK_HOME",
        )
    if os.name == "posix" and folder.stat().st_mode & 0o077:
        return note(subject, f"{folder} can be read by other users of this machine", f"chmod 700 {folder}")
    return fine(subject, str(folder))


def check_disk(subject: str, folder: Path) -> Finding:
    """How much is left on the disk that ``folder`` is on."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return problem(subject, f"the disk of {folder} cannot be read ({error.strerror or error})", "check the disk")
    text = f"{format_bytes(free)} left on the disk of {folder}"
    if free < LOW_DISK_BYTES:
        return problem(subject, text, "make space: conversations and logs stop being kept when the disk is full")
    return fine(subject, text)
