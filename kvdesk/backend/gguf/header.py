"""The raw header of one GGUF file: metadata and tensor table, checked as llama.cpp checks them, no weights read.

Knows the file format only; what the values mean is model_file.py's. Any thread or process. The checks mirror
ggml/src/gguf.cpp (gguf_init_from_reader); the limits below are our own, far above any real model, so that a hostile
header costs neither time nor memory.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from kvdesk.backend.ggml_types import BY_ID, GgmlType
from kvdesk.backend.gguf.file_stamp import FileStamp, stamp_of
from kvdesk.backend.gguf.string_arrays import StringArrays
from kvdesk.errors import ModelFileError
from kvdesk.shown_text import shown_line
from kvdesk.sizes import format_bytes

MAX_HEADER_BYTES = 64 * 1024 * 1024
MAX_KEYS = 65_536
MAX_TENSORS = 65_536
MAX_STRINGS = 4_000_000
"""Strings in all arrays of a header together; a vocabulary with merges has about a million."""
MAX_KEPT_BYTES = 8 * 1024 * 1024
"""What the metadata mapping may hold in all; longer strings and arrays are summarised."""
MAX_KEPT_NUMBERS = 4096
_WINDOW_BYTES = 256 * 1024

GGML_MAX_DIMS = 4
GGML_MAX_NAME = 64
GGUF_DEFAULT_ALIGNMENT = 32
GGUF_VERSION = 3
_INT64_MAX = 2**63 - 1


class Tensor(NamedTuple):
    """One row of the tensor table. ``shape`` as ggml counts it (ne[0] first), ``offset`` from the start of the file
    ``part`` (0 for a model in one file)."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    size_bytes: int
    offset: int
    part: int


@dataclass(frozen=True)
class ArraySummary:
    """Stands for a metadata value that was skipped: ``count`` elements of GGUF type ``type_name``."""

    type_name: str
    count: int


Scalar = int | float | bool | str
MetadataValue = Scalar | tuple[int | float | bool, ...] | ArraySummary


@dataclass(frozen=True)
class GgufHeader:
    """What one GGUF file says of itself. ``needed_bytes`` is where its last tensor ends, padding excluded."""

    path: Path
    version: int
    metadata: Mapping[str, MetadataValue]
    tensors: tuple[Tensor, ...]
    data_offset: int
    needed_bytes: int
    file_bytes: int
    stamp: FileStamp

    @property
    def is_complete(self) -> bool:
        """The file holds the data of all its tensors."""
        return self.file_bytes >= self.needed_bytes


