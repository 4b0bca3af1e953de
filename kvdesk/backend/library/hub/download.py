"""One download: bytes to a part file that a later try goes on with, checked, then moved into place. Blocking, one thread.

A file is in the models' folder only when it is whole and its checksum is the hub's. Two kvdesks that want the same model
take turns by a lock file. Nothing is trusted that the other side says: names, sizes, ranges, contents.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from kvdesk.backend.library.hub.download_state import CHECKING, LOADING, WAITING
from kvdesk.backend.library.hub.hub import Hub
from kvdesk.backend.library.hub.repository import RemoteFile, target_path
from kvdesk.errors import HubError
from kvdesk.sizes import MIB, format_file_size

if TYPE_CHECKING:
    import httpx2

MAX_TRIES = 5
"""Tries in a row that bring no byte before a download is given up."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
DISK_LEFT_BYTES = 256 * MIB
"""What a download leaves free on the disk."""
_CHUNK_BYTES = MIB


class DownloadStopped(Exception):
    """The person paused it; the part file stays."""


@dataclass(frozen=True)
class Progress:
    """``stage`` is WAITING (another kvdesk has it), LOADING or CHECKING; ``done_bytes`` of all files together."""

    stage: str
    done_bytes: int


class Download:
    """Files that belong together (all parts, the projector). ``files[0]`` appears last, so that a list never shows half a
    model."""

    def __init__(
        self,
        hub: Hub,
        files: tuple[RemoteFile, ...],
        models_dir: Path,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """Raises HubError for a file name that is not safe."""
        self._hub = hub
        self._files = files
        self._models_dir = models_dir
        self._targets = {file: target_path(models_dir, file) for file in files}
        self._on_progress = on_progress
        self._done_bytes = 0
        self.stop = Event()

    @property
    def target(self) -> Path:
        """Where the model will be (of a split one the first part)."""
        return self._targets[self._files[0]]

    def part_of(self, file: RemoteFile) -> Path:
        """Where the bytes of ``file`` are kept until it is whole. Named by its content, so that another version of the
        file begins anew."""
        digest = hashlib.sha256(f"{file.repo_id}/{file.name}/{file.sha256 or file.blob_id}".encode()).hexdigest()[:24]
        return staging_dir(self._models_dir) / f"{digest}.part"

    def run(self) -> Path:
        """Download all files; returns where the model is.

        Raises HubError with what a person can do, and DownloadStopped after ``stop`` was set. What was downloaded stays
        for the next try, unless it is damaged.
        """
        try:
            with self._lock():
                todo = [file for file in self._files if not self._is_here(file)]
                self._check_disk(todo)
                for file in todo:
                    self._load(file, self.part_of(file))
                for file in reversed(todo):
                    with self.part_of(file).open("r+b") as whole:
                        os.fsync(whole.fileno())
                    self._targets[file].parent.mkdir(parents=True, exist_ok=True)
                    os.replace(self.part_of(file), self._targets[file])
        except OSError as error:
            raise HubError(f"The download cannot be written to the disk: {error.strerror or error}.") from error
        return self.target

    def discard(self) -> None:
        """Throw away what an unfinished download left."""
        for file in self._files:
            with contextlib.suppress(OSError):
                self.part_of(file).unlink()

    # --- before -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _lock(self) -> Generator[None]:
        """Wait until no other kvdesk downloads this; the lock of a killed one is released by the system."""
        folder = staging_dir(self._models_dir)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.part_of(self._files[0]).with_suffix(".lock"))
        while True:
            try:
                lock.acquire(timeout=0)
                break
            except Timeout:
                self._tell(WAITING)
                self._pause(0.5)
        try:
            yield
        finally:
            lock.release()

    def _is_here(self, file: RemoteFile) -> bool:
        """Whether the very file is in place already."""
        target = self._targets[file]
        if not target.is_file() or target.stat().st_size != file.size_bytes:
            return False
        self._tell(CHECKING)
        if not self._is_right(file, target):
            return False
        self._done_bytes += file.size_bytes
        return True

    def _check_disk(self, files: list[RemoteFile]) -> None:
        have = sum(part.stat().st_size for file in files if (part := self.part_of(file)).is_file())
        needed = sum(file.size_bytes for file in files) - have
        free = shutil.disk_usage(self._models_dir).free
        if files and needed + DISK_LEFT_BYTES > free:
            raise HubError(
                f"The disk is too full: {format_file_size(needed)} are needed, {format_file_size(free)} are free "
                f"on the disk of {self._models_dir}."
            )

    # --- the bytes ----------------------------------------------------------------------------------------------

    def _load(self, file: RemoteFile, part: Path) -> None:
        """Have ``file`` whole and checked in ``part``."""
        before = self._done_bytes
        tries, pause = 0, FIRST_PAUSE_S
        while (have := _size(part)) < file.size_bytes:
            try:
                self._done_bytes = before + have
                self._receive(file, part, have)
            except HubError as error:
                if not error.is_temporary:
                    raise
                tries = 0 if _size(part) > have else tries + 1
                if tries >= MAX_TRIES:
                    raise
                pause = FIRST_PAUSE_S if tries == 0 else min(LONGEST_PAUSE_S, 2 * pause)
                self._pause(pause)
        self._done_bytes = before + file.size_bytes
        self._tell(CHECKING)
        if have > file.size_bytes or not self._is_right(file, part):
            part.unlink()
            raise HubError(
                f"{file.name} was damaged on the way: its checksum is not the hub's. It was thrown away; download it again."
            )

    def _receive(self, file: RemoteFile, part: Path, have: int) -> None:
        """One request: append what comes to ``part``, which holds ``have`` bytes."""
        with self._hub.open(file, have) as response, part.open("r+b" if have else "wb") as out:
            start = _start_of(response, have, file.size_bytes)
            out.truncate(start)
            out.seek(start)
            self._done_bytes += start - have
            received = start
            is_gguf = file.name.lower().endswith(".gguf")
            for chunk in response.iter_raw():
                if self.stop.is_set():
                    raise DownloadStopped
                if received == 0 and is_gguf and len(chunk) >= 4 and not chunk.startswith(b"GGUF"):
                    raise HubError(
                        f"What came is not {file.name} but something else: a sign-in page of the network, perhaps. "
                        "Nothing was kept."
                    )
                received += len(chunk)
                if received > file.size_bytes:
                    raise HubError(f"More came than {file.name} has bytes; what the hub says of it is wrong.")
                out.write(chunk)
                out.flush()  # what is told is on the disk, or on its way there: a kill loses none of it
                self._done_bytes += len(chunk)
                self._tell(LOADING)
        if received < file.size_bytes:
            raise HubError("The connection to the hub broke off.", is_temporary=True)

    def _is_right(self, file: RemoteFile, path: Path) -> bool:
        """Whether the content is what the hub's checksum says; size alone where it gives none."""
        if file.sha256:
            digest, expected = hashlib.sha256(), file.sha256
        elif file.blob_id:
            digest, expected = hashlib.sha1(f"blob {file.size_bytes}\0".encode(), usedforsecurity=False), file.blob_id
        else:
            return True
        with path.open("rb") as content:
            while chunk := content.read(_CHUNK_BYTES):
                digest.update(chunk)
                if self.stop.is_set():
                    raise DownloadStopped
        return digest.hexdigest() == expected

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise DownloadStopped

    def _tell(self, stage: str) -> None:
        self._on_progress(Progress(stage, self._done_bytes))


def staging_dir(models_dir: Path) -> Path:
    """Where unfinished downloads are, on the same disk as the models; hidden from every list."""
    return models_dir / ".downloads"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _start_of(response: httpx2.Response, have: int, size_bytes: int) -> int:
    """Where in the file the response's bytes begin. Raises HubError when they are not of this file as the hub described
    it."""
    if response.status_code != 206:
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and int(length) != size_bytes:
            raise HubError("What came has another size than the hub said; try again later.")
        return 0
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or first != str(have) or total not in ("*", str(size_bytes)):
        raise HubError("The hub sent another piece of the file than it was asked for; try again later.")
    return have
