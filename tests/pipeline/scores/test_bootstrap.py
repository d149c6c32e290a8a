"""Intervals by drawing again: they hold the mean, ignore the order, and whole clusters stay together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenelift.pipeline.scores.bootstrap import DRAWS, Interval, draws, interval, ratio_interval, score_intervals, sums
from scenelift.pipeline.scores.registry import known_scores
from scenelift.pipeline.scores.scores import Convention, Statistics, block_statistics, scores

figures = st.lists(st.floats(-100, 100), min_size=1, max_size=12)
few = settings(max_examples=15)


@few
@given(values=figures, seed=st.integers(0, 3))
def test_an_interval_holds_the_mean_and_lies_within_the_values(values: list[float], seed: int) -> None:
    column = np.array(values)
    found = interval(column, seed=seed)
    slack = 1e-9 * (1 + np.abs(column).max())
    assert found.mean == pytest.approx(column.mean())
    assert column.min() - slack <= found.low <= found.high <= column.max() + slack
    spread = column.std() / math.sqrt(len(column))
    assert found.low <= found.mean + spread and found.mean - spread <= found.high
    assert interval(column, seed=seed) == found, "the same seed draws the same"


@few
@given(values=figures, gain=st.floats(0.1, 10), shift=st.floats(-50, 50))
def test_an_interval_follows_unit_and_origin(values: list[float], gain: float, shift: float) -> None:
    one, other = interval(np.array(values)), interval(np.array(values) * gain + shift)
    for before, after in ((one.mean, other.mean), (one.low, other.low), (one.high, other.high)):
        assert after == pytest.approx(before * gain + shift, abs=1e-6)


def test_an_interval_is_as_wide_as_the_textbook_says() -> None:
    values = np.random.default_rng(3).normal(0, 1, 400)
    found = interval(values)
    wide = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - wide, values.mean() + wide), abs=0.01)


@few
@given(values=st.lists(st.floats(-9, 9), min_size=2, max_size=6), times=st.integers(2, 5))
def test_images_of_one_cluster_are_one_draw(values: list[float], times: int) -> None:
    column = np.array(values)
    many, numbers = np.repeat(column, times), np.repeat(np.arange(len(column)) * 7 + 3, times)
    found, alone = interval(many, numbers), interval(column)
    assert (found.mean, found.low, found.high) == pytest.approx((alone.mean, alone.low, alone.high))


def test_clusters_widen_an_interval() -> None:
    column = np.repeat(np.random.default_rng(0).normal(0, 1, 20), 10)
    alone, together = interval(column), interval(column, np.repeat(np.arange(20), 10))
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_what_has_no_figure_is_left_out() -> None:
    column = np.array([1.0, np.nan, 3.0])
    assert interval(column, np.array([5, 6, 5])) == interval(np.array([1.0, 3.0]), np.array([0, 0]))
    nothing = interval(np.array([np.nan]))
    assert math.isnan(nothing.mean) and math.isnan(nothing.low) and math.isnan(nothing.high)
    perfect = interval(np.array([np.inf, 3.0]))
    assert (perfect.mean, perfect.low, perfect.high) == (math.inf,) * 3
    assert str(Interval(1, 0.5, 2)) == "1.00 [0.50, 2.00]"
    assert Interval(1, 0.5, 2).text(".1f") == "1.0 [0.5, 2.0]"


def test_draws_are_multinomial() -> None:
    drawn = draws(5, 0)
    assert drawn.shape == (DRAWS, 5) and (drawn.sum(axis=1) == 5).all()
    assert drawn.mean(axis=0) == pytest.approx(np.ones(5), abs=0.03)
    assert drawn.astype(float).var(axis=0) == pytest.approx(np.full(5, 5 * 0.2 * 0.8), abs=0.05)
    (totals,) = sums(5, 0, np.array([1.0, 10, 100, 1000, 10000]))
    assert totals == pytest.approx(drawn.astype(float) @ np.array([1.0, 10, 100, 1000, 10000]))


@few
@given(
    tops=st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), min_size=1, max_size=8),
    share=st.floats(0.1, 3),
)
def test_a_ratio_of_sums_holds_what_all_blocks_have_in_common(tops: list[tuple[float, float]], share: float) -> None:
    upper = np.array(tops) + 0.1
    found = ratio_interval(upper * share, upper)
    assert (found.mean, found.low, found.high) == pytest.approx((share,) * 3)


def test_a_band_without_a_denominator_is_left_out() -> None:
    tops, bottoms = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[2.0, 0.0], [2.0, 0.0]])
    found = ratio_interval(tops, bottoms)
    assert (found.mean, found.low, found.high) == pytest.approx((1.0, 0.5, 1.5))
    assert found == ratio_interval(tops[:, :1], bottoms[:, :1])
    assert math.isnan(ratio_interval(tops, 0 * bottoms).mean)
    one = ratio_interval(np.array([[1.0], [0.0]]), np.array([[2.0], [0.0]]))  # a draw of the empty block alone is none
    assert (one.mean, one.low, one.high) == (0.5, 0.5, 0.5)


@settings(max_examples=5)
@given(seed=st.integers(0, 99), blocks=st.integers(1, 4))
def test_intervals_of_a_scenes_scores_hold_the_scenes_own(seed: int, blocks: int) -> None:
    rng = np.random.default_rng(seed)
    convention = Convention(0.3, names=("psnr", "mae", "bias"))
    parts = []
    for _ in range(blocks):
        truth = rng.uniform(0, 0.3, (2, 16, 16))
        parts.append(block_statistics(truth, truth + rng.normal(0, 0.01, truth.shape), convention=convention))
    whole: Statistics = parts[0]
    for part in parts[1:]:
        whole = whole + part
    wanted = scores(whole, convention)
    found = score_intervals(parts, [known_scores()[name] for name in wanted.values], convention)
    assert set(found) == {"psnr", "mae", "bias"}
    for name, value in wanted.values.items():
        assert found[name].mean == pytest.approx(value)
        assert found[name].low - 1e-9 <= value <= found[name].high + 1e-9 or blocks > 1
        assert found[name].low <= found[name].high


def test_a_perfect_score_has_no_spread() -> None:
    truth = np.random.default_rng(0).uniform(0, 0.3, (1, 16, 16))
    convention = Convention(0.3, names=("psnr",))
    parts = [block_statistics(truth, truth, convention=convention)] * 2
    found = score_intervals(parts, [known_scores()["psnr"]], convention)["psnr"]
    assert (found.mean, found.low, found.high) == (math.inf,) * 3
