"""How a prompt is cut into batches, and when reading more of it is cheaper. Pure."""

from __future__ import annotations

import pytest

from kvdesk.backend.llama.kv.batches import TILE, ReadCost, batches


@pytest.mark.parametrize(
    ("n_tokens", "n_ubatch", "sizes"),
    [
        (0, 512, []),
        (44, 512, [44]),
        (512, 512, [512]),
        (556, 512, [492, 64]),
        (1068, 512, [512, 492, 64]),
        (600, 512, [512, 88]),
        (70, 64, [64, 6]),
    ],
)
def test_the_last_batch_is_a_tile_where_it_can_be(n_tokens: int, n_ubatch: int, sizes: list[int]) -> None:
    assert batches(n_tokens, n_ubatch) == sizes
    assert sum(batches(n_tokens, n_ubatch)) == n_tokens


def seconds(n_tokens: int, depth: int, narrow: float, wide: float) -> float:
    """A batch of a machine where a token takes 2 ms, and attention so much more for each token before it."""
    return n_tokens * (2e-3 + (depth + n_tokens / 2) * (wide if n_tokens >= TILE else narrow))


def measured(narrow: float, wide: float) -> ReadCost:
    cost = ReadCost()
    for n_tokens, depth in ((512, 0), (512, 512), (512, 1024), (40, 1536)):
        cost.note(n_tokens, depth, seconds(n_tokens, depth, narrow, wide))
    return cost


def test_a_tile_is_read_where_it_has_proved_cheaper() -> None:
    cost = measured(narrow=4e-6, wide=1e-6)
    assert cost.to_read(48, 2000) == TILE
    assert cost.to_read(TILE, 2000) == TILE
    assert cost.to_read(100, 2000) == 100
    assert cost.to_read(12, 2000) == 12  # few tokens, each of them slow
    assert cost.to_read(1, 2000) == 1
    assert cost.to_read(48, 100) == 48  # nothing before them
    assert cost.to_read(48, 50) == 48  # there is no tile


def test_where_all_batches_compute_alike_nothing_is_read_again() -> None:
    cost = measured(narrow=1e-6, wide=1e-6)
    assert [cost.to_read(n, 4000) for n in (8, 32, 63)] == [8, 32, 63]


def test_nothing_is_read_again_before_both_ways_were_measured() -> None:
    cost = ReadCost()
    assert cost.to_read(40, 4000) == 40
    cost.note(40, 3000, 5.0)
    cost.note(200, 0, 0.4)  # one depth alone tells nothing of what depth costs
    cost.note(40, 3000, 5.0)
    assert cost.to_read(40, 4000) == 40


def test_the_newest_measurements_count_most() -> None:
    cost = measured(narrow=4e-6, wide=4e-6)
    assert cost.to_read(60, 2000) == 60
    for _ in range(8):
        for n_tokens, depth in ((512, 0), (512, 1024), (40, 1536)):
            cost.note(n_tokens, depth, seconds(n_tokens, depth, narrow=8e-6, wide=1e-6))
    assert cost.to_read(60, 2000) == TILE
