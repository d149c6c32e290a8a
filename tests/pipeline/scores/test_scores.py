"""Scores against scikit-image, torchmetrics and sewar, and sums over blocks against the whole image."""

import itertools
import warnings

import numpy as np
import pytest
import pywt
import sewar
import skimage.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torchmetrics.functional import image as tm

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scores.areas import Area, halve
from scenelift.pipeline.scores.registry import pixel_names
from scenelift.pipeline.scores.scores import Convention, Statistics, block_statistics, scores
from scenelift.pipeline.scores.similarity import similarity_sums
from scenelift.pipeline.scores.sums import Block
from scenelift.pipeline.scores.texture import texture_sums

RANGE = 0.3
CONVENTION = Convention(data_range=RANGE, ratio=2)


def textured(bands: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return smooth structure with detail, float64, about 0.02 to 0.4 like reflectance."""
    rng = np.random.default_rng(seed)
    coarse = ndimage.gaussian_filter(rng.standard_normal((bands, height, width)), (0, 4, 4))
    fine = ndimage.gaussian_filter(rng.standard_normal((bands, height, width)), (0, 0.7, 0.7))
    return np.clip(0.15 + 0.5 * coarse + 0.02 * fine, 0.01, None)


def pair(bands: int = 3, height: int = 200, width: int = 187, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    reference = textured(bands, height, width, seed)
    noise = np.random.default_rng(seed + 1).standard_normal(reference.shape)
    return reference, ndimage.gaussian_filter(reference, (0, 0.8, 0.8)) + 0.004 * noise


def by_blocks(x, y, valid, rows, columns, order=None) -> Statistics:
    """Score block by block, each from nothing but its own window of the scene."""
    edges = [(a, b, c, d) for a, c in itertools.pairwise(rows) for b, d in itertools.pairwise(columns)]
    total = None
    for core in edges if order is None else [edges[i] for i in order(len(edges))]:
        area = Area.around(core, x.shape[1:])
        window = (slice(None), *(slice(o, o + s) for o, s in zip(area.origin, area.shape, strict=True)))
        part = block_statistics(x[window], y[window], valid[window], area, CONVENTION)
        total = part if total is None else total + part
    return total


def assert_same(mine, theirs, tolerance=1e-9) -> None:
    assert mine.pixels == theirs.pixels
    assert mine.values == pytest.approx(theirs.values, rel=tolerance, nan_ok=True)
    for name, values in mine.bands.items():
        assert values == pytest.approx(theirs.bands[name], rel=tolerance, nan_ok=True), name


def whole_block(x, y) -> Block:
    return Block(x, y, np.ones(x.shape, bool), Area.whole(x.shape[1:]), np.full(len(x), RANGE))


def whole_scores(x, y, valid=None, convention=CONVENTION):
    return scores(block_statistics(x, y, valid, convention=convention), convention)


@pytest.mark.parametrize("size", [(200, 187), (64, 64)])
def test_psnr_and_ssim_agree_with_scikit_image(size):
    x, y = pair(2, *size)
    mine = whole_scores(x, y)
    for band in range(2):
        psnr = skimage.metrics.peak_signal_noise_ratio(x[band], y[band], data_range=RANGE)
        ssim = skimage.metrics.structural_similarity(
            x[band], y[band], data_range=RANGE, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert mine.bands["psnr"][band] == pytest.approx(psnr, rel=1e-9)
        assert mine.bands["ssim"][band] == pytest.approx(ssim, rel=1e-6)
    assert mine["psnr"] == pytest.approx(skimage.metrics.peak_signal_noise_ratio(x, y, data_range=RANGE), rel=1e-9)
    assert mine["rmse"] == pytest.approx(np.sqrt(skimage.metrics.mean_squared_error(x, y)), rel=1e-9)


def test_vif_agrees_with_sewar_and_torchmetrics():
    x, y = pair(1, 160, 131)
    scaled = [v * 255 / RANGE for v in (x, y)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = sewar.vifp(scaled[0][0], scaled[1][0])
    third = float(tm.visual_information_fidelity(*(torch.tensor(v[None]) for v in reversed(scaled))))
    mine = whole_scores(x, y)["vif"]
    assert mine == pytest.approx(third, rel=1e-6)
    assert mine == pytest.approx(other, rel=1e-6)


def test_ms_ssim_agrees_with_sewar_terms_on_exact_means():
    # sewar's own pyramid is shifted by half a pixel; torchmetrics' last scale includes reflected borders.
    # So the terms come from sewar, scale by scale, on the means that torch's avg_pool2d makes.
    x, y = pair(1, 200, 187)
    weights, value = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333], 1.0
    a, b = torch.tensor(x), torch.tensor(y)
    for level, weight in enumerate(weights):
        if level:
            a, b = (torch.nn.functional.avg_pool2d(v, 2) for v in (a, b))
        ssim, structure = sewar.ssim(
            a[0].numpy(),
            b[0].numpy(),
            ws=11,
            MAX=RANGE,
            mode="valid",
            fltr_specs={"fltr": sewar.utils.Filter.GAUSSIAN, "sigma": 1.5, "ws": 11},
        )
        value *= (ssim if level == 4 else structure) ** weight
    assert whole_scores(x, y)["ms_ssim"] == pytest.approx(value, rel=1e-6)


def test_ms_ssim_of_a_small_image_uses_the_scales_that_fit():
    x, y = pair(1, 64, 64)  # windows of 11 fit on 64, 32 and 16 pixels
    mine = similarity_sums(whole_block(x, y))
    assert (mine.windows[:, 0] > 0).tolist() == [True, True, True, False, False]
    assert mine.ms_ssim[0] == pytest.approx(
        np.prod(
            np.array([mine.structure[0, 0] / 54**2, mine.structure[1, 0] / 22**2, mine.ssim[2, 0] / 6**2])
            ** (np.array([0.0448, 0.2856, 0.3001]) / (0.0448 + 0.2856 + 0.3001))
        )
    )


def test_sam_and_ergas_agree_with_torchmetrics_and_sewar():
    x, y = pair(4, 90, 70)
    a, b = torch.tensor(x[None]), torch.tensor(y[None])
    mine = whole_scores(x, y)
    assert mine["sam"] == pytest.approx(np.degrees(float(tm.spectral_angle_mapper(b, a))), rel=1e-6)
    assert mine["sam"] == pytest.approx(np.degrees(sewar.sam(x.transpose(1, 2, 0), y.transpose(1, 2, 0))), rel=1e-6)
    # torchmetrics divides by the ratio of pixel sizes like us; sewar multiplies by its inverse.
    ergas = tm.error_relative_global_dimensionless_synthesis(b, a, ratio=2)
    assert mine["ergas"] == pytest.approx(float(ergas), rel=1e-6)
    assert mine["ergas"] == pytest.approx(sewar.ergas(x.transpose(1, 2, 0), y.transpose(1, 2, 0), r=0.5), rel=1e-6)


def test_texture_agrees_with_scikit_image_and_pywavelets():
    x, _ = pair(1, 120, 96)
    texture = texture_sums(whole_block(x, x))
    relative = x[0] / RANGE
    rows, columns = (skimage.filters.sobel(relative, axis=axis)[1:-1, 1:-1] for axis in (0, 1))
    blurred = skimage.filters.gaussian(relative, sigma=1.5, truncate=3.5)
    assert texture.tenengrad[0] == pytest.approx((rows**2 + columns**2).mean(), rel=1e-9)
    assert texture.high_frequency[0] == pytest.approx(((relative - blurred)[5:-5, 5:-5] ** 2).mean(), rel=1e-9)
    assert texture.rms_contrast[0] == pytest.approx(relative.std(), rel=1e-9)
    diagonal = pywt.dwt2(relative, "haar")[1][2]
    assert texture.noise[0] == pytest.approx(np.median(np.abs(diagonal)) / 0.67449, rel=0.02)
    # The octave energies are the Haar detail energies: by Parseval a quarter of their mean square a pixel.
    details = pywt.dwt2(relative, "haar")[1]
    energy = sum((d**2).mean() for d in details) / 4
    assert texture.octaves[0, 0] / texture.cells[0, 0] == pytest.approx(energy, rel=1e-9)


def test_noise_and_snr_find_the_noise_that_was_added():
    noisy = 0.2 + 0.01 * np.random.default_rng(0).standard_normal((1, 300, 300))
    texture = texture_sums(whole_block(noisy, noisy))
    assert texture.noise[0] * RANGE == pytest.approx(0.01, rel=0.02)
    assert texture.signal_to_noise[0] == pytest.approx(20, rel=0.02)


def test_contrast_ratios_follow_a_contrast_stretch():
    x, _ = pair(2)
    mean = x.mean(axis=(1, 2), keepdims=True)
    mine = whole_scores(x, mean + 1.5 * (x - mean))
    assert (mine["rms_contrast"], mine["visible_contrast"]) == pytest.approx((1.5, 1.5))
    assert (mine["tenengrad"], mine["high_frequency"]) == pytest.approx((2.25, 2.25))


def test_coarse_rmse_sees_only_what_survives_the_mean_of_cells():
    x, _ = pair(1, 64, 64)
    checker = np.indices((64, 64)).sum(axis=0) % 2 * 0.02 - 0.01
    assert whole_scores(x, x + checker)["coarse_rmse"] == pytest.approx(0, abs=1e-15)
    assert whole_scores(x, x + 0.01)["coarse_rmse"] == pytest.approx(0.01)


cuts = st.lists(st.integers(1, 219), max_size=2, unique=True).map(sorted)


@settings(max_examples=12, deadline=None)
@given(rows=cuts, columns=cuts, seed=st.integers(0, 99), holes=st.integers(0, 3))
def test_sums_over_any_partition_in_any_order_equal_the_whole(rows, columns, seed, holes):
    x, y = pair(2, 220, 220, seed)
    valid = np.ones(x.shape, bool)
    rng = np.random.default_rng(seed)
    for _ in range(holes):
        row, column = rng.integers(0, 200, 2)
        valid[rng.integers(0, 2), row : row + 9, column : column + 20] = False
    expected = whole_scores(x, y, valid)
    total = by_blocks(x, y, valid, [0, *rows, 220], [0, *columns, 220], order=rng.permutation)
    assert_same(scores(total, CONVENTION), expected)


def test_a_window_that_touches_a_hole_is_left_out():
    x, y = pair(1, 80, 80)
    holes = np.ones((80, 80), bool)
    holes[30, 40] = False
    holed = y.copy()
    holed[0, 30, 40] = 1e6
    mine = whole_scores(x, holed, holes)
    full = skimage.metrics.structural_similarity(
        x[0], y[0], data_range=RANGE, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )[1]
    inside = np.zeros((80, 80), bool)
    inside[5:-5, 5:-5] = True
    inside[25:36, 35:46] = False
    assert mine["ssim"] == pytest.approx(full[inside].mean(), rel=1e-6)
    assert mine.pixels == 80 * 80 - 1


def test_identical_images_are_perfect():
    x, _ = pair(3)
    mine = whole_scores(x, x)
    assert mine["psnr"] == mine["psnr_mean"] == float("inf")
    assert (mine["mae"], mine["rmse"], mine["sam"], mine["ergas"], mine["coarse_rmse"]) == (0, 0, 0, 0, 0)
    assert (mine["ssim"], mine["ms_ssim"]) == pytest.approx((1, 1))
    assert mine["vif"] == pytest.approx(1, rel=1e-6)
    assert (mine["tenengrad"], mine["visible_contrast"]) == (1, 1)


def test_constant_images_have_errors_but_no_information():
    mine = whole_scores(np.full((1, 64, 64), 0.2), np.full((1, 64, 64), 0.21))
    assert mine["psnr"] == pytest.approx(-20 * np.log10(0.01 / RANGE))
    assert 0 < mine["ssim"] < 1
    assert np.isnan(mine["vif"])
    assert np.isnan(mine["tenengrad"])


def test_nothing_valid_is_nan_not_an_exception():
    nothing = np.full((2, 64, 64), np.nan)
    mine = whole_scores(nothing, nothing)
    assert mine.pixels == 0
    assert all(np.isnan(value) for value in mine.values.values())


def test_nan_in_one_image_is_left_out_of_both():
    x, y = pair(2, 64, 64)
    y[0, :10] = np.nan
    assert whole_scores(x, y).bands["rmse"][0] == pytest.approx(np.sqrt(((x - y)[0, 10:] ** 2).mean()))


def test_images_too_small_for_a_window_still_have_pixel_scores():
    x, y = pair(1, 7, 9)
    mine = whole_scores(x, y)
    assert np.isfinite(mine["psnr"])
    assert np.isnan(mine["ssim"]) and np.isnan(mine["vif"]) and np.isnan(mine["ms_ssim"])


def test_data_range_per_band():
    x, y = pair(2, 64, 64)
    mine = whole_scores(x, y, convention=Convention(data_range=(0.3, 0.6)))
    single = [whole_scores(x[b : b + 1], y[b : b + 1], convention=Convention(r)) for b, r in enumerate((0.3, 0.6))]
    assert mine.bands["psnr"] == pytest.approx([s["psnr"] for s in single])
    assert mine.bands["ssim"] == pytest.approx([s["ssim"] for s in single])


def test_pixel_scores_alone_need_no_windows():
    x, y = pair(2, 64, 64)
    mine = whole_scores(x, y, convention=Convention(RANGE, names=pixel_names()))
    assert mine["psnr"] == pytest.approx(whole_scores(x, y)["psnr"])
    assert "ssim" not in mine.values and "sam" in mine.values


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: block_statistics(np.zeros((1, 4, 4)), np.zeros((1, 4, 5))), "one shape"),
        (lambda: block_statistics(np.zeros((4, 4)), np.zeros((4, 4))), "one shape"),
        (lambda: Convention(data_range=0), "data range"),
        (lambda: Convention(data_range=(0.3, float("nan"))), "data range"),
        (lambda: Convention(ratio=0), "ratio"),
        (lambda: Convention(names=("psnr", "sharpness")), "unknown score 'sharpness'; known are "),
        (lambda: Convention((0.3, 0.3)).ranges(3), "one a band \\(3\\), got 2"),
        (lambda: Area.around((0, 0, 9, 9), (8, 8)), "does not lie"),
        (lambda: Area((3, 0), (8, 8), (0, 0, 8, 8)), "multiples"),
        (lambda: block_statistics(*pair(1, 32, 32), area=Area.whole((64, 64))), "area"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_halving_cuts_the_odd_rest_and_spreads_holes():
    assert halve(np.arange(15.0).reshape(3, 5)).tolist() == [[3, 5]]
    assert halve(np.array([[True, True, True, False], [True, True, True, True]])).tolist() == [[True, False]]
