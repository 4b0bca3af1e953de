"""ggml's tensor types: their numbers, names and sizes, once for headers, settings, plans and KV cells. Pure.

``tests/backend/test_ggml_types.py`` holds the table against the llama.cpp that is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class GgmlType(NamedTuple):
    """A ggml type: ``block_values`` values are stored in ``block_bytes`` bytes. ``id`` is its number (ggml.h, enum ggml_type)."""

    id: int
    name: str
    block_values: int
    block_bytes: int

    @property
    def bits_per_value(self) -> float:
        """Bits that one value takes, block scales included."""
        return 8 * self.block_bytes / self.block_values

    def row_bytes(self, n_values: int) -> int:
        """Bytes of ``n_values`` values, which must be whole blocks (ggml.c, ggml_row_size)."""
        return n_values // self.block_values * self.block_bytes


BY_ID: Mapping[int, GgmlType] = {
    number: GgmlType(number, *traits)
    for number, traits in {
        0: ("f32", 1, 4), 1: ("f16", 1, 2), 2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20), 6: ("q5_0", 32, 22),
        7: ("q5_1", 32, 24), 8: ("q8_0", 32, 34), 9: ("q8_1", 32, 36), 10: ("q2_K", 256, 84), 11: ("q3_K", 256, 110),
        12: ("q4_K", 256, 144), 13: ("q5_K", 256, 176), 14: ("q6_K", 256, 210), 15: ("q8_K", 256, 292),
        16: ("iq2_xxs", 256, 66), 17: ("iq2_xs", 256, 74), 18: ("iq3_xxs", 256, 98), 19: ("iq1_s", 256, 50),
        20: ("iq4_nl", 32, 18), 21: ("iq3_s", 256, 110), 22: ("iq2_s", 256, 82), 23: ("iq4_xs", 256, 136),
        24: ("i8", 1, 1), 25: ("i16", 1, 2), 26: ("i32", 1, 4), 27: ("i64", 1, 8), 28: ("f64", 1, 8),
        29: ("iq1_m", 256, 56), 30: ("bf16", 1, 2), 34: ("tq1_0", 256, 54), 35: ("tq2_0", 256, 66),
        39: ("mxfp4", 32, 17), 40: ("nvfp4", 64, 36), 41: ("q1_0", 128, 18), 42: ("q2_0", 64, 18),
    }.items()
}  # fmt: skip
"""Number -> type (ggml.c, type_traits; sizes from the static_asserts of ggml-common.h)."""

BY_NAME: Mapping[str, GgmlType] = {one.name: one for one in BY_ID.values()}
