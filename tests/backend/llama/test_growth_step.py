"""How many cells a growth step asks for. Pure."""

from __future__ import annotations

from kvdesk.backend.llama.kv.growth_step import MoveSpeed

GIB = 1 << 30


def test_a_step_doubles_or_holds_what_is_needed_within_the_limit() -> None:
    speed = MoveSpeed()
    assert speed.next_cells(2048, 2049, 32_768, GIB) == 4096
    assert speed.next_cells(2048, 19_975, 32_768, GIB) == 20_224
    assert speed.next_cells(2048, 19_975, 8192, GIB) == 8192


def test_a_step_is_as_long_as_this_machine_moves_within_a_second() -> None:
    speed = MoveSpeed()
    speed.note(GIB, 0.5)  # two GiB a second
    assert speed.next_cells(4096, 4097, 1 << 20, GIB // 2) == 8192  # one GiB made, half a GiB moved
    assert speed.next_cells(10_240, 10_241, 1 << 20, GIB * 4 // 5) == 15_360
    assert speed.next_cells(16_384, 16_385, 1 << 20, 2 * GIB) == 20_480  # a quarter at least
    assert speed.next_cells(16_384, 30_000, 1 << 20, 2 * GIB) == 30_208  # what is needed at least


def test_steps_too_small_to_tell_are_not_measured() -> None:
    speed = MoveSpeed()
    speed.note(1 << 20, 30.0)
    assert speed.next_cells(4096, 4097, 1 << 20, GIB) == 8192
