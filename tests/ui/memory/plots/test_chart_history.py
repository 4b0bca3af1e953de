"""Twelve hours on a few hundred pixels: nothing that stood out may vanish."""

from __future__ import annotations

import numpy as np
import pytest

from kvdesk.ui.memory.plots.chart_history import ChartHistory


def filled(n, capacity=86_400):
    history = ChartHistory(("a", "b"), capacity)
    times = np.arange(n) * 0.5
    history.extend(times, np.vstack([np.sin(times), np.zeros(n)]))
    return history


def test_a_single_spike_in_twelve_hours_is_drawn_at_every_width():
    history = ChartHistory(("a",))
    values = np.ones((1, 86_400))
    values[0, 51_234] = 9.0
    values[0, 60_001] = -5.0
    history.extend(np.arange(86_400) * 0.5, values)
    for width in (60, 300, 1999):
        columns = history.columns(0, 43_200, width)
        assert len(columns.x) <= width + 2
        assert columns.high["a"].max() == 9.0
        assert columns.low["a"].min() == -5.0


def test_few_rows_are_drawn_as_they_are():
    history = filled(100)
    columns = history.columns(0, 50, 300)
    assert np.array_equal(columns.x, history.times)
    assert np.array_equal(columns.high["a"], history.series("a"))


def test_a_stretch_includes_one_row_beyond_its_edges_so_that_lines_reach_them():
    columns = filled(1000).columns(100.2, 110.2, 400)
    assert columns.x[0] <= 100.2
    assert columns.x[-1] >= 110.2


def test_columns_stay_put_while_the_view_scrolls():
    history = filled(20_000)
    first = history.columns(1000, 9000, 400)
    later = history.columns(1010, 9010, 400)
    shared = np.intersect1d(first.x[1:-2], later.x[1:-2])
    assert len(shared) > 390


def test_unknown_stays_unknown_and_does_not_hide_its_neighbours():
    history = ChartHistory(("a",))
    for i in range(1000):
        history.append(i, [None if 400 <= i < 600 or i % 2 else 1.0])
    columns = history.columns(0, 1000, 100)
    gap = (columns.x >= 410) & (columns.x < 590)
    assert np.isnan(columns.high["a"][gap]).all()
    assert (columns.high["a"][columns.x < 390] == 1.0).all()


def test_the_oldest_go_when_full_and_order_is_kept():
    history = ChartHistory(("a",), capacity=1000)
    for i in range(2500):
        history.append(i, [float(i)])
    assert 800 <= len(history) <= 1000
    assert history.times[-1] == 2499
    assert np.array_equal(history.times, history.series("a"))


def test_a_clock_that_goes_back_does_not_unsort_time():
    history = ChartHistory(("a",))
    for t in (1.0, 5.0, 3.0, 6.0):
        history.append(t, [t])
    assert list(history.times) == [1.0, 5.0, 5.0, 6.0]


def test_reading_a_value_takes_the_nearest_row():
    history = ChartHistory(("a", "b"))
    assert history.at(3) is None
    history.append(10, [1.0, None])
    history.append(20, [2.0, 7.0])
    assert history.at(0) == (10.0, {"a": 1.0, "b": None})
    assert history.at(14.9) == (10.0, {"a": 1.0, "b": None})
    assert history.at(15.1) == (20.0, {"a": 2.0, "b": 7.0})
    assert history.at(1e12) == (20.0, {"a": 2.0, "b": 7.0})


def test_extend_after_append_and_beyond_capacity_keeps_the_newest():
    history = ChartHistory(("a",), capacity=100)
    history.append(-1.0, [0.5])
    history.extend(np.arange(10.0), np.arange(10.0)[None])
    assert len(history) == 11
    history.extend(np.arange(10.0, 160.0), np.arange(10.0, 160.0)[None])
    assert len(history) == 100
    assert history.times[0] == 60
    history.append(200.0, [None])
    assert history.times[-1] == 200


@pytest.mark.parametrize("width", [0, 1])
def test_no_width_is_no_crash(width):
    assert len(filled(5000).columns(0, 2500, width).x) >= 1
