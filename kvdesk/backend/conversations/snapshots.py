"""Saved KV cells on disk, the latest of each conversation, within a budget. Storage only: what the bytes mean is
backend/llama's. Used by the engine process, which writes on one thread and reads on another; several processes may share a folder.

A snapshot is a convenience: whatever goes wrong with one, the tokens are read again. So nothing here raises for a
missing, foreign, damaged or unwritable file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import struct
import zlib
from array import array
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path

from kvdesk.backend.atomic_file import remove_abandoned, replacing

log = logging.getLogger(__name__)

DEFAULT_BUDGET_BYTES = 4_000_000_000
"""4 GB, 1000-based as all file sizes."""

_MAGIC = b"KVDSNAP2"
_LENGTHS = struct.Struct("<IIQ")
"""Bytes of the key as JSON, tokens, bytes of the state."""
_CHECKSUM = struct.Struct("<I")
_KEY_BYTES_MAX = 1 << 16
_SUFFIX = ".kvsnap"
_SAMPLES, _SAMPLE_BYTES = 64, 4096


@dataclass(frozen=True)
class SnapshotKey:
    """Whose cells these are and what they fit. ``model_id`` is model_identity's; ``engine`` names llama.cpp's build, for
    the layout of a state carries no version; ``flash_attn`` as it was resolved, never "auto"."""

    conversation_id: str
    model_id: str
    engine: str
    type_k: str
    type_v: str
    flash_attn: bool


@dataclass(frozen=True)
class SnapshotHead:
    """What a snapshot holds: the cells of ``tokens``, in order from position 0."""

    key: SnapshotKey
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Snapshot:
    """A whole snapshot; ``state`` is what backend/llama saved, byte for byte."""

    key: SnapshotKey
    tokens: tuple[int, ...]
    state: bytearray


class SnapshotStore:
    """The snapshots in ``folder`` (made when absent), together at most ``budget_bytes``."""

    def __init__(self, folder: Path, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self._folder = folder
        self.budget_bytes = budget_bytes
        with _logged(f"cannot use {folder} for snapshots"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            remove_abandoned(folder)

    @property
    def total_bytes(self) -> int:
        """Bytes of all snapshots on disk."""
        return sum(size for _, size, _ in self._files())

    def size_of(self, conversation_id: str) -> int:
        """Bytes on disk of the snapshot of ``conversation_id``; 0 when it has none."""
        try:
            return self._path(conversation_id).stat().st_size
        except OSError:
            return 0

    def save(self, key: SnapshotKey, tokens: Sequence[int], state: bytes | bytearray | memoryview) -> bool:
        """Keep ``state``, the cells of ``tokens``, instead of the conversation's earlier snapshot.

        The earlier one stays whole until the new one is. Others go, least recently used first, to keep the budget.
        False, with the reason in the log, when it does not fit the budget or cannot be written.
        """
        encoded = json.dumps(asdict(key)).encode()
        head = _MAGIC + _LENGTHS.pack(len(encoded), len(tokens), len(state)) + encoded + array("i", tokens).tobytes()
        size = len(head) + len(state) + 2 * _CHECKSUM.size
        target = self._path(key.conversation_id)
        if size > self.budget_bytes:
            log.info("a snapshot of %d bytes is over the budget of %d", size, self.budget_bytes)
            self.delete(key.conversation_id)  # it is outdated
            return False
        with _logged(f"cannot write {target.name}"):
            self._make_room(size, besides=target)
            with replacing(target) as temporary, temporary.open("wb") as file:
                for part in (head, state):
                    file.write(part)
                    file.write(_checksum(part))
            return True
        return False

    def peek(self, conversation_id: str) -> SnapshotHead | None:
        """What the snapshot of ``conversation_id`` holds, without reading its state; None when there is none to use."""
        with self._opened(conversation_id) as file:
            return _read_head(file)[0] if file else None
        return None

    def load(self, key: SnapshotKey) -> Snapshot | None:
        """The snapshot with exactly this key; counts as a use.

        None when there is none, when it is another model's or of other settings (it is kept: the user may go back), or when
        it is damaged or another engine's (it is removed).
        """
        with self._opened(key.conversation_id) as file:
            if not file:
                return None
            head, state_bytes = _read_head(file)
            if head.key.engine != key.engine:
                raise _Unusable(f"made by {head.key.engine}")
            if head.key != key:
                return None
            state = bytearray(state_bytes)
            if file.readinto(state) != state_bytes or file.read(_CHECKSUM.size) != _checksum(state):
                raise _Unusable("its state is damaged")
            with contextlib.suppress(OSError):
                os.utime(file.name)
            return Snapshot(head.key, head.tokens, state)
        return None

    def delete(self, conversation_id: str) -> None:
        """Remove the snapshot of ``conversation_id``, if there is one."""
        _remove(self._path(conversation_id))

    # --- files -------------------------------------------------------------------------------------------------

    def _path(self, conversation_id: str) -> Path:
        name = hashlib.blake2b(conversation_id.encode(), digest_size=16).hexdigest()
        return self._folder / f"{name}{_SUFFIX}"

    @contextlib.contextmanager
    def _opened(self, conversation_id: str) -> Generator[BufferedReader | None]:
        """The conversation's file, or None; removed afterwards when the reader finds it _Unusable."""
        path = self._path(conversation_id)
        try:
            file = path.open("rb")
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                log.warning("cannot read snapshot %s: %s", path.name, error)
            yield None
            return
        try:
            with file:
                yield file
        except _Unusable as reason:
            log.warning("snapshot %s is not used: %s", path.name, reason)
            _remove(path)
        except OSError as error:
            log.warning("cannot read snapshot %s: %s", path.name, error)

    def _files(self) -> list[tuple[Path, int, int]]:
        """(path, bytes, time of the last use) of every snapshot."""
        found: list[tuple[Path, int, int]] = []
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX):
                    with contextlib.suppress(OSError):
                        stat = entry.stat()
                        found.append((Path(entry.path), stat.st_size, stat.st_mtime_ns))
        return found

    def _make_room(self, size: int, besides: Path) -> None:
        """Remove the least recently used until ``size`` more fit; ``besides`` is about to be replaced."""
        others = sorted((f for f in self._files() if f[0] != besides), key=lambda f: f[2])
        total = sum(f[1] for f in others)
        for path, bytes_, _ in others:
            if total + size <= self.budget_bytes:
                return
            _remove(path)
            total -= bytes_


