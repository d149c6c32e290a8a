"""Sharpening of coarse bands: exact under tiling, and true to what the coarse band saw."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from scenelift.models.errors import ModelError
from scenelift.models.networks.layers import crop
from scenelift.models.networks.sharpener import GUIDES as NM
from scenelift.models.networks.sharpener import DetailNetwork
from scenelift.models.precision import to_precision
from scenelift.models.sharpening.closed import ClosedForm
from scenelift.models.sharpening.filters import blur, interpolation
from scenelift.models.sharpening.fitting import fit, shift_of_guides
from scenelift.models.sharpening.layout import BandGrid, check_layout, period
from scenelift.models.sharpening.local import RIDGE, SPREAD, WINDOW, LocalGains
from scenelift.models.sharpening.network import Sharpener
from scenelift.models.sharpening.projection import Projection, mirrored, observe, replicate

GUIDES = (BandGrid(1, mtf=0.3, name="B03"), BandGrid(1, mtf=0.3, name="B04"))
TWICE = BandGrid(2, 0.5, 0.5, 0.3, "B11")
ASIDE = BandGrid(2, 1.5, 0.5, 0.3, "B12")
SIX = BandGrid(6, 2.5, 2.5, 0.3, "B09")
LANDSAT = BandGrid(2, 0.0, 0.0, 0.3, "red")
LAYOUTS = ((*GUIDES, TWICE), (*GUIDES, ASIDE, TWICE), (*GUIDES, TWICE, SIX), (GUIDES[0], LANDSAT))


def texture(bands: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    fine = ndimage.gaussian_filter(rng.standard_normal((bands, height, width)), (0, 0.8, 0.8))
    broad = ndimage.gaussian_filter(rng.standard_normal((bands, height, width)), (0, 5, 5))
    return (0.3 + 0.05 * fine + 0.5 * broad).astype(np.float32)


def scene(layout, height: int, width: int, seed: int = 0, mix: float = 0.0):
    """Return a scene as a sharpener gets it, the fine truth of its bands, and the weights that made it.

    ``mix``: how much of a coarse band no guide knows.
    """
    count = sum(band.ratio == 1 for band in layout)
    guides = texture(count, height, width, seed)
    weights = np.random.default_rng(seed + 1).uniform(-0.5, 1, (len(layout) - count, count))
    truth = np.tensordot(weights, guides, 1) + mix * texture(len(weights), height, width, seed + 2)
    truth = truth.astype(np.float32)
    parts = [guides]
    for band, fine in zip(layout[count:], truth, strict=True):
        parts.append(replicate(seen(fine, band), band, fine.shape))
    return np.concatenate(parts), truth, weights


def seen(fine: np.ndarray, band: BandGrid) -> np.ndarray:
    rows, cols = (
        math.floor((side - 1 - at) / band.ratio) + 1 for side, at in zip(fine.shape, (band.row, band.col), strict=True)
    )
    return observe(fine[None], [band], (rows, cols))


def whole(module, images: np.ndarray) -> np.ndarray:
    """Run a sharpener over a whole image, mirrored at its edges."""
    step = period(module.layout)
    after = [module.halo + (-side) % step for side in images.shape[1:]]
    with torch.no_grad():
        found = module(torch.from_numpy(mirrored(images, module.halo, (after[0], after[1])))[None])[0]
    return found[:, : images.shape[1], : images.shape[2]].numpy()


def sharpeners(layout, images):
    torch.manual_seed(0)
    coefficients = fit([images], layout)
    network = DetailNetwork(sum(b.ratio == 1 for b in layout), 8, 1, valid=True).eval()
    with torch.no_grad():
        network.tail.weight.mul_(100)
    return ClosedForm(layout, coefficients), Sharpener(layout, coefficients, network)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("which", [0, 1])
def test_a_patch_with_its_halo_is_the_whole(layout, which):
    step = period(layout)
    images, *_ = scene(layout, 30 * step, 26 * step, mix=0.3)
    module = sharpeners(layout, images)[which]
    full, halo = whole(module, images), module.halo
    wide = torch.from_numpy(mirrored(images, halo, (halo, halo)))
    for row, col, height, width in ((0, 0, 4, 6), (5, 3, 6, 4), (26, 22, 4, 4)):
        row, col, height, width = (step * v for v in (row, col, height, width))
        with torch.no_grad():
            core = module(wide[None, :, row : row + height + 2 * halo, col : col + width + 2 * halo])[0].numpy()
        np.testing.assert_allclose(core, full[:, row : row + height, col : col + width], rtol=0, atol=2e-6)
    count = sum(band.ratio == 1 for band in layout)
    np.testing.assert_array_equal(full[:count], images[:count])


@pytest.mark.parametrize("which", [0, 1])
def test_nothing_beyond_the_halo_is_looked_at(which):
    layout = (*GUIDES, TWICE, SIX)
    images, *_ = scene(layout, 96, 96)
    module = sharpeners(layout, images)[which]
    halo = module.halo
    wide = mirrored(images, halo, (halo, halo))
    wide = np.pad(wide, ((0, 0), (6, 6), (6, 6)), constant_values=np.nan)
    with torch.no_grad():
        core = module(torch.from_numpy(wide)[None])[0, :, 6:-6, 6:-6].numpy()
    assert np.isfinite(core).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_guides_explain_is_found_exactly(layout):
    images, truth, weights = scene(layout, 240, 240)
    coefficients = fit([images], layout)
    np.testing.assert_allclose(coefficients["regression"], weights, atol=2e-3)
    found = whole(ClosedForm(layout, coefficients), images)
    inner = (slice(None), slice(30, -30), slice(30, -30))
    count = len(images) - len(truth)
    assert np.abs(found[count:][inner] - truth[inner]).max() < 2e-3


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("which", [0, 1])
def test_the_sensor_would_see_what_it_saw_whatever_the_guides_say(layout, which):
    images, truth, _ = scene(layout, 144, 144, mix=1.0)
    found = whole(sharpeners(layout, images)[which], images)
    count = len(images) - len(truth)
    for band, mine, theirs in zip(layout[count:], found[count:], truth, strict=True):
        error = (seen(mine, band) - seen(theirs, band))[0, 6:-6, 6:-6]
        missed = seen(theirs, band).std()
        assert np.sqrt((error**2).mean()) < 0.01 * missed


@given(
    mtf=st.floats(0.1, 0.6),
    ratio=st.integers(2, 6),
    row=st.integers(0, 11),
    col=st.integers(0, 11),
    seed=st.integers(0, 5),
)
@settings(max_examples=20, deadline=None)
def test_observation_is_the_gaussian_of_its_mtf_at_the_pixels_centres(mtf, ratio, row, col, seed):
    band = BandGrid(ratio, (row % (2 * ratio)) / 2, (col % (2 * ratio)) / 2, mtf)
    rng = np.random.default_rng(seed)
    fine = rng.standard_normal((18 * ratio, 20 * ratio)).astype(np.float32)
    found = observe(fine[None], [band], (18, 20))[0]
    sigma = ratio * math.sqrt(-2 * math.log(mtf)) / math.pi
    rows = np.arange(18 * ratio) - (band.row + ratio * 9)
    cols = np.arange(20 * ratio) - (band.col + ratio * 10)
    weights = np.exp(-(rows[:, None] ** 2 + cols**2) / (2 * sigma**2))
    expected = (weights * fine).sum() / weights.sum()
    assert found[9, 10] == pytest.approx(expected, abs=3e-3)


def test_the_transfer_at_nyquist_is_the_mtf():
    for ratio, centre in ((2, 0.5), (2, 0.0), (6, 2.5), (3, 1.0)):
        taps = blur(0.25, ratio, centre)
        at = np.arange(taps.first, taps.first + len(taps.weights)) - centre
        assert np.cos(np.pi * at / ratio) @ taps.weights == pytest.approx(0.25, abs=5e-3)


def test_interpolation_undoes_the_blur():
    for ratio, centre in ((2, 0.5), (2, 1.5), (2, 0.0), (6, 2.5)):
        for mtf in (0.22, 0.38):
            weights = interpolation(mtf, ratio, centre)
            np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-9)
            lone = np.zeros((1, 25, 25), np.float32)
            lone[0, 12, 12] = 1
            band = BandGrid(ratio, centre, centre, mtf)
            layout = (BandGrid(1), band)
            images = np.zeros((2, 25 * ratio, 25 * ratio), np.float32)
            images[1] = replicate(lone, band, images.shape[1:])[0]
            none = {"regression": [[0.0]], "context": [[[0.0]]], "guide_level": [0.0], "guide_spread": [0.0]}
            back = seen(whole(ClosedForm(layout, none), images)[1], band)[0]
            assert np.abs(back[:25, :25] - lone[0, : back.shape[0], : back.shape[1]]).max() < 0.03


def silent(count: int) -> DetailNetwork:
    """Return a network that adds nothing."""
    network = DetailNetwork(count, 4, 1, valid=True).eval()
    with torch.no_grad():
        network.tail.weight.zero_()
    return network


def test_a_band_that_follows_its_guide_otherwise_in_another_field_is_found_there():
    layout = (GUIDES[0], TWICE)
    guide = texture(1, 192, 192)[0]
    slope = np.where(np.arange(192) < 96, 1.0, -0.6)
    fine = (0.3 + (guide - ndimage.gaussian_filter(guide, 2.5)) * slope).astype(np.float32)
    images = np.stack([guide, replicate(seen(fine, TWICE), TWICE, fine.shape)[0]])
    coefficients = fit([images], layout)
    errors = []
    for module in (ClosedForm(layout, coefficients), Sharpener(layout, coefficients, silent(1))):
        left = whole(module, images)[1] - fine
        errors.append(float(np.sqrt((np.delete(left, slice(76, 116), 1)[12:-12] ** 2).mean())))
    assert errors[1] < 0.6 * errors[0]


def test_local_gains_are_a_ridge_regression_in_a_window():
    layout = (*GUIDES, TWICE)
    images, *_ = scene(layout, 96, 96, mix=0.5)
    wide = torch.from_numpy(images)[None]
    module = LocalGains([TWICE], GUIDES)
    seen_pixels = crop(wide[:, 2:, ::2, ::2], module.margin)
    detail, _ = module.levels(seen_pixels, wide[:, :2])
    gains, scale = torch.zeros_like(detail[:, :, 1:]), torch.full((1, 2, 1, 1), 0.02)
    found = module.changes(detail, gains, scale)[0, 0].numpy()
    at = np.arange(-WINDOW, WINDOW + 1)
    weight = np.exp(-(at[:, None] ** 2 + at**2) / (2 * SPREAD**2))
    weight = (weight / weight.sum()).ravel()
    values = detail[0, 0].numpy().astype(np.float64)
    for row, col in ((WINDOW, WINDOW), (13, 9), (7, 20)):
        cut = values[:, row - WINDOW : row + WINDOW + 1, col - WINDOW : col + WINDOW + 1].reshape(3, -1)
        x = cut[1:] / 0.02
        wanted = np.linalg.solve((x * weight) @ x.T + RIDGE * np.eye(2), (x * weight) @ cut[0])
        np.testing.assert_allclose(found[:, row - WINDOW, col - WINDOW], wanted, rtol=1e-3, atol=1e-6)


def test_the_smooth_level_is_the_mean_of_what_is_interpolated_at_every_phase():
    image = np.random.default_rng(0).standard_normal((1, 64, 64))
    lower = Projection([BandGrid(2, 0.5, 0.5, TWICE.mtf)], 3).double()
    level = np.zeros((64, 64))
    for move in ((0, 0), (0, 1), (1, 0), (1, 1)):
        wide = np.pad(np.roll(image, move, (1, 2)), ((0, 0), (lower.halo,) * 2, (lower.halo,) * 2), mode="wrap")
        found = lower.interpolate(lower.observe(torch.from_numpy(wide)[None]))[0, 0].numpy()
        level += np.roll(found, (-move[0], -move[1]), (0, 1)) / 4
    taps = LocalGains([TWICE], GUIDES[:1]).get_buffer("level")[0].double().numpy()
    ours = ndimage.correlate1d(ndimage.correlate1d(image[0], taps, 0, mode="wrap"), taps, 1, mode="wrap")
    assert (ours - level).std() < 0.03 * (image[0] - level).std()  # the taps are cut


def test_guides_go_by_their_wavelengths_and_others_are_refused():
    colours = [BandGrid(1, mtf=0.25, name=f"{nm:g} nm", wavelength=nm) for nm in NM]
    layout = (*colours, TWICE)
    images, *_ = scene(layout, 72, 72, mix=0.3)
    torch.manual_seed(0)
    network = DetailNetwork(4, 8, 1, valid=True).eval()
    with torch.no_grad():
        network.tail.weight.mul_(100)
    order = [3, 1, 0, 2]
    turned, mixed = [*(layout[i] for i in order), TWICE], images[[*order, 4]]
    one = whole(Sharpener(layout, fit([images], layout), network), images)[4]
    other = whole(Sharpener(turned, fit([mixed], turned), network), mixed)[4]
    np.testing.assert_allclose(one, other, atol=2e-5)
    wrong = (BandGrid(1, mtf=0.25, name="B05", wavelength=704), *layout[1:])
    with pytest.raises(ModelError, match=r"guides near 493, 560, 665, 833 nm, .* lies at \d+ nm; use"):
        Sharpener(wrong, fit([images], wrong), network)


def test_bands_that_are_constant_stay_so_up_to_the_edge():
    layout = (*GUIDES, TWICE, SIX)
    images, *_ = scene(layout, 60, 72)
    images[2:] = 0.25
    coefficients = fit([images], layout)
    assert np.abs(np.array(coefficients["regression"])).max() < 1e-3
    np.testing.assert_allclose(whole(ClosedForm(layout, coefficients), images)[2:], 0.25, atol=1e-5)


def test_a_shift_of_the_guides_by_one_pixel_is_seen_and_none_is_invented():
    layout = (*GUIDES, TWICE, ASIDE)
    images, *_ = scene(layout, 160, 160, mix=0.1)
    assert shift_of_guides([images], layout) == []
    moved = images.copy()
    moved[:2] = np.roll(images[:2], (1, -1), (1, 2))
    lines = shift_of_guides([moved], layout)
    assert len(lines) == 2
    assert lines[0].startswith("guides seem shifted by (+1, -1) pixels against B11:")


def test_missing_pixels_are_left_out_of_the_fit():
    layout = (*GUIDES, TWICE)
    images, _, weights = scene(layout, 240, 240)
    holed = images.copy()
    holed[0, 50:70, 60:90] = np.nan
    holed[2, 100:120, 100:140] = np.nan
    np.testing.assert_allclose(fit([holed], layout)["regression"], weights, atol=2e-3)
    nothing = fit([np.full_like(images, np.nan)], layout)
    assert nothing["regression"] == [[0.0, 0.0]]
    assert nothing["level"] == [0.0]
    wrong = images.copy()
    wrong[:, 50:70, 60:90] = 9.0
    assert not np.allclose(fit([wrong], layout)["regression"], weights, atol=2e-3)


def test_a_fit_does_not_depend_on_how_samples_are_cut_by_much_and_small_ones_are_enough():
    layout = (*GUIDES, TWICE)
    images, _, weights = scene(layout, 240, 240)
    parts = [images[:, r : r + 48, c : c + 48] for r in (0, 96, 192) for c in (0, 96, 192)]
    np.testing.assert_allclose(fit(parts, layout)["regression"], weights, atol=0.05)
    assert fit([images], layout) == fit([images.copy()], layout)


def test_reduced_precision_touches_neither_guides_nor_the_closed_form():
    layout = (*GUIDES, TWICE)
    images, *_ = scene(layout, 64, 64)
    closed, network = sharpeners(layout, images)
    halo = closed.halo
    x = torch.from_numpy(mirrored(images, halo, (halo, halo)))[None]
    with torch.no_grad():
        assert torch.equal(to_precision(closed, "bf16")(x), closed(x))
        halo = network.halo
        x = torch.from_numpy(mirrored(images, halo, (halo, halo)))[None]
        mixed, exact = to_precision(network, "bf16")(x), network(x)
    assert torch.equal(mixed[:, :2], exact[:, :2])
    assert 0 < (mixed - exact).abs().max() < 0.02


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BandGrid(0), "ratio must be an integer from 1 to 16"),
        (lambda: BandGrid(2, 0.25), "row must be a multiple of 0.5"),
        (lambda: BandGrid(2, 2.0), "from 0 to below 2"),
        (lambda: BandGrid(1, 0.5), "guide lies on the fine grid"),
        (lambda: BandGrid(2, mtf=1.5), "MTF at Nyquist"),
        (lambda: check_layout([TWICE]), "at least one band on the fine grid"),
        (lambda: check_layout(GUIDES), "nothing to sharpen"),
        (lambda: ClosedForm((*GUIDES, TWICE), {"regression": [[1.0]]}), "coefficients are for other bands"),
        (lambda: fit([np.zeros((2, 8, 8), np.float32)], (*GUIDES, TWICE)), "a sample must be"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ModelError, match=message):
        make()
