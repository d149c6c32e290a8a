"""opensr-test's measures by hand, by torch's resampling, over blocks, and by the published package where it is."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scores.areas import Area
from scenelift.pipeline.scores.opensr import COLUMNS, SIDE, measures
from scenelift.pipeline.scores.registry import known_scores
from scenelift.pipeline.scores.scores import Convention, Scores, Statistics, block_statistics, scores
from scenelift.pipeline.scores.sums import Coarse

Image = NDArray[np.float64]
NAMES = tuple(score.name for score in known_scores().values() if score.kind == "input")
CONVENTION = Convention(names=NAMES)


def triple(bands: int, side: tuple[int, int], factor: int, seed: int = 0, shift: tuple[float, float] = (0, 0)):
    """Return what was seen, what may have been made of it, and the truth, as reflectance."""
    rng = np.random.default_rng(seed)
    truth = np.clip(0.15 + 0.5 * ndimage.gaussian_filter(rng.standard_normal((bands, *side)), (0, 2, 2)), 0.01, None)
    height, width = side[0] // factor, side[1] // factor
    coarse = truth.reshape(bands, height, factor, width, factor).mean(axis=(2, 4))
    plain = coarse.repeat(factor, axis=1).repeat(factor, axis=2)
    test = 0.6 * plain + 0.4 * truth + 0.004 * rng.standard_normal(truth.shape)
    if any(shift):
        test = ndimage.shift(test, (0, *shift), order=1, mode="nearest") * 1.04 + 0.01
    return coarse, test, truth


def resampled(image: Image, shape: tuple[int, int]) -> Image:
    """Resample by torch."""
    kwargs = {"mode": "bilinear", "antialias": True}
    return torch.nn.functional.interpolate(torch.from_numpy(image)[None], shape, **kwargs)[0].numpy()


def test_a_perfect_result_is_all_improvement():
    coarse, _, truth = triple(3, (64, 64), 2)
    found = measures(coarse, truth, truth)
    # a is 0 and b 1 in every pixel: the three distances are 0, 1 and 1, the softmin at a temperature of 1/4
    share = 1 / (1 + 2 * math.exp(-4))
    assert found["improvement"] == pytest.approx(share, abs=1e-6)
    assert found["omission"] == found["hallucination"] == pytest.approx(share * math.exp(-4), abs=1e-6)


def test_flat_images_by_hand():
    coarse = np.stack([np.full((16, 16), 0.2), np.zeros((16, 16))])
    test = np.full((2, 32, 32), 0.2)
    found = measures(coarse, test, test)
    assert found["reflectance"] == pytest.approx(0.1)  # the mean of 0 and .2
    assert found["spectral"] == pytest.approx(45)  # (1, 0) against (1, 1)
    assert found["synthesis"] == pytest.approx(0.1)
    zeros = np.zeros((1, 16, 16))
    assert math.isnan(measures(zeros, np.zeros((1, 32, 32)), np.zeros((1, 32, 32)))["spectral"])


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_shift_is_seen_in_pixels_of_the_input(factor: int):
    coarse, _, truth = triple(2, (96, 96), factor)
    moved = np.roll(truth, (factor, 2 * factor), axis=(1, 2))
    assert measures(coarse, moved, truth)["spatial"] == pytest.approx(math.hypot(1, 2), abs=0.03)
    assert measures(coarse, truth, truth)["spatial"] == pytest.approx(0, abs=0.021)


def test_a_shift_too_far_is_none_and_moves_nothing():
    coarse, _, truth = triple(1, (96, 96), 2)
    found = measures(coarse, np.roll(truth, (20, 0), axis=(1, 2)), truth)
    assert math.isnan(found["spatial"])
    assert math.isfinite(found["hallucination"])


@pytest.mark.parametrize(("factor", "side"), [(2, (64, 48)), (3, (48, 66)), (4, (64, 64))])
def test_consistency_and_correctness_by_torchs_resampling_and_plain_loops(factor: int, side: tuple[int, int]):
    coarse, _, truth = triple(3, side, factor)
    # the truth's own values, exchanged inside pairs, and all the same turned by half a turn: the histogram is the same
    # and no shift is likelier than its opposite, so nothing is harmonized
    truth = (truth + truth[:, ::-1, ::-1]) / 2
    test = truth.copy()
    swap = np.random.default_rng(1).random((side[0], side[1] // 2)) < 0.1
    rows, columns = np.nonzero(swap | swap[::-1, ::-1])
    columns *= 2
    test[:, rows, columns], test[:, rows, columns + 1] = truth[:, rows, columns + 1], truth[:, rows, columns]
    found = measures(coarse, test, truth)
    reduced, enlarged = resampled(test, coarse.shape[1:]), resampled(coarse, side)
    assert found["reflectance"] == pytest.approx(np.abs(reduced - coarse).mean(), abs=1e-12)
    cosine = (reduced * coarse).sum(0) / np.linalg.norm(reduced, axis=0) / np.linalg.norm(coarse, axis=0)
    assert found["spectral"] == pytest.approx(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean(), abs=1e-5)
    assert found["synthesis"] == pytest.approx(np.abs(test - enlarged).mean(), abs=1e-12)

    def distance(x: Image, y: Image, at: tuple[int, int]) -> float:
        return float(np.mean([abs(p - q) / abs(p + q + 1e-8) for p, q in zip(x[:, *at], y[:, *at], strict=True)]))

    pixels = [
        tuple(distance(x, y, at) for x, y in ((enlarged, truth), (test, truth), (test, enlarged)))
        for at in np.ndindex(*side)
    ]
    threshold = sorted(base for base, _, _ in pixels)[int(0.75 * len(pixels)) - 1]
    shares = []
    for base, missed, added in pixels:
        if max(base, missed, added) > threshold:
            a, b = missed / base, added / base
            damped = 1 - math.exp(-0.05 * (a + b - 1))
            weights = [math.exp(-4 * d) for d in (a + b * damped, b + a * damped, math.exp(-0.05 * a * b))]
            shares.append([w / sum(weights) for w in weights])
    expected = np.mean(shares, axis=0)
    assert [found[name] for name in COLUMNS[4:]] == pytest.approx(expected, abs=1e-9)
    assert sum(expected) == pytest.approx(1)


def by_blocks(images, valid, factor: int, rows, columns) -> Statistics:
    """Score block by block, each from nothing but its own window."""
    coarse, test, truth = images
    total = None
    for (a, c), (b, d) in itertools.product(itertools.pairwise(rows), itertools.pairwise(columns)):
        area = Area.around((a, b, c, d), truth.shape[1:], CONVENTION.halo)
        ends = [(o, o + n) for o, n in zip(area.origin, area.shape, strict=True)]
        fine = (slice(None), *(slice(*end) for end in ends))
        low = (slice(None), *(slice(first // factor, -(-end // factor)) for first, end in ends))
        part = Coarse.whole(coarse[low], factor)
        sums = block_statistics(truth[fine], test[fine], valid[fine], area, CONVENTION, part)
        total = sums if total is None else total + sums
    return total


def values_of(found: Scores) -> list[float]:
    return [found[name] for name in NAMES]


@settings(max_examples=4, deadline=None)
@given(
    factor=st.sampled_from([2, 3, 4]),
    rows=st.sets(st.integers(1, 203), max_size=2),
    columns=st.sets(st.integers(1, 155), max_size=1),
    seed=st.integers(0, 9),
)
def test_blocks_of_any_size_give_the_whole_scenes_measures(factor: int, rows: set[int], columns: set[int], seed: int):
    images = triple(2, (204, 156), factor, seed, (0.5, -0.3))
    valid = np.ones(images[1].shape, bool)
    valid[:, :3] = False
    whole = scores(by_blocks(images, valid, factor, (0, 204), (0, 156)), CONVENTION)
    parts = scores(by_blocks(images, valid, factor, (0, *sorted(rows), 204), (0, *sorted(columns), 156)), CONVENTION)
    assert values_of(parts) == pytest.approx(values_of(whole), rel=1e-9)


def test_a_scene_is_the_mean_of_its_tiles_by_pixels():
    coarse, test, truth = triple(2, (160, 300), 2)
    valid = np.ones(test.shape, bool)
    valid[:, :, :5] = False  # an edge is cut off, to whole pixels of the input
    valid[:, 130, 140] = False  # a hole leaves its tile out
    found = scores(block_statistics(truth, test, valid, None, CONVENTION, Coarse.whole(coarse, 2)), CONVENTION)
    tiles = [(0, 128, 6, 128), (0, 128, 128, 256), (0, 128, 256, 300), (128, 160, 6, 128), (128, 160, 256, 300)]
    each, pixels = [], []
    for top, bottom, left, right in tiles:
        fine, low = np.s_[:, top:bottom, left:right], np.s_[:, top // 2 : bottom // 2, left // 2 : right // 2]
        each.append(measures(coarse[low], test[fine], truth[fine]))
        pixels.append((bottom - top) * (right - left))
    assert SIDE == 128
    expected = [np.average([tile[name] for tile in each], weights=pixels) for name in COLUMNS]
    assert values_of(found) == pytest.approx(expected, rel=1e-12)


def test_without_the_input_or_a_whole_tile_nothing_is_measured():
    coarse, test, truth = triple(1, (64, 64), 2)
    alone = scores(block_statistics(truth, test, convention=CONVENTION), CONVENTION)
    assert alone.values == {}
    nothing = np.zeros(test.shape, bool)
    found = scores(block_statistics(truth, test, nothing, None, CONVENTION, Coarse.whole(coarse, 2)), CONVENTION)
    assert np.isnan(values_of(found)).all()
    with pytest.raises(UsageError, match=r"must have the shape \(1, 32, 32\), got \(1, 31, 32\)"):
        block_statistics(truth, test, None, None, CONVENTION, Coarse.whole(coarse[:, 1:], 2))


@pytest.mark.parametrize(
    ("factor", "bands", "shift"),
    [(2, 4, (0, 0)), (4, 3, (0, 0)), (3, 4, (0.6, -1.4)), (2, 3, (0.3, 0.7)), (4, 4, (0, 1)), (3, 3, (2.5, -1))],
)
def test_the_published_package_agrees(factor: int, bands: int, shift: tuple[float, float]):
    opensr_test = pytest.importorskip("opensr_test", reason="needs the package opensr-test")
    images = triple(bands, (96, 96), factor, 3, shift)
    theirs = opensr_test.Metrics(border_mask=0).compute(*(torch.from_numpy(image) for image in images))
    mine = measures(*images)
    names = dict(zip(COLUMNS, (*COLUMNS[:4], "im_metric", "om_metric", "ha_metric"), strict=True))
    assert mine == pytest.approx({name: theirs[key] for name, key in names.items()}, abs=2e-5)
