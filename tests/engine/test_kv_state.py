"""Saved states: reading their layout, moving them between contexts, cutting back and checkpoints, against llama.cpp."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvdesk.backend.llama.kv.layout import BlockKind, CannotConvert
from kvdesk.backend.llama.kv.state import cut_keeps_window, describe_state, sequence_state, without_passed_cells
from tests.engine import kv_lab
from tests.tiny_models import write_tiny

ARCHITECTURES = ("llama", "gemma3", "mamba", "lfm2", "qwen3moe")
"""Plain grouped-query attention, sliding window, recurrent, hybrid, mixture of experts."""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("gemma3", tmp_path_factory.mktemp("gemma3"))


# --- layout, on states written here by the rules of llama-kv-cache.cpp ------------------------------------------


def attention(
    positions: list[int], v_trans: int = 0, type_k: int = 8, extension: int = 0, with_v: bool = True, n_stream: int = 1
) -> bytes:
    """Two layers: K of 64 values, V of 32 of them f16."""
    cells = len(positions)
    records = b"".join(struct.pack("<iI", p, 1) + bytes(extension) + struct.pack("<i", 0) for p in positions)
    row_k = {8: 68, 1: 128}[type_k]
    k = struct.pack("<iQ", type_k, row_k) + bytes(row_k * cells)
    head_v = struct.pack("<iII", 1, 2, 32) if v_trans else struct.pack("<iQ", 1, 64)
    v = head_v + np.arange(32 * cells, dtype=np.uint16).tobytes()
    body = records + struct.pack("<II", v_trans, 2) + 2 * k + (2 * v if with_v else b"") if cells else b""
    return struct.pack("<II", n_stream, cells) + body + bytes(4 * (n_stream - 1))


def recurrent(position: int, sequence: bytes = b"") -> bytes:
    """One of three layers is recurrent: R of 24 bytes, S of 40."""
    return (
        struct.pack("<IiI", 1, position, len(sequence) // 4) + sequence + struct.pack("<II", 0, 3)
        + struct.pack("<iQ", 0, 24) + bytes(24) + struct.pack("<iQ", 0, 40) + bytes(40)
    )  # fmt: skip


def state(*blocks: bytes) -> bytes:
    return struct.pack("<Ii", 0xAF143CD8, 0) + b"".join(blocks)


def test_a_sliding_window_state_has_two_caches() -> None:
    full, window = describe_state(state(attention(list(range(9))), attention([6, 7, 8, 3, 4, 5]))).blocks
    assert (full.kind, full.cells, full.layers) == (BlockKind.ATTENTION, 9, 2)
    assert (full.types_k, full.types_v) == ({"q8_0"}, {"f16"})
    assert full.cell_bytes == 2 * 68 + 2 * 64
    assert full.tensor_bytes == 9 * full.cell_bytes
    assert window.positions.tolist() == [6, 7, 8, 3, 4, 5]


def test_transposed_values_and_streams() -> None:
    (block,) = describe_state(state(attention([0, 1, 2], v_trans=1, n_stream=3))).blocks
    assert block.v_trans
    assert [(v.n_values, v.transposed, v.cell_bytes) for v in block.values] == [(32, True, 64)] * 2
    assert block.n_stream == 3


def test_mla_keeps_no_v_and_mrope_extends_its_cells() -> None:
    (mla,) = describe_state(state(attention([0, 1], with_v=False))).blocks
    assert (mla.layers, mla.values, mla.types_v) == (2, (), frozenset())
    (mrope,) = describe_state(state(attention([0, 1, 2], extension=12))).blocks
    assert mrope.cell_record_bytes == 24
    assert mrope.positions.tolist() == [0, 1, 2]


def test_hybrid_and_recurrent_states() -> None:
    layout = describe_state(state(attention([0, 1]), recurrent(1)))
    assert [block.kind for block in layout.blocks] == [BlockKind.ATTENTION, BlockKind.RECURRENT]
    assert layout.is_recurrent
    (alone,) = describe_state(state(recurrent(41))).blocks
    assert alone.positions.tolist() == [41]
    assert alone.tensor_bytes == len(recurrent(41))


def test_an_empty_cache_has_no_cells() -> None:
    assert [block.cells for block in describe_state(state(attention([0]), attention([]))).blocks] == [1, 0]


def test_the_state_of_a_context_becomes_that_of_its_sequence() -> None:
    name = struct.pack("<I", 5) + b"jamba"
    whole = bytearray(50) + name + attention([0, 1]) + recurrent(1, struct.pack("<i", 0))
    assert bytes(sequence_state(whole, 50)) == state(attention([0, 1]), recurrent(1))


def test_cells_of_a_second_sequence_are_not_taken_for_the_first() -> None:
    body = attention([0]).replace(struct.pack("<iIi", 0, 1, 0), struct.pack("<iIi", 0, 1, 1), 1)
    with pytest.raises(CannotConvert):
        sequence_state(bytearray(8) + struct.pack("<I", 5) + b"llama" + body, 8)


@pytest.mark.parametrize("v_trans", [0, 1])
def test_cells_that_the_window_has_passed_can_be_left_out(v_trans: int) -> None:
    ring = [8, 9, 2, 3, 4, 5, 6, 7]
    before = state(attention(list(range(10))), attention(ring, v_trans))
    after = without_passed_cells(before, describe_state(before), 4)
    full, window = describe_state(after).blocks
    assert (full.cells, window.positions.tolist()) == (10, [8, 9, 6, 7])
    values = np.arange(8 * 32, dtype=np.uint16).reshape((32, 8) if v_trans else (8, 32))
    expected = values[:, [0, 1, 6, 7]] if v_trans else values[[0, 1, 6, 7]]
    first = window.values[0]
    assert after[first.start : first.start + 4 * 64] == expected.tobytes()


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\0" * 8,
        state(),
        state(attention([0, 1]))[:-1],
        state(attention([0, 1])) + b"\0",
        state(attention([0, 1]), b"\0\0\0\0"),
        state(attention([0, -5])),
        state(recurrent(3))[:-1],
        state(recurrent(3), attention([0])),
        state(*[attention([0])] * 5),
        state(struct.pack("<II", 1, 0xFFFFFFFF)),
        state(attention([0, 1]).replace(struct.pack("<iQ", 8, 68), struct.pack("<iQ", 12, 68))),
    ],
)
def test_what_is_not_understood_is_refused(broken: bytes) -> None:
    with pytest.raises(CannotConvert):
        describe_state(broken)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_never_does_more_than_be_refused(data: st.DataObject) -> None:
    whole = bytearray(state(attention([0, 1, 2], v_trans=1), attention([2, 1]), recurrent(2)))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        layout = describe_state(whole)
    except CannotConvert:
        return
    assert layout.blocks[0].start == 8
    assert layout.blocks[-1].end == len(whole)


def test_the_rule_for_cutting() -> None:
    assert cut_keeps_window(1486, 976, 1999, 512) is False
    assert cut_keeps_window(1487, 976, 1999, 512) is True
    assert cut_keeps_window(2000, 1488, 1999, 512) is True
    assert cut_keeps_window(5, 0, 1999, 0) is True
    assert cut_keeps_window(1998, 1999, 1999, 0) is False
    assert cut_keeps_window(0, -1, -1, 512) is True
    assert cut_keeps_window(7, -1, -1, 512) is False


# --- llama.cpp -------------------------------------------------------------------------------------------------


def test_a_moved_conversation_goes_on_with_the_same_logits(tiny: Path) -> None:
    moves = kv_lab.run("move", tiny)
    assert {move["n_ctx"] for move in moves} == {256, 1024, 4096}
    assert [m for m in moves if not (m["moved"] and m["equal"] and m["greedy"] and m["immutable_too"])] == []


def test_growing_step_by_step_does_not_change_the_text(tiny: Path) -> None:
    grown = kv_lab.run("grow", tiny)
    assert grown["steps"] == 3
    assert len(set(grown["chosen"])) > 3, "the model only repeats itself: nothing was tested"
    assert grown["text"]
    assert grown["logits"]


def test_a_cut_that_is_said_to_be_right_is_right(tiny: Path) -> None:
    cuts = kv_lab.run("cut", tiny)
    allowed = [cut for cut in cuts if cut["said"]]
    assert {cut["keep"] for cut in allowed} >= {1000}
    assert [cut for cut in allowed if not cut["done"] or cut["divergence"] > 1e-6] == []


def test_llama_cpp_cuts_a_window_without_a_word_and_then_answers_wrong(windowed: Path) -> None:
    """Why cut_keeps_window exists; when this fails llama.cpp has learned to refuse."""
    wrong = [cut for cut in kv_lab.run("cut", windowed) if not cut["said"]]
    assert all(cut["done"] for cut in wrong)
    assert max(cut["divergence"] for cut in wrong) > 0.01


def test_a_checkpoint_brings_back_what_a_cut_cannot(tiny: Path) -> None:
    result = kv_lab.run("checkpoint", tiny)
    assert result["back"]
    assert result["span"][1] == 399
    assert result["divergence"] < 1e-4
    assert result["checkpoint_bytes"] <= result["whole_bytes"]
    assert not result["damaged"]
    assert result["after_damage"] == [-1, -1]


def test_what_does_not_fit_leaves_an_empty_usable_context(windowed: Path) -> None:
    results = kv_lab.run("refuse", windowed)
    assert results.pop("usable")
    assert sorted(results) == ["cut short", "other types", "too few cells"]
    assert all(result == {"restored": False, "span": [-1, -1]} for result in results.values())


def test_a_ring_moves_into_a_smaller_one(windowed: Path) -> None:
    result = kv_lab.run("shrink_window", windowed)
    assert result["moved"]
    assert result["span"][1] == 1299
    assert result["divergence"] < 1e-4
