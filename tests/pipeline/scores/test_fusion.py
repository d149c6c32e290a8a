"""Scores of image fusion against the published formulas, and sums over blocks against the whole image."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from scenelift.pipeline.scores.areas import Area
from scenelift.pipeline.scores.fusion import no_reference_sums, without_reference
from scenelift.pipeline.scores.scores import Convention, block_statistics, scores

NAMES = Convention(names=("sre", "uiqi", "q2n"))


def images(bands: int, height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = 0.2 + ndimage.gaussian_filter(0.3 * rng.standard_normal((bands, height, width)), (0, 2, 2))
    return x, 1.1 * ndimage.gaussian_filter(x, (0, 1, 1)) + 0.01 * rng.standard_normal(x.shape)


def measured(x, y, valid=None):
    return scores(block_statistics(x, y, valid, None, NAMES), NAMES)


def test_sre_is_the_power_of_the_reference_over_that_of_the_error():
    x, y = images(3, 40, 50)
    each = [10 * np.log10((a**2).mean() / ((a - b) ** 2).mean()) for a, b in zip(x, y, strict=True)]
    assert measured(x, y).bands["sre"] == pytest.approx(each)
    assert measured(x, y)["sre"] == pytest.approx(np.mean(each))
    assert measured(x, x)["sre"] == np.inf


def test_universal_quality_is_the_published_formula():
    # sewar puts means where the formula has sums, torchmetrics takes Gaussian windows: neither is an oracle
    x, y = images(2, 70, 80)
    theirs = [quality(a, b) for a, b in zip(x, y, strict=True)]
    assert measured(x, y).bands["uiqi"] == pytest.approx(theirs)
    assert measured(x, 0.5 * x)["uiqi"] == pytest.approx(0.8 * 0.8)


def hamilton(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Product of quaternions, components first, written out."""
    a1, b1, c1, d1 = p
    a2, b2, c2, d2 = q
    return np.array(
        [
            a1 * a2 - b1 * b2 - c1 * c2 - d1 * d2,
            a1 * b2 + b1 * a2 + c1 * d2 - d1 * c2,
            a1 * c2 - b1 * d2 + c1 * a2 + d1 * b2,
            a1 * d2 + b1 * c2 - c1 * b2 + d1 * a2,
        ]
    )


def q4(x: np.ndarray, y: np.ndarray) -> float:
    """Q4 of one window by quaternion arithmetic (Alparone et al., IEEE GRSL 1(4), 2004)."""
    n = x[0].size
    u, v = x.reshape(4, -1), y.reshape(4, -1)
    mean_u, mean_v = u.mean(1, keepdims=True), v.mean(1, keepdims=True)
    conjugate = (v - mean_v) * np.array([1, -1, -1, -1])[:, None]
    covariance = np.linalg.norm(hamilton(u - mean_u, conjugate).sum(1) / (n - 1))
    variances = [((w - m) ** 2).sum() / (n - 1) for w, m in ((u, mean_u), (v, mean_v))]
    means = [np.linalg.norm(m) for m in (mean_u, mean_v)]
    return 4 * covariance * means[0] * means[1] / (sum(variances) * (means[0] ** 2 + means[1] ** 2))


def test_q2n_of_four_bands_is_q4_by_quaternions_over_windows_every_16_pixels():
    x, y = images(4, 70, 80)
    corners = itertools.product(range(0, 70 - 31, 16), range(0, 80 - 31, 16))
    theirs = [q4(x[:, r : r + 32, c : c + 32], y[:, r : r + 32, c : c + 32]) for r, c in corners]
    assert measured(x, y)["q2n"] == pytest.approx(np.mean(theirs), rel=1e-9)
    assert measured(x, x)["q2n"] == pytest.approx(1)


def test_q2n_of_three_bands_is_that_of_four_with_an_empty_one():
    x, y = images(3, 32, 32)
    empty = np.zeros((1, 32, 32))
    assert measured(x, y)["q2n"] == pytest.approx(q4(np.concatenate([x, empty]), np.concatenate([y, empty])))


@given(st.lists(st.integers(1, 110), max_size=3), st.lists(st.integers(1, 100), max_size=3), st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_sums_over_any_partition_equal_the_whole(rows, columns, seed):
    x, y = images(3, 111, 101, seed)
    valid = np.random.default_rng(seed).random(x.shape) > 1e-4
    edges = [sorted({0, *cuts, size}) for cuts, size in ((rows, 111), (columns, 101))]
    total, blind = None, None
    for (a, c), (b, d) in itertools.product(*(itertools.pairwise(e) for e in edges)):
        area = Area.around((a, b, c, d), x.shape[1:])
        at = (slice(None), *(slice(o, o + s) for o, s in zip(area.origin, area.shape, strict=True)))
        part = block_statistics(x[at], y[at], valid[at], area, NAMES)
        lone = no_reference_sums(y[at][:2], x[at][:2], y[at][2:], x[at][2:], area)
        total, blind = (part, lone) if total is None else (total + part, blind + lone)
    whole = measured(x, y, valid)
    assert scores(total, NAMES).values == pytest.approx(whole.values, rel=1e-9, nan_ok=True)
    expected = without_reference(no_reference_sums(y[:2], x[:2], y[2:], x[2:]))
    assert without_reference(blind) == pytest.approx(expected, rel=1e-6, nan_ok=True)


def quality(a: np.ndarray, b: np.ndarray) -> float:
    """Mean universal quality over windows of 32 every 16, from numpy's own covariance."""
    found = []
    for r, c in itertools.product(range(0, a.shape[0] - 31, 16), range(0, a.shape[1] - 31, 16)):
        u, v = a[r : r + 32, c : c + 32].ravel(), b[r : r + 32, c : c + 32].ravel()
        m = np.cov(u, v)
        found.append(4 * m[0, 1] * u.mean() * v.mean() / ((m[0, 0] + m[1, 1]) * (u.mean() ** 2 + v.mean() ** 2)))
    return float(np.mean(found))


def test_quality_without_reference_follows_its_formula():
    low, fused = images(3, 64, 80)
    guide_low, guide = images(1, 64, 80, 5)
    found = without_reference(no_reference_sums(fused, low, guide, guide_low))
    pairs = list(itertools.combinations(range(3), 2))
    d_lambda = np.mean([abs(quality(fused[i], fused[j]) - quality(low[i], low[j])) for i, j in pairs])
    d_s = np.mean([abs(quality(fused[i], guide[0]) - quality(low[i], guide_low[0])) for i in range(3)])
    assert found == pytest.approx({"d_lambda": d_lambda, "d_s": d_s, "qnr": (1 - d_lambda) * (1 - d_s)})


def test_what_was_not_changed_has_perfect_quality():
    x, _ = images(3, 64, 64)
    assert without_reference(no_reference_sums(x[:2], x[:2], x[2:], x[2:])) == {"d_lambda": 0, "d_s": 0, "qnr": 1}


def test_images_smaller_than_a_window_have_no_quality():
    x, y = images(2, 20, 20)
    assert np.isnan(measured(x, y)["uiqi"])
    assert np.isnan(measured(x, y)["q2n"])
    assert np.isnan(without_reference(no_reference_sums(x, y, x, y))["qnr"])
