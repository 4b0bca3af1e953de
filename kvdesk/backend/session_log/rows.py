"""The rows of a session log: samples packed into bytes, notes as JSON, each with a mark and a checksum. Pure; any thread.

A damaged file can therefore be combed for its rows without SQLite's help. recorder.py writes them, session_log/reader.py reads.
"""

from __future__ import annotations

import json
import math
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kvdesk.backend.protocol.facts import KvState
from kvdesk.backend.system.samples import DomainReading, MachineReading, Sample

SCHEMA = 1
"""``user_version`` of the file. A newer one is refused, not guessed at."""

TABLES = """
CREATE TABLE samples (seq INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE notes (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, mark TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX notes_kind ON notes (kind, seq);
"""
"""``seq`` counts the rows of both tables together from 1 without a gap. A note's kind is "session" (first row of
all: who records), "frame" (what seldom changes, referred to by the samples after it) or "event"."""

SAMPLE_MARK = b"KVS1"
NOTE_MARK = "KVN1"

HEAD = struct.Struct("<4sIIB")
"""mark, seq, seq of the frame, number of domains."""
BODY = struct.Struct("<3d2q6I")
"""time_s, monotonic_s, tokens_per_second (NaN unknown); KV bytes used and allocated; KV cells used and allocated; in
KiB: swap used, the engine's swap, the engine's peak, the cgroup's peak."""
DOMAIN = struct.Struct("<4I")
"""In KiB: available, engine, engine's anonymous, engine's file."""
UNKNOWN = 0xFFFFFFFF
"""A count or a number of KiB that is not known. One KiB less is "that or more": 4 TiB."""
KIB = 1024
CHECK = struct.Struct("<I")
"""CRC-32 of all before it."""
_WHOLE = 0x2144DF1C
"""The CRC-32 of anything that ends in its own CRC-32."""
_PEAK_OFFSET = HEAD.size + BODY.size - 8
"""The engine's peak is the last but one number of the body."""

_NOTE_PATTERN = re.compile(NOTE_MARK.encode() + rb"([0-9a-f]{8})([0-9a-f]{8})")


def frame_of(sample: Sample) -> dict[str, Any]:
    """The part of a sample that seldom changes, JSON-able; equal frames are stored once."""
    return {
        "engine_pid": sample.engine_pid,
        "state": sample.state,
        "margin_bytes": sample.margin_bytes,
        "swap_total_bytes": sample.machine.swap_total_bytes,
        "predicted_bytes": None if sample.predicted_bytes is None else dict(sample.predicted_bytes),
        "domains": [
            [domain.name, domain.kind, domain.capacity_bytes, domain.engine_source] for domain in sample.domains
        ],
    }


def pack_sample(seq: int, frame_seq: int, sample: Sample) -> bytes:
    """One sample as a row's bytes; memory is rounded down to KiB, which is what systems report in."""
    kv, machine = sample.kv, sample.machine
    parts = [
        HEAD.pack(SAMPLE_MARK, seq, frame_seq, len(sample.domains)),
        BODY.pack(
            sample.time_s,
            sample.monotonic_s,
            math.nan if sample.tokens_per_second is None else sample.tokens_per_second,
            kv.bytes_used if kv else 0,
            kv.bytes_allocated if kv else 0,
            kv.cells_used if kv else UNKNOWN,
            kv.cells_allocated if kv else UNKNOWN,
            _kib(machine.swap_used_bytes),
            _kib(machine.engine_swap_bytes),
            _kib(machine.engine_peak_bytes),
            _kib(machine.cgroup_peak_bytes),
        ),
    ]
    parts += [
        DOMAIN.pack(
            _kib(domain.available_bytes),
            _kib(domain.engine_bytes),
            _kib(domain.engine_anonymous_bytes),
            _kib(domain.engine_file_bytes),
        )
        for domain in sample.domains
    ]
    data = b"".join(parts)
    return data + CHECK.pack(zlib.crc32(data))


def sample_size(n_domains: int) -> int:
    """Bytes of a packed sample."""
    return HEAD.size + BODY.size + n_domains * DOMAIN.size + CHECK.size


def is_intact(data: bytes) -> bool:
    """Whether a packed sample is as it was written."""
    return zlib.crc32(data) == _WHOLE


def all_intact(rows: Iterable[bytes]) -> bool:
    """Whether all packed samples are as they were written; ten times faster than asking for each."""
    return set(map(zlib.crc32, rows)) <= {_WHOLE}