_SCALARS: Mapping[int, tuple[str, struct.Struct]] = {
    number: (name, struct.Struct("<" + code))
    for number, name, code in (
        (0, "u8", "B"), (1, "i8", "b"), (2, "u16", "H"), (3, "i16", "h"), (4, "u32", "I"), (5, "i32", "i"),
        (6, "f32", "f"), (7, "bool", "?"), (10, "u64", "Q"), (11, "i64", "q"), (12, "f64", "d"),
    )
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_STRING_ARRAYS = StringArrays()
_U32, _U64 = _SCALARS[4][1], _SCALARS[10][1]


def read_header(
    path: Path, part: int = 0, max_tensors: int = MAX_TENSORS, max_bytes: int = MAX_HEADER_BYTES
) -> GgufHeader:
    """Read and check the header of the GGUF file ``path``, which becomes ``part`` in its tensors.

    Raises ModelFileError, naming the field at fault, for anything that is no valid GGUF header. Tensor data that the
    file does not hold (a header alone, a download under way) is no error: ``is_complete`` tells.
    """
    try:
        facts = os.stat(path)
        if stat.S_ISDIR(facts.st_mode):
            raise ModelFileError(f"{path.name or path} is a folder; choose a .gguf file in it.", path)
        if not stat.S_ISREG(facts.st_mode):
            raise ModelFileError(f"{path.name} is not a regular file.", path)
        with open(path, "rb", buffering=0) as file:
            return _Reader(path, file, os.fstat(file.fileno()), max_bytes).header(part, max_tensors)
    except FileNotFoundError as error:
        raise ModelFileError(f"There is no file {path}.", path) from error
    except PermissionError as error:
        raise ModelFileError(f"{path.name} cannot be opened: permission denied.", path) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ModelFileError(f"{path.name} cannot be read: {error}.", path) from error


class HeaderCutShort(ModelFileError):
    """The file ends within its header: the beginning of a download, perhaps."""


def refusal(path: Path, field: str, sentence: str) -> ModelFileError:
    """The error for a fault in ``field`` of ``path``; ``sentence`` may quote the file and goes without its full stop."""
    return ModelFileError(f"{shown_line(path.name, 120)}: {shown_line(sentence, 300)}.", path, field[:200])


class _Reader:
    """Walks the header front to back through a window that is read anew where the last one ends.

    Memory stays small whatever the file claims, skipped arrays are not read, and a file that another process
    truncates is an error here, where a memory map of it would kill this process.
    """

    def __init__(self, path: Path, file: FileIO, facts: os.stat_result, max_bytes: int) -> None:
        self._path = path
        self._file = file
        self._file_bytes = facts.st_size
        self._stamp = stamp_of(facts)
        self._max_bytes = max_bytes
        self._window = b""
        self._window_start = 0
        self._pos = 0
        self._strings_left = MAX_STRINGS
        self._kept_left = MAX_KEPT_BYTES

    def header(self, part: int, max_tensors: int) -> GgufHeader:
        version = self._preamble()
        n_tensors = self._count("tensor count", 24, max_tensors)
        n_keys = self._count("metadata key count", 13, MAX_KEYS)
        metadata, alignment = self._metadata(n_keys)
        table = self._tensor_table(n_tensors)
        data_offset = self._pos
        if table:
            data_offset += -data_offset % alignment
        tensors, needed_bytes = self._placed(table, part, alignment, data_offset)
        file_bytes, stamp = self._file_bytes, self._stamp
        return GgufHeader(self._path, version, metadata, tensors, data_offset, needed_bytes, file_bytes, stamp)

    def _fault(self, field: str, sentence: str) -> ModelFileError:
        return refusal(self._path, field, sentence)

    def _cut_short(self, field: str, sentence: str) -> ModelFileError:
        fault = self._fault(field, sentence)
        return HeaderCutShort(str(fault), fault.path, fault.field)

    # --- bytes -------------------------------------------------------------------------------------------------

    def _reach(self, size_bytes: int, field: str) -> int:
        """Have the next ``size_bytes`` in the window; returns where in it they begin."""
        here = self._pos - self._window_start
        if here + size_bytes <= len(self._window):
            return here
        self._check_end(self._pos + size_bytes, field)
        self._file.seek(self._pos)
        self._window, self._window_start = self._file.read(max(size_bytes, _WINDOW_BYTES)), self._pos
        if len(self._window) < size_bytes:
            raise self._fault(field, f"the file became shorter while {field} was read")
        return 0

    def _check_end(self, end: int, field: str) -> None:
        if end > self._file_bytes:
            raise self._cut_short(field, f"{field} reaches beyond the end of the file ({self._file_bytes:,} bytes)")
        if end > self._max_bytes:
            raise self._fault(field, f"{field} makes the header longer than {format_bytes(MAX_HEADER_BYTES)}")

    def _unpack(self, form: struct.Struct, field: str) -> int | float | bool:
        here = self._reach(form.size, field)
        (value,) = form.unpack_from(self._window, here)
        self._pos += form.size
        return value

    def _integer(self, form: struct.Struct, field: str) -> int:
        return int(self._unpack(form, field))

    def _count(self, field: str, least_bytes: int, limit: int) -> int:
        """A count whose items take at least ``least_bytes`` each."""
        count = self._integer(_U64, field)
        if count > limit or count * least_bytes > self._file_bytes - self._pos:
            fault = self._fault if count > limit else self._cut_short
            raise fault(field, f"the {field} is {count:,}, more than the file can hold or any model has")
        return count

    def _text_bytes(self, field: str) -> bytes:
        length = self._integer(_U64, field)
        return self._take(length, field)

    def _take(self, size_bytes: int, field: str) -> bytes:
        here = self._reach(size_bytes, field)
        self._pos += size_bytes
        return self._window[here : here + size_bytes]

    # --- metadata ----------------------------------------------------------------------------------------------

    def _preamble(self) -> int:
        if self._file_bytes == 0:
            raise self._cut_short("magic", "the file is empty")
        magic = self._take(min(4, self._file_bytes), "magic")
        if magic in (b"lmgg", b"tjgg", b"fmgg", b"algg"):
            raise self._fault("magic", "this is an old GGML file; llama.cpp reads only GGUF")
        if magic != b"GGUF":
            shown = "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in magic)
            raise self._fault("magic", f'this is not a GGUF file (it begins with "{shown}" instead of "GGUF")')
        version = self._integer(_U32, "version")
        if version & 0xFFFF == 0 and version:
            raise self._fault("version", "the file was written for big-endian machines")
        if version == 1:
            raise self._fault("version", "GGUF version 1 is no longer supported; convert the model anew")
        if not 2 <= version <= GGUF_VERSION:
            raise self._fault("version", f"GGUF version {version} is unknown; versions 2 and 3 are supported")
        return version

    def _metadata(self, n_keys: int) -> tuple[dict[str, MetadataValue], int]:
        metadata: dict[str, MetadataValue] = {}
        alignment_type = 4
        for index in range(n_keys):
            key = self._name(f"metadata key {index}")
            if not key:
                raise self._fault(f"metadata key {index}", f"metadata key {index} is empty")
            if key in metadata:
                raise self._fault(key, f"the key {key} occurs twice")
            value_type = self._integer(_U32, key)
            if key == "general.alignment":
                alignment_type = value_type
            metadata[key] = self._value(value_type, key)
        alignment = metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
        if alignment_type != 4 or not isinstance(alignment, int):
            raise self._fault("general.alignment", "general.alignment is not a u32")
        if alignment < 1 or alignment & (alignment - 1):
            raise self._fault("general.alignment", f"general.alignment is {alignment}, not a power of two")
        return metadata, alignment

    def _name(self, field: str) -> str:
        try:
            return self._text_bytes(field).decode()
        except UnicodeDecodeError as error:
            raise self._fault(field, f"{field} is not valid UTF-8") from error

    def _value(self, value_type: int, key: str) -> MetadataValue:
        if value_type == _STRING:
            return self._text(key)
        if value_type == _ARRAY:
            return self._array(key)
        if value_type not in _SCALARS:
            raise self._fault(key, f"{key} has the unknown value type {value_type}")
        return self._unpack(_SCALARS[value_type][1], key)

    def _text(self, key: str) -> str | ArraySummary:
        """A string value. llama.cpp takes any bytes, so what is not UTF-8 is shown with replacement characters."""
        raw = self._text_bytes(key)
        if not self._keep(4 * len(raw)):
            return ArraySummary("str", len(raw))
        return raw.decode(errors="replace")

    def _array(self, key: str) -> tuple[int | float | bool, ...] | ArraySummary:
        item_type = self._integer(_U32, key)
        count = self._integer(_U64, key)
        if item_type == _STRING:
            self._skip_strings(count, key)
            return ArraySummary("str", count)
        if item_type == _ARRAY:
            raise self._fault(key, f"{key} is an array of arrays, which GGUF does not allow")
        if item_type not in _SCALARS:
            raise self._fault(key, f"{key} is an array of the unknown value type {item_type}")
        name, form = _SCALARS[item_type]
        if count > MAX_KEPT_NUMBERS or not self._keep(32 * count):
            self._check_end(self._pos + count * form.size, key)
            self._pos += count * form.size
            return ArraySummary(name, count)
        return struct.unpack(f"<{count}{form.format[-1]}", self._take(count * form.size, key))

    def _keep(self, size_bytes: int) -> bool:
        if size_bytes > self._kept_left:
            return False
        self._kept_left -= size_bytes
        return True

    def _skip_strings(self, count: int, key: str) -> None:
        """Step over ``count`` length-prefixed strings: the one long loop here, so it touches nothing but lengths."""
        if count > self._strings_left or count * 8 > self._file_bytes - self._pos:
            fault = self._fault if count > self._strings_left else self._cut_short
            raise fault(key, f"{key} has {count:,} strings, more than the file can hold or any model has")
        self._strings_left -= count
        known_bytes = _STRING_ARRAYS.find(self._file, self._pos, count)
        if known_bytes:
            self._pos += known_bytes
            self._check_end(self._pos, key)
            return
        start = self._pos
        unpack_from, done = _U64.unpack_from, 0
        while done < count:
            here, window = self._reach(8, key), self._window
            try:
                for done in range(done, count):  # noqa: B007, B020 - in the next window it resumes where it stopped
                    (length,) = unpack_from(window, here)
                    here += 8 + length
                done = count
            except (struct.error, OverflowError):
                pass  # beyond the window: _reach reads the next, or says why it cannot
            self._pos = self._window_start + here
        self._check_end(self._pos, key)
        _STRING_ARRAYS.learn(self._file, start, self._pos - start, count)

    # --- tensors -----------------------------------------------------------------------------------------------

    def _tensor_table(self, n_tensors: int) -> list[tuple[str, tuple[int, ...], GgmlType, int, int]]:
        """Rows of name, shape, type, size in bytes and offset within the data section."""
        table: list[tuple[str, tuple[int, ...], GgmlType, int, int]] = []
        seen: set[str] = set()
        for index in range(n_tensors):
            name = self._name(f"name of tensor {index}")
            field = f"tensor {name}"
            if len(name.encode()) >= GGML_MAX_NAME:
                raise self._fault(field[:80], f"the name of tensor {index} is longer than {GGML_MAX_NAME - 1} bytes")
            if name in seen:
                raise self._fault(field, f"the tensor {name} occurs twice")
            seen.add(name)
            shape = self._shape(field)
            tensor_type = self._tensor_type(field, shape)
            n_values = 1
            for length in shape:
                n_values *= length
            size_bytes = n_values // tensor_type.block_values * tensor_type.block_bytes
            if size_bytes > _INT64_MAX:
                raise self._fault(field, f"the {field} would take {size_bytes:,} bytes")
            table.append((name, shape, tensor_type, size_bytes, self._integer(_U64, field)))
        return table

    def _shape(self, field: str) -> tuple[int, ...]:
        n_dims = self._integer(_U32, field)
        if n_dims > GGML_MAX_DIMS:
            raise self._fault(field, f"the {field} has {n_dims} dimensions; at most {GGML_MAX_DIMS} are possible")
        shape = tuple(self._integer(_U64, field) for _ in range(n_dims)) or (1,)
        n_values = 1
        for length in shape:
            n_values *= max(length, 1)
        if n_values > _INT64_MAX:
            raise self._fault(field, f"the {field} has the impossible shape {shape}")
        return shape

    def _tensor_type(self, field: str, shape: tuple[int, ...]) -> GgmlType:
        number = self._integer(_U32, field)
        tensor_type = BY_ID.get(number)
        if tensor_type is None:
            raise self._fault(field, f"the {field} has the ggml type {number}, which this llama.cpp does not know")
        if shape[0] % tensor_type.block_values:
            raise self._fault(
                field,
                f"the {field} has rows of {shape[0]} values, "
                f"which {tensor_type.name} cannot pack into blocks of {tensor_type.block_values}",
            )
        return tensor_type

    def _placed(
        self,
        table: list[tuple[str, tuple[int, ...], GgmlType, int, int]],
        part: int,
        alignment: int,
        data_offset: int,
    ) -> tuple[tuple[Tensor, ...], int]:
        """The tensors with offsets in the file, and where the last one ends. llama.cpp wants them one after another."""
        tensors: list[Tensor] = []
        expected = 0
        needed_bytes = data_offset
        for name, shape, tensor_type, size_bytes, offset in table:
            if offset != expected:
                raise self._fault(
                    f"tensor {name}", f"the tensor {name} lies at offset {offset:,} where {expected:,} was expected"
                )
            needed_bytes = data_offset + offset + size_bytes
            tensors.append(Tensor(name, shape, tensor_type.name, size_bytes, data_offset + offset, part))
            expected += size_bytes + -size_bytes % alignment
        return tuple(tensors), needed_bytes
