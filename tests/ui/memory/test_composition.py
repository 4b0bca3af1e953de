"""The parts of a measured total always add up to it, whatever the buffers say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvdesk.backend.protocol.facts import Buffer, BufferKind, KvState
from kvdesk.backend.system.samples import DomainReading
from kvdesk.ui.memory.composition import room_under_line, split

MIB = 1024**2
GIB = 1024**3

BUFFERS = (
    Buffer("CPU", "CPU_Mapped", BufferKind.WEIGHTS, 240 * MIB, mapped=True),
    Buffer("CPU", "CPU_REPACK", BufferKind.WEIGHTS, 50 * MIB),
    Buffer("CPU", "CPU", BufferKind.KV, 100 * MIB),
    Buffer("CPU", "CPU", BufferKind.COMPUTE, 40 * MIB),
    Buffer("CPU", "CPU", BufferKind.OUTPUT, 1 * MIB),
    Buffer("CUDA0", "CUDA0", BufferKind.WEIGHTS, 3 * GIB),
    Buffer("CUDA0", "CUDA0", BufferKind.RECURRENT, 10 * MIB),
)


def ram(anonymous, file, **more):
    total = None if anonymous is None else anonymous + file
    return DomainReading("RAM", "ram", 16 * GIB, 8 * GIB, total, anonymous, file, **more)


def test_ram_splits_into_file_pages_and_buffers_and_the_rest_is_overhead():
    parts = split(ram(291 * MIB, 300 * MIB), BUFFERS, KvState(25, 100, 25 * MIB, 100 * MIB))
    assert parts is not None
    assert parts.weights_mapped == 240 * MIB
    assert parts.weights == 50 * MIB
    assert (parts.kv_used, parts.kv_free) == (25 * MIB, 75 * MIB)
    assert parts.compute == 41 * MIB
    assert parts.overhead == (291 + 300 - 240 - 50 - 100 - 41) * MIB


def test_weights_that_the_system_took_back_are_not_shown_as_held():
    parts = split(ram(291 * MIB, 30 * MIB), BUFFERS, None)
    assert parts is not None
    assert parts.weights_mapped == 30 * MIB


def test_a_device_counts_only_its_own_buffers_and_its_context_is_overhead():
    parts = split(DomainReading("CUDA0", "gpu", 8 * GIB, 4 * GIB, 3 * GIB + 310 * MIB), BUFFERS, None)
    assert parts is not None
    assert (parts.weights, parts.kv_free, parts.compute, parts.overhead) == (3 * GIB, 10 * MIB, 0, 300 * MIB)


def test_unmeasured_is_unknown_not_zero():
    assert split(ram(None, None), BUFFERS, None) is None
    assert room_under_line(ram(None, None), GIB) is None


@given(
    total=st.integers(0, 2 * GIB),
    file=st.integers(0, GIB),
    used=st.integers(0, 200),
    sizes=st.lists(st.integers(0, GIB), min_size=7, max_size=7),
)
def test_parts_add_up_to_the_measurement(total, file, used, sizes):
    reading = DomainReading("RAM", "ram", None, None, total, total - min(file, total), min(file, total))
    buffers = [Buffer("CPU", b.name, b.kind, s, b.mapped) for b, s in zip(BUFFERS, sizes, strict=True)]
    parts = split(reading, buffers, KvState(used, 100, used, 100))
    assert parts is not None
    assert parts.total == total
    assert min(parts.weights_mapped, parts.weights, parts.kv_used, parts.kv_free, parts.compute, parts.overhead) >= 0
