"""Classical methods against Pillow, torch, scipy and scikit-image, and their halos against whole images."""

import pickle

import numpy as np
import pytest
import scipy.signal
import torch
from PIL import Image
from scipy import ndimage
from skimage import restoration

from scenelift.models.classical import CLASSICAL, filters
from scenelift.models.classical.classical import FILTERS, SEAM_ERROR, classical
from scenelift.models.classical.resampling import decimate, mtf_reach, upsample
from scenelift.models.degradations import mtf_decimate
from scenelift.models.errors import ModelError

RESAMPLERS = [name for name, scaled in CLASSICAL.items() if scaled]


def image(height: int = 96, width: int = 96, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal((height, width)), 2)
    return (0.2 + 0.3 * smooth + 0.01 * rng.standard_normal((height, width))).astype(np.float32)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_interpolation_agrees_with_pillow(name, scale):
    x = image(40, 37)
    mine = classical(name, scale)
    halo = mine.spec.halo
    core = mine(np.pad(x, halo)[None, None] if halo else x[None, None])[0, 0]
    theirs = np.asarray(Image.fromarray(x).resize((37 * scale, 40 * scale), getattr(Image.Resampling, name.upper())))
    inside = slice(3 * scale, -3 * scale)  # Pillow renormalizes at the edges
    np.testing.assert_allclose(core[inside, inside], theirs[inside, inside], atol=2e-7)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_decimation_is_the_one_the_networks_are_trained_with(scale):
    x = image(60, 72)
    reach = mtf_reach(0.26, scale)
    theirs = mtf_decimate(torch.from_numpy(x)[None, None], scale, 0.26)[0, 0].numpy()
    mine = decimate(x, scale, 0.26)
    np.testing.assert_allclose(mine, theirs[reach:-reach, reach:-reach], atol=2e-7)


