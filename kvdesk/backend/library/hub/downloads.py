"""All downloads of this kvdesk: a few at once, paused and gone on with, also after a restart or a crash.

Each runs on a thread of its own; ``on_change`` is called from there with the download's new state. What is to be
downloaded is kept beside the part files, so that the next start lists it, paused: nothing goes out by itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock, Semaphore, Thread
from typing import Any, cast

from kvdesk.backend.atomic_file import write_file
from kvdesk.backend.library.hub.download import Download, DownloadStopped, Progress, staging_dir
from kvdesk.backend.library.hub.download_state import DONE, FAILED, PAUSED, QUEUED, UNDER_WAY, DownloadState
from kvdesk.backend.library.hub.hub import Hub
from kvdesk.backend.library.hub.repository import RemoteFile, RemoteModel
from kvdesk.errors import HubError

log = logging.getLogger(__name__)

AT_ONCE = 2
_TELL_EVERY_S = 0.25
_SPEED_OVER_S = 5.0


@dataclass
class _Job:
    name: str
    files: tuple[RemoteFile, ...]
    download: Download
    state: DownloadState
    told_s: float = 0.0
    seen: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])


class Downloads:
    """The queue. Its methods return at once and may be called from any thread."""

    def __init__(self, hub: Hub, models_dir: Path, on_change: Callable[[DownloadState], None]) -> None:
        self._hub = hub
        self._models_dir = models_dir
        self._on_change = on_change
        self._turn = Semaphore(AT_ONCE)
        self._guard = RLock()
        self._jobs: dict[str, _Job] = {}
        for file in sorted(staging_dir(models_dir).glob("*.json")):
            self._remember(file)

    @property
    def states(self) -> tuple[DownloadState, ...]:
        """Every download of this run, and those that earlier ones left unfinished."""
        with self._guard:
            return tuple(job.state for job in self._jobs.values())

    def start(self, model: RemoteModel, *, with_projector: bool = True) -> str:
        """Download ``model``; returns the download's key. Going on with one that is paused or failed is the same call.

        Raises HubError for a name that is not safe to write.
        """
        files = (*model.files, *((model.projector,) if model.projector and with_projector else ()))
        key = _key(files)
        with self._guard:
            if key not in self._jobs:
                self._jobs[key] = self._job(key, model.name, files)
                self._keep(key)
        self.resume(key)
        return key

    def resume(self, key: str) -> None:
        """Go on with a download that is paused or failed."""
        with self._guard:
            job = self._jobs[key]
            if job.state.stage in UNDER_WAY or job.state.stage == DONE:
                return
            job.download = Download(self._hub, job.files, self._models_dir, lambda now: self._on_progress(key, now))
            job.seen.clear()
            self._set(key, stage=QUEUED, error="")
            Thread(target=self._run, args=(key, job.download), name="download", daemon=True).start()

    def pause(self, key: str) -> None:
        """Stop it; what is here stays."""
        with self._guard:
            job = self._jobs[key]
            job.download.stop.set()
            if job.state.stage in UNDER_WAY:
                self._set(key, stage=PAUSED)

    def discard(self, key: str) -> None:
        """Stop it and throw away what is here, and its entry."""
        with self._guard:
            self.pause(key)
            job = self._jobs.pop(key)
            _entry_file(self._models_dir, key).unlink(missing_ok=True)
            if job.state.stage != DONE:
                job.download.discard()

    def close(self) -> None:
        """Stop all, at once: their threads may still wait for the network, and end with the process."""
        with self._guard:
            for job in self._jobs.values():
                job.download.stop.set()

    # --- inner workings ------------------------------------------------------------------------------------------

    def _run(self, key: str, download: Download) -> None:
        with self._turn:
            try:
                if download.stop.is_set():
                    return
                path = download.run()
            except DownloadStopped:
                with self._guard:
                    if key not in self._jobs:
                        download.discard()
                return
            except HubError as error:
                self._end(key, download, stage=FAILED, error=str(error))
                return
            except Exception:
                log.exception("a download failed in a way that nobody foresaw")
                self._end(
                    key, download, stage=FAILED, error="The download failed; the log in kvdesk's folder says why."
                )
                return
        _entry_file(self._models_dir, key).unlink(missing_ok=True)
        self._end(key, download, stage=DONE, path=str(path), bytes_per_second=None)

    def _end(self, key: str, download: Download, **changes: Any) -> None:
        """The end of ``download``, unless it was paused, discarded or begun anew meanwhile."""
        with self._guard:
            job = self._jobs.get(key)
            if job is None or job.download is not download:
                return
            done = job.state.size_bytes if changes["stage"] == DONE else job.state.done_bytes
            self._set(key, done_bytes=done, **changes)

    def _on_progress(self, key: str, progress: Progress) -> None:
        with self._guard:
            job = self._jobs.get(key)
            if job is None or job.download.stop.is_set():
                return
            now = time.monotonic()
            job.seen.append((now, progress.done_bytes))
            while now - job.seen[0][0] > _SPEED_OVER_S:
                job.seen.popleft()
            if now - job.told_s < _TELL_EVERY_S and progress.stage == job.state.stage:
                return
            job.told_s = now
            self._set(key, stage=progress.stage, done_bytes=progress.done_bytes, bytes_per_second=_speed(job.seen))

    def _set(self, key: str, **changes: Any) -> None:
        job = self._jobs[key]
        job.state = dataclasses.replace(job.state, **changes)
        self._on_change(job.state)

    def _job(self, key: str, name: str, files: tuple[RemoteFile, ...]) -> _Job:
        download = Download(self._hub, files, self._models_dir)
        here = sum(part.stat().st_size for file in files if (part := download.part_of(file)).is_file())
        size = sum(file.size_bytes for file in files)
        return _Job(name, files, download, DownloadState(key, name, files[0].repo_id, PAUSED, here, size))

    def _keep(self, key: str) -> None:
        """Write down what is to be downloaded; without it the next start only does not list it."""
        job, file = self._jobs[key], _entry_file(self._models_dir, key)
        entry = {"name": job.name, "files": [dataclasses.asdict(one) for one in job.files]}
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_file(file, json.dumps(entry))

    def _remember(self, file: Path) -> None:
        try:
            entry: Any = json.loads(file.read_bytes())
            files = tuple(RemoteFile(**one) for one in cast("list[dict[str, Any]]", entry["files"]))
            if file.stem == _key(files):
                self._jobs[file.stem] = self._job(file.stem, str(entry["name"]), files)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, HubError) as error:
            log.warning("%s is no download: %s", file.name, error)


def _key(files: tuple[RemoteFile, ...]) -> str:
    """What a download is known by: its first part's content."""
    return Download(Hub(), files, Path()).part_of(files[0]).stem


def _entry_file(models_dir: Path, key: str) -> Path:
    return staging_dir(models_dir) / f"{key}.json"


def _speed(seen: deque[tuple[float, int]]) -> float | None:
    seconds, received = seen[-1][0] - seen[0][0], seen[-1][1] - seen[0][1]
    return received / seconds if seconds > 0.5 and received >= 0 else None
