"""Methods fitted to a whole scene: what they do to an image, against direct computations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from scenelift.models.errors import ModelError
from scenelift.models.fitted import METHODS, parameters
from scenelift.models.fitted.running import fit, fitted_method, on_image
from scenelift.models.fitted.stripes import search
from scenelift.models.fitted.views import ImageView, pack, unpack


def scene(seed: int = 0, bands: int = 3, shape: tuple[int, int] = (300, 280)) -> np.ndarray:
    """A rough landscape: fields with edges, fine texture, a gradient."""
    random = np.random.default_rng(seed)
    rough = ndimage.gaussian_filter(random.normal(0, 1, (bands, *shape)), (0, 9, 9))
    fields = np.digitize(rough / rough.std(), (-0.8, 0, 0.8)) / 3
    texture = ndimage.gaussian_filter(random.normal(0, 1, (bands, *shape)), (0, 1.5, 1.5))
    image = 0.05 + 0.12 * fields + 0.02 * texture + 0.001 * random.normal(0, 1, (bands, *shape))
    return np.clip(image, 0.005, 1).astype(np.float32)


def test_stretch_spreads_between_percentiles_of_the_scene() -> None:
    image = scene()
    low, high = np.percentile(image, (2, 98), axis=(1, 2))
    wanted = np.clip((image - low[:, None, None]) / (high - low)[:, None, None], 0, 1)
    np.testing.assert_allclose(on_image("stretch", image), wanted, atol=1e-4)


def test_gamma_brings_the_median_to_the_middle() -> None:
    assert abs(float(np.mean([np.median(band) for band in on_image("gamma", scene())])) - 0.5) < 0.03


def test_clahe_with_one_tile_and_no_clipping_equalizes_the_histogram() -> None:
    out = on_image("clahe:tiles=1:clip=64", scene(bands=1, shape=(128, 128)))
    counts = np.histogram(out, 10, (0, 1))[0] / out.size
    assert np.abs(counts - 0.1).max() < 0.02


def test_clahe_raises_the_local_contrast_and_stays_in_order_in_a_spot() -> None:
    image = scene(bands=1)
    out = on_image("clahe", image)
    assert out.min() >= 0 and out.max() <= 1
    spread = on_image("stretch:low=0:high=100", image)
    here = (0, slice(30, 60), slice(30, 60))
    assert out[here].std() > spread[here].std()


def test_dark_object_takes_off_what_was_added() -> None:
    image = scene()
    image[:, :4, :4] = 0.01  # water or shade
    hazy = image + np.array([0.08, 0.05, 0.03], np.float32)[:, None, None]
    np.testing.assert_allclose(on_image("dark-object:percent=0.01", hazy), image, atol=2e-4)


def test_dark_channel_takes_off_haze() -> None:
    image = scene()
    image[:, ::12, ::12] = 0.005  # something dark in every window
    image[:, :16, :16] = 0.9  # and a cloud, which tells the airlight
    t = np.linspace(0.9, 0.6, image.shape[2], dtype=np.float32)
    hazy = image * t + 0.9 * (1 - t)
    out = on_image("dark-channel:strength=1", hazy)
    inner = (slice(None), slice(40, -40), slice(40, -40))
    before, after = (np.square(x[inner] - image[inner]).mean() for x in (hazy, out))
    assert after < 0.2 * before


def striped(image: np.ndarray, share: float, kind: str, seed: int = 1, slant: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    lines = random.normal(0, share, (len(image), image.shape[2] + 400))
    at = np.arange(image.shape[2])[None] + slant * np.arange(image.shape[1])[:, None] + 200
    low = np.floor(at).astype(int)
    off = lines[:, low] * (1 - (at - low)) + lines[:, low + 1] * (at - low)
    return (image * (1 + off) if kind == "gain" else image + 0.1 * off).astype(np.float32)


def stripe_energy(image: np.ndarray, axis: int = 1) -> float:
    """Energy of what all pixels of a line have more than its neighbours."""
    means = np.median(image, axis)
    return float(np.square(means - ndimage.gaussian_filter1d(means, 3, axis=1)).mean())


@pytest.mark.parametrize("kind", ["gain", "offset"])
def test_stripes_vanish_and_the_rest_stays(kind: str) -> None:
    image = scene(bands=1, shape=(600, 200))
    bad = striped(image, 0.02, kind)
    good = on_image("destripe", bad)
    before, after = (np.square(np.median(x - image, 1)).mean() for x in (bad, good))
    assert after < 0.15 * before
    clean = on_image("destripe", image)
    assert np.abs(clean - image).max() < 0.003


def alike(bands: int, shape: tuple[int, int] = (512, 240), seed: int = 0) -> np.ndarray:
    """Bands of one ground: in the left half brighter and darker together, in the right half against each other."""
    ground = scene(seed, 1, shape)[0]
    share = np.linspace(0.7, 1.3, bands)[:, None]
    sign = np.where(np.arange(bands) % 2, -1, 1)[:, None] * 0.6
    columns = np.where(np.arange(shape[1]) < shape[1] // 2, share, sign)
    noise = np.random.default_rng(seed + 1).normal(0, 5e-4, (bands, *shape))
    return (0.15 + columns[:, None] * (ground - ground.mean()) + noise).astype(np.float32)


def test_bands_that_show_the_same_ground_tell_their_stripes_by_each_other() -> None:
    image = alike(4)
    bad = striped(image, 0.01, "gain")
    left = []
    for good in (on_image("destripe", bad), np.concatenate([on_image("destripe", band[None]) for band in bad])):
        before, after = (np.square(np.median(x - image, 1)).mean() for x in (bad, good))
        left.append(after / before)
    assert left[0] < 0.1 and left[0] < 0.9 * left[1]


def test_a_scene_without_stripes_stays_and_so_do_bands_without() -> None:
    for image in (alike(1), alike(3), alike(5, (300, 200)), scene(seed=4)):
        assert np.sqrt(np.mean((on_image("destripe", image) / image - 1) ** 2)) < 1e-3
    image = alike(3)
    bad = image.copy()
    bad[1] = striped(image[1:2], 0.03, "gain")[0]
    good = on_image("destripe", bad)
    changed = [np.sqrt(np.mean((x / y - 1) ** 2)) for x, y in zip(good, image, strict=True)]
    assert max(changed[0], changed[2]) < 1e-3 and changed[1] < 0.01


def test_what_changes_slowly_across_the_lines_stays_though_all_rows_have_it() -> None:
    image = alike(3)
    at = np.linspace(0, 1, image.shape[2])
    image = (image * (1 + 0.2 * at + 0.05 * np.sin(9 * at))).astype(np.float32)
    bad = striped(image, 0.01, "gain")
    for given, most in ((image, 2e-4), (bad, 3e-3)):
        assert np.sqrt(np.mean((on_image("destripe", given) / image - 1) ** 2)) < most


def test_one_bad_line_is_a_stripe_and_a_straight_edge_of_the_ground_is_none() -> None:
    image = scene(bands=2, shape=(400, 200))
    image[:, :, 90:] *= 1.5
    bad = image.copy()
    bad[0, :, 50] *= 1.1
    good = on_image("destripe", bad)
    assert np.abs(np.median(good[0, :, 50] / image[0, :, 50]) - 1) < 0.04
    for out, ground in ((good[1], image[1]), (on_image("destripe", image)[0], image[0])):
        assert np.sqrt(np.mean((out / ground - 1) ** 2)) < 2e-3


def test_stripes_on_both_sides_of_a_gap() -> None:
    image = alike(2)
    bad = striped(image, 0.02, "gain")
    bad[:, :, 100:103] = np.nan
    bad[:, 300:, 180:] = np.nan
    made = fitted_method("destripe", fit("destripe", ImageView(bad)))
    good = made(np.nan_to_num(bad)[None], np.zeros((1, 2), np.int64))[0]
    known = np.isfinite(bad).all((0, 1))
    before, after = (np.square(np.median(x - image, 1)[:, known]).mean() for x in (bad, good))
    assert after < 0.2 * before


def test_stripes_along_rows_and_slanted_are_found() -> None:
    image = scene(bands=1, shape=(200, 190))
    rows = np.ascontiguousarray(striped(image.transpose(0, 2, 1), 0.03, "gain").transpose(0, 2, 1))
    assert search(ImageView(rows)) == (True, pytest.approx(0, abs=2e-3))
    slanted = striped(image, 0.03, "gain", slant=0.21)
    assert search(ImageView(slanted)) == (False, pytest.approx(0.21, abs=2e-3))
    good = on_image("destripe:search=1", slanted)
    assert np.square(good - image).mean() < 0.3 * np.square(slanted - image).mean()


def test_pixels_without_data_tell_nothing() -> None:
    image = scene()
    holed = image.copy()
    holed[:, 100:140, 20:90] = np.nan
    for name in ("stretch", "dark-object", "destripe"):
        fitted = fit(name, ImageView(holed))
        assert np.isfinite([v for v in fitted.values() if isinstance(v, float)]).all()
        made = fitted_method(name, fitted)
        out = made(image[None], np.zeros((1, 2), np.int64)) if made.spec.positioned else made(image[None])
        assert np.isfinite(out).all()


def test_packed_numbers_come_back() -> None:
    values = np.random.default_rng(0).normal(0, 0.1, (3, 50))
    assert np.abs(unpack(pack(values), (3, 50)) - values).max() <= 0.51e-6


@pytest.mark.parametrize("name", ["stretch:high=101", "stretch:middle=3", "clahe:tiles=2.5", "gamma:exponent=many"])
def test_numbers_that_cannot_be_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"number"):
        parameters(name)
    assert name.partition(":")[0] in METHODS