def model_identity(*parts: Path) -> str:
    """A name for the model in the files ``parts``, made of size, time of change and samples of each: another model, or
    one changed in place, has another name.

    Reads 256 KiB of each, so it is fast for any model. Raises OSError when a part cannot be read.
    """
    identity = hashlib.blake2b(digest_size=16)
    for part in parts:
        with part.open("rb") as file:
            stat = os.fstat(file.fileno())
            identity.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
            for sample in range(_SAMPLES):
                file.seek(
                    (stat.st_size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1) if stat.st_size > _SAMPLE_BYTES else 0
                )
                identity.update(file.read(_SAMPLE_BYTES))
    return identity.hexdigest()


class _Unusable(Exception):
    """This file can never be used."""


def _read_head(file: BufferedReader) -> tuple[SnapshotHead, int]:
    """The head and the bytes of the state that follows it. _Unusable when anything about the file is wrong."""
    lengths = file.read(len(_MAGIC) + _LENGTHS.size)
    if len(lengths) < len(_MAGIC) + _LENGTHS.size or not lengths.startswith(_MAGIC):
        raise _Unusable("it is no snapshot")
    key_bytes, n_tokens, state_bytes = _LENGTHS.unpack_from(lengths, len(_MAGIC))
    size = len(lengths) + key_bytes + 4 * n_tokens + state_bytes + 2 * _CHECKSUM.size
    if key_bytes > _KEY_BYTES_MAX or size != os.fstat(file.fileno()).st_size:
        raise _Unusable("it is truncated")
    head = lengths + file.read(key_bytes + 4 * n_tokens)
    if file.read(_CHECKSUM.size) != _checksum(head):
        raise _Unusable("its head is damaged")
    try:
        key = SnapshotKey(**json.loads(head[len(lengths) : len(lengths) + key_bytes]))
    except (TypeError, ValueError) as error:
        raise _Unusable("its key is of another version") from error
    tokens = array("i")
    tokens.frombytes(head[len(lengths) + key_bytes :])
    return SnapshotHead(key, tuple(tokens)), state_bytes


def _checksum(content: bytes | bytearray | memoryview) -> bytes:
    """CRC-32: it finds what a disk damages, at four times the speed of a cryptographic digest, over GiB."""
    return _CHECKSUM.pack(zlib.crc32(content))


@contextlib.contextmanager
def _logged(failure: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        log.warning("%s: %s", failure, error)


def _remove(path: Path) -> None:
    with _logged(f"cannot remove {path.name}"), contextlib.suppress(FileNotFoundError):
        path.unlink()
