"""One experiment: degradations read from their names, and one figure for one image, whoever measures it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from support.trainings import images

from scenelift.models.degradations import SENTINEL2_MTF, mtf_decimate
from scenelift.models.whole import load_method, run_whole
from scenelift.pipeline.errors import UsageError
from scenelift.workflows.evidence.cases import INPUT, REFERENCE, Degradation, restore
from scenelift.workflows.evidence.compare import CompareSettings, compare
from scenelift.workflows.evidence.evaluate import evaluate
from scenelift.workflows.evidence.landcover import INTACT, make_arms
from scenelift.workflows.evidence.metrics import inside, measure
from scenelift.workflows.evidence.samples import read_sample

torch.set_num_threads(1)
RGB = ("B04", "B03", "B02")
amounts = st.floats(0.001, 255) | st.integers(1, 255)
shrinking = st.builds(
    Degradation,
    st.integers(2, 8),
    st.sampled_from(["sensor", "area", "bicubic"]) | st.floats(0.01, 0.99),
    st.just(0.0) | amounts,
)
haze = st.builds(Degradation, haze=st.floats(0.001, 5))
degradations = shrinking | st.builds(Degradation, noise=amounts) | st.builds(Degradation, sensor=amounts) | haze


@given(degradations)
def test_every_degradation_is_read_back_from_its_name(degradation):
    assert Degradation.parse(degradation.name) == degradation
    assert Degradation.parse(f" {degradation.name} ") == degradation


@given(
    st.text(max_size=20)
    | st.from_regex(r"(x|noise|sensor|haze)[0-9.]{0,3}(:(mtf|noise|times|area|blur)=?[0-9.]{0,3}){0,2}")
)
def test_any_other_text_is_refused_in_one_line(text):
    try:
        found = Degradation.parse(text)
    except UsageError as error:
        assert "\n" not in str(error) or "\n" in repr(text)
    else:
        assert Degradation.parse(found.name) == found


@pytest.mark.parametrize(
    ("text", "degradation"),
    [
        ("x4", Degradation(4)),
        ("x2:mtf=.35", Degradation(2, 0.35)),
        ("x2:area", Degradation(2, "area")),
        ("x2:bicubic:noise=2", Degradation(2, "bicubic", 2)),
        ("x2:noise=2", Degradation(2, noise=2)),
        ("noise25", Degradation(noise=25)),
        ("sensor", Degradation(sensor=1)),
        ("sensor:times=2.5", Degradation(sensor=2.5)),
        ("haze0.3", Degradation(haze=0.3)),
    ],
)
def test_names_mean_what_they_say(text, degradation):
    assert Degradation.parse(text) == degradation


@pytest.mark.parametrize(
    "text",
    [
        *("x1", "x9", "x", "x2.5", "noise0", "noise256", "noise", "noisenan", "blur", "x2:mtf=1", "x2:mtf="),
        *("x2:area:mtf=.3", "x2:times=2", "x2:noise=nan", "noise25:area", "sensor:times=0"),
        *("haze", "haze0", "haze5.1", "haze1:area", "hazenan"),
    ],
)
def test_wrong_names_are_refused(text):
    with pytest.raises(UsageError):
        Degradation.parse(text)


def test_images_are_degraded_as_the_libraries_do():
    values = np.random.default_rng(0).random((2, 3, 16, 16), np.float32)
    area, sigma = Degradation(2, "area").apply(values, RGB)
    np.testing.assert_allclose(area, values.reshape(2, 3, 8, 2, 8, 2).mean((3, 5)), rtol=1e-5)
    assert (sigma == 0).all()
    bicubic = Degradation(2, "bicubic").apply(values, RGB)[0]
    theirs = np.asarray(Image.fromarray(values[1, 2]).resize((8, 8), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(bicubic[1, 2], theirs, atol=1e-5)
    blurred = Degradation(2).apply(values, RGB)[0]
    mtf = [SENTINEL2_MTF[band] for band in RGB]
    np.testing.assert_array_equal(blurred[1:], mtf_decimate(torch.from_numpy(values[1:]), 2, mtf).numpy())
    noisy, sigma = Degradation(2, 0.4, noise=10).apply(values, RGB, level=0.01, seed=3)
    plain = Degradation(2, 0.4).apply(values, RGB)[0]
    assert sigma == pytest.approx(np.full((2, 3), 0.1))
    assert (noisy - plain).std() == pytest.approx(0.1, rel=0.2)
    np.testing.assert_array_equal(noisy, Degradation(2, 0.4, noise=10).apply(values, RGB, level=0.01, seed=3)[0])


def test_a_prediction_does_not_depend_on_the_other_images():
    values = np.random.default_rng(0).random((3, 3, 20, 24), np.float32) * 0.2
    for name, scale in (("sr-x2-fast", 2), ("ibp", 2), ("denoise-fast", 1), ("nlm", 1), ("denoise-rgb", 1)):
        sigma = np.array([[0.001, 0.01, 0.02], [0.03, 0.01, 0.0], [0.02] * 3], np.float32)
        method = load_method(name, scale)
        together = run_whole(method, values, sigma)
        for image, levels, found in zip(values, sigma, together, strict=True):
            np.testing.assert_array_equal(run_whole(method, image[None], levels[None])[0], found)


@pytest.mark.parametrize("name", ["x2", "x2:area:noise=3", "noise25", "sensor:times=3"])
def test_one_image_has_one_psnr_and_one_ssim_whoever_measures_it(tmp_path, name):
    """`evaluate`, `compare` and the land-cover experiment agree to the last digit, and with scikit-image."""
    archive = images(tmp_path / "images.zip")
    case, each = Degradation.parse(name), 2
    network = "sr-x2-fast" if case.scale == 2 else "denoise-fast"
    sample = read_sample(archive, each)
    rows = {row.method: row for row in evaluate(sample, [network], case)}
    found = compare(CompareSettings(archive, each, cases=(case,), networks=(network,)))
    arms = make_arms(case, sample.images, [network])
    shared = [method for method in found.methods[name] if method in rows]
    assert {network, case.unrestored} < set(shared) and {INPUT, REFERENCE} & set(shared)
    for method in shared:
        for score in ("psnr", "ssim"):
            assert found.mean(case, method, score).mean == getattr(rows[method], score), (method, score)
        restored = arms.get(INTACT if method == REFERENCE else method)
        if restored is None:
            continue
        pairs = list(zip(sample.images, restored, strict=True))
        own = [measure(x, y, case.scale, sample.peak, ("psnr", "ssim")) for x, y in pairs]
        for score in ("psnr", "ssim"):
            np.testing.assert_array_equal([o[score] for o in own], found.values[name, method, score])
        if method != REFERENCE:
            x, y = (inside(image, case.scale).astype(np.float64) for image in pairs[0])
            assert own[0]["psnr"] == pytest.approx(peak_signal_noise_ratio(x, y, data_range=sample.peak), rel=1e-9)
            settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
            ssim = structural_similarity(x, y, data_range=sample.peak, channel_axis=0, **settings)
            assert own[0]["ssim"] == pytest.approx(ssim, rel=1e-6)


def test_what_restores_nothing_returns_the_input():
    values = np.random.default_rng(0).random((1, 3, 16, 16), np.float32)
    low, sigma = Degradation(noise=9).apply(values, RGB)
    assert dict(restore(Degradation(noise=9), low, sigma, (INPUT,)))[INPUT] is low
