"""planning/cost_curve.py: few questions, the same answers as asking for every length."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvdesk.backend.planning.cost_curve import TOLERANCE_BYTES, CostLine

MIB = 1024 * 1024


def windowed(n_ctx: int) -> dict[str, int]:
    """Two full layers, many that stop at 1,024 tokens, a mask, a fixed part."""
    return {"RAM": 3_000 * n_ctx + 40_000 * min(n_ctx, 1024) + 512 * max(n_ctx, 2048) + 200 * MIB}


def test_a_bent_line_takes_few_questions_and_is_right_everywhere() -> None:
    asked: list[int] = []

    def price(n_ctx: int) -> dict[str, int]:
        asked.append(n_ctx)
        return windowed(n_ctx)

    line = CostLine(price, 256, 131072, bends=(1024,))
    assert len(asked) == len(set(asked)) < 30
    for n_ctx in range(256, 131073, 256):
        assert abs(line.at(n_ctx)["RAM"] - windowed(n_ctx)["RAM"]) <= 2 * TOLERANCE_BYTES


@given(
    slope=st.integers(100, 10**6),
    steep=st.integers(0, 10**6),
    bend=st.integers(1, 250).map(lambda n: n * 256),
    limit=st.integers(1, 10**12),
)
def test_longest_is_the_longest(slope: int, steep: int, bend: int, limit: int) -> None:
    def price(n_ctx: int) -> dict[str, int]:
        return {"RAM": slope * n_ctx + steep * max(0, n_ctx - bend), "GPU": n_ctx}

    line = CostLine(price, 256, 65536, bends=(bend,))
    fitting = [n for n in range(256, 65537, 256) if line.at(n)["RAM"] <= limit]
    assert line.longest_within({"RAM": limit, "GPU": None}) == (max(fitting) if fitting else None)


def test_the_tightest_domain_decides() -> None:
    line = CostLine(lambda n: {"RAM": n, "GPU": 2 * n}, 256, 65536)
    assert line.longest_within({"RAM": 65536, "GPU": 20480}) == 10240
    assert line.longest_within({"RAM": 5000, "GPU": 65536}) == 4864


def test_a_model_shorter_than_one_step_has_one_point() -> None:
    line = CostLine(lambda n: {"RAM": n}, 256, 100)
    assert (line.lowest, line.highest) == (256, 256)
    assert line.at(10**6) == {"RAM": 256}