@pytest.mark.parametrize("scale", [2, 4])
def test_back_projection_comes_nearer_to_the_truth_and_to_the_input(scale):
    truth = ndimage.gaussian_filter(image(256, 256), 1.2)
    coarse = decimate(np.pad(truth, 2 * mtf_reach(0.26, scale) * scale, mode="reflect"), scale, 0.26)
    reach = (coarse.shape[0] - 256 // scale) // 2
    errors, residuals = [], []
    for method in (classical("bicubic", scale), classical("ibp", scale, steps=3)):
        halo = method.spec.halo
        fine = method(np.pad(coarse, halo, mode="reflect")[None, None])[0, 0]
        back = decimate(fine, scale, 0.26)
        blur = mtf_reach(0.26, scale)
        residuals.append(np.abs(back - coarse[blur:-blur, blur:-blur])[8:-8, 8:-8].max())
        inner = fine[reach * scale : reach * scale + 256, reach * scale : reach * scale + 256]
        errors.append(np.sqrt(np.mean((inner - truth)[32:-32, 32:-32] ** 2)))
    assert errors[1] < 0.9 * errors[0]
    assert residuals[1] < 0.3 * residuals[0]


def tiled(method, x: np.ndarray, patch: int) -> np.ndarray:
    """Run a method patch by patch, mirrored at the scene's edge."""
    h, k = method.spec.halo, method.spec.scale
    padded = np.pad(x, h, mode="reflect")
    out = np.empty((x.shape[0] * k, x.shape[1] * k), np.float32)
    for i in range(0, x.shape[0], patch):
        for j in range(0, x.shape[1], patch):
            core = method(padded[None, None, i : i + patch + 2 * h, j : j + patch + 2 * h])[0, 0]
            out[i * k : (i + patch) * k, j * k : (j + patch) * k] = core
    return out


@pytest.mark.parametrize("name", [*RESAMPLERS, *FILTERS])
def test_tiles_agree_with_one_pass(name):
    x = image(96, 96)
    method = classical(name, 2 if CLASSICAL[name] else 1)
    whole, parts = tiled(method, x, 96), tiled(method, x, 24)
    if method.spec.halo_kind == "exact":
        np.testing.assert_array_equal(parts, whole)
    else:
        assert np.abs(parts - whole).max() <= SEAM_ERROR[name]


@pytest.mark.parametrize("name", [n for n in [*RESAMPLERS, *FILTERS] if n not in ("nearest", *SEAM_ERROR)])
def test_an_exact_halo_is_no_larger_than_what_is_looked_at(name):
    method = classical(name, 2 if CLASSICAL[name] else 1, **({"steps": 3} if name in ("ibp", "tv") else {}))
    x = image(40, 40)
    h, far = method.spec.halo, x.copy()
    base = tiled(method, x, 40)
    rows = []
    for row in (20 + h, 20 + h + 1):
        far = x.copy()
        far[row] += {"median": -9, "ibp": np.nan}.get(name, 0.005)
        changed = tiled(method, far, 40) != base
        k = method.spec.scale
        rows.append(changed[20 * k : 20 * k + k].any())
    assert rows == [True, False]


def test_bilateral_is_its_formula():
    # scikit-image is no oracle here: its table of spatial weights is off centre for odd windows (0.26).
    x = image(24, 24).astype(np.float64)
    mine = filters.bilateral(x, 0.01, color=2.0, spatial=1.5, radius=4)
    for row, column in ((12, 12), (7, 15), (19, 4)):
        total = weights = 0.0
        for i in range(row - 4, row + 5):
            for j in range(column - 4, column + 5):
                space = ((i - row) ** 2 + (j - column) ** 2) / (2 * 1.5**2)
                weight = np.exp(-space - (x[i, j] - x[row, column]) ** 2 / (2 * 0.02**2))
                total, weights = total + weight * x[i, j], weights + weight
        assert mine[row, column] == pytest.approx(total / weights, rel=1e-12)


def test_wiener_agrees_with_scipy():
    x = image().astype(np.float64)
    theirs = scipy.signal.wiener(x, mysize=5, noise=0.01**2)
    np.testing.assert_allclose(filters.wiener(x, 0.01, size=5, gain=1.0)[4:-4, 4:-4], theirs[4:-4, 4:-4], atol=1e-12)


def test_wavelet_without_shifts_is_scikit_images():
    x = image().astype(np.float64)
    theirs = restoration.denoise_wavelet(
        x, sigma=0.01, wavelet="sym4", method="BayesShrink", mode="soft", wavelet_levels=2, rescale_sigma=False
    )
    np.testing.assert_array_equal(filters.wavelet(x, 0.01, family="sym4", shifts=0), theirs)


@pytest.mark.parametrize("name", ["bilateral", "wavelet", "nlm", "tv", "wiener", "median"])
def test_filters_remove_noise_and_leave_a_constant_alone(name):
    method = classical(name, sigma=0.02)
    clean = ndimage.gaussian_filter(image(160, 160), 2)
    noisy = clean + 0.02 * np.random.default_rng(1).standard_normal(clean.shape).astype(np.float32)
    after, before = tiled(method, noisy, 160) - clean, noisy - clean
    assert np.sqrt((after**2).mean()) < 0.75 * np.sqrt((before**2).mean())
    flat = np.full((1, 1, 160, 160), 0.25, np.float32)
    np.testing.assert_allclose(method(flat), 0.25, atol=1e-6)


def test_lee_removes_speckle():
    rng = np.random.default_rng(0)
    clean = 0.2 + 0.05 * ndimage.gaussian_filter(rng.standard_normal((160, 160)), 6) * 10
    speckled = (clean * rng.gamma(4, 1 / 4, clean.shape)).astype(np.float32)
    after = tiled(classical("lee", looks=4), speckled, 160) - clean
    assert np.sqrt((after**2).mean()) < 0.4 * np.sqrt(((speckled - clean) ** 2).mean())


def test_every_band_gets_its_own_noise_level():
    x = np.stack([image(60, 60), image(60, 60, seed=1)])[None]
    both = classical("bilateral", sigma=(0.01, 0.03))(x)
    for band, sigma in enumerate((0.01, 0.03)):
        np.testing.assert_array_equal(
            both[:, band : band + 1], classical("bilateral", sigma=sigma)(x[:, band : band + 1])
        )


@pytest.mark.parametrize("name", ["bilateral", "wavelet", "nlm", "tv", "wiener"])
def test_without_noise_nothing_changes(name):
    method = classical(name, sigma=0.0)
    x = image(100, 100)[None, None]
    h = method.spec.halo
    np.testing.assert_array_equal(method(x), x[..., h:-h, h:-h])


@pytest.mark.parametrize("name", list(CLASSICAL))
def test_methods_survive_pickling(name):
    method = classical(name, 3 if CLASSICAL[name] else 1)
    assert pickle.loads(pickle.dumps(method)) == method


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classical("bm3d"), "unknown method"),
        (lambda: classical("lanczos"), "scale of at least 2"),
        (lambda: classical("median", 2), "keeps the scale"),
        (lambda: classical("median", sigma=float("nan")), "noise level"),
        (lambda: classical("median", size=3, width=1), "no parameter 'width'"),
        (lambda: classical("bicubic", 2, steps=1), "takes no parameters"),
        (lambda: classical("ibp", 2, mtf=1.5), "mtf"),
        (lambda: classical("tv", sigma=(0.1, 0.2))(np.zeros((1, 3, 80, 80), np.float32)), "2 noise levels"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ModelError, match=message):
        make()


def test_upsampling_a_ramp_is_exact_at_pixel_areas():
    ramp = np.arange(12, dtype=np.float32)[None, :].repeat(12, axis=0)
    fine = upsample(ramp, 2, "bicubic")
    np.testing.assert_allclose(fine[0], np.arange(16) / 2 - 0.25 + 2, atol=1e-6)