def n_domains_of(data: bytes) -> int:
    """Number of domains in a packed sample."""
    return data[HEAD.size - 1]


def frame_seq_of(data: bytes) -> int:
    """``seq`` of the frame that a packed sample refers to."""
    return HEAD.unpack_from(data)[2]


def row_peak_bytes(data: bytes) -> int | None:
    """The engine's largest resident size up to this packed sample: the kernel's record, or what the sample itself saw.

    The first domain is always RAM.
    """
    recorded = _bytes(struct.unpack_from("<I", data, _PEAK_OFFSET)[0])
    seen = engine_bytes_of(data, 0) if n_domains_of(data) else None
    return max((size for size in (recorded, seen) if size is not None), default=None)


def engine_bytes_of(data: bytes, domain: int) -> int | None:
    """What the engine held in the sample's domain of that index."""
    return _bytes(DOMAIN.unpack_from(data, HEAD.size + BODY.size + domain * DOMAIN.size)[1])


def unpack_sample(data: bytes, frame: Mapping[str, Any]) -> Sample:
    """The sample that ``pack_sample`` packed and ``frame_of`` described: ``data`` is intact."""
    time_s, monotonic_s, speed, *kv, swap_used, engine_swap, engine_peak, cgroup_peak = BODY.unpack_from(
        data, HEAD.size
    )
    bytes_used, bytes_allocated, cells_used, cells_allocated = kv
    domains: list[DomainReading] = []
    for index, (name, kind, capacity, source) in enumerate(frame["domains"]):
        values = DOMAIN.unpack_from(data, HEAD.size + BODY.size + index * DOMAIN.size)
        domains.append(DomainReading(name, kind, capacity, *(_bytes(value) for value in values), engine_source=source))
    predicted = frame["predicted_bytes"]
    return Sample(
        time_s,
        monotonic_s,
        MachineReading(
            tuple(domains),
            frame["swap_total_bytes"],
            _bytes(swap_used),
            _bytes(engine_swap),
            _bytes(engine_peak),
            _bytes(cgroup_peak),
        ),
        frame["engine_pid"],
        None if cells_used == UNKNOWN else KvState(cells_used, cells_allocated, bytes_used, bytes_allocated),
        None if math.isnan(speed) else speed,
        frame["state"],
        None if predicted is None else tuple(predicted.items()),
        frame["margin_bytes"],
    )


def pack_note(seq: int, note: Mapping[str, Any]) -> tuple[int, str, str, str]:
    """A row of ``notes``: JSON in ASCII, and a mark with its checksum and length that lies right before it in the file."""
    body = json.dumps({"seq": seq, **note}, default=str)
    return seq, note["kind"], f"{NOTE_MARK}{zlib.crc32(body.encode()):08x}{len(body):08x}", body


def unpack_note(mark: str, body: str) -> dict[str, Any] | None:
    """The note's values with "seq" and "kind", or None when it is not as it was written."""
    if not body or mark != f"{NOTE_MARK}{zlib.crc32(body.encode('utf-8', 'replace')):08x}{len(body):08x}":
        return None
    return json.loads(body)


def recover(raw: bytes) -> tuple[dict[int, dict[str, Any]], dict[int, bytes]]:
    """Every intact note and packed sample in the bytes of a database file or its write-ahead log, by ``seq``.

    SQLite keeps a row of less than a page in one piece, so rows survive whatever befell the tree around them. A
    note longer than a page (4 KiB) is in pieces and is not found.
    """
    return dict(_comb_notes(raw)), dict(_comb_samples(raw))


def _comb_notes(raw: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    for match in _NOTE_PATTERN.finditer(raw):
        body = raw[match.end() : match.end() + int(match[2], 16)]
        note = unpack_note(match[0].decode(), body.decode("utf-8", "replace"))
        if note is not None:
            yield note["seq"], note


def _comb_samples(raw: bytes) -> Iterator[tuple[int, bytes]]:
    at = raw.find(SAMPLE_MARK)
    while at >= 0:
        if at + HEAD.size <= len(raw):
            data = raw[at : at + sample_size(raw[at + HEAD.size - 1])]
            if is_intact(data):
                yield HEAD.unpack_from(data)[1], data
        at = raw.find(SAMPLE_MARK, at + 1)


def _kib(size_bytes: int | None) -> int:
    return UNKNOWN if size_bytes is None else min(size_bytes // KIB, UNKNOWN - 1)


def _bytes(size_kib: int) -> int | None:
    return None if size_kib == UNKNOWN else size_kib * KIB
