"""Least-squares interpolation: what it assumes is estimated better than by any other filter tried."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scenelift.models.classical.resampling import back_project, back_projection_reach, upsample
from scenelift.models.networks.conditioned import linear, linear_filters
from scenelift.models.sensing.blurs import Blur, decimate
from scenelift.models.sensing.wiener import covariance, interpolation_filters

SIDE = 128


def field(seed):
    """Draw a random field with the prior's covariance, on a torus."""
    lags = covariance(SIDE // 2)[:SIDE, :SIDE]
    power = np.abs(np.fft.fft2(np.fft.ifftshift(lags)))
    white = np.fft.fft2(np.random.default_rng(seed).standard_normal((SIDE, SIDE)))
    return 0.1 + np.fft.ifft2(white * np.sqrt(power)).real


def interpolated(low, blur, sigma):
    filters = linear_filters(blur, 2, sigma)[None, None]
    return linear(low, 2, filters)


def rms(image, truth):
    return float((image - truth)[..., 16:-16, 16:-16].square().mean().sqrt())


@pytest.mark.parametrize("blur", [Blur("gaussian", 0.1), Blur("gaussian", 0.27), Blur("gaussian", 0.5), Blur("area")])
@pytest.mark.parametrize("sigma", [0.0, 0.003])
def test_nothing_linear_does_better_on_what_it_assumes(blur, sigma):
    truth = torch.from_numpy(field(0)).float()[None, None]
    noise = sigma * torch.randn(1, 1, SIDE // 2, SIDE // 2, generator=torch.Generator().manual_seed(1))
    low = decimate(truth, 2, [[blur.kernel(2)]]) + noise
    ours = rms(interpolated(low, blur, sigma), truth)

    def wider(reach):
        return np.pad(low.numpy(), ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="reflect")

    others = [torch.from_numpy(upsample(wider(r), 2, k)) for k, r in (("bicubic", 2), ("lanczos", 3), ("bilinear", 1))]
    if blur.kind == "gaussian":
        reach = back_projection_reach(2, "bicubic", blur.mtf, 10)
        others.append(torch.from_numpy(back_project(wider(reach), 2, "bicubic", blur.mtf, 10)))
    wrong = Blur("gaussian", 0.15 if blur.mtf > 0.2 else 0.4)
    others.append(interpolated(low, wrong, sigma))
    others.append(interpolated(low, blur, sigma + 0.01))
    assert ours < min(rms(other, truth) for other in others)


@settings(max_examples=25, deadline=None)
@given(
    mtf=st.floats(0.05, 0.6), sigma=st.floats(0, 0.02), scale=st.sampled_from([2, 3, 4]), taps=st.sampled_from([5, 11])
)
def test_filters_keep_a_constant_and_mirror_each_other(mtf, sigma, scale, taps):
    filters = interpolation_filters(Blur("gaussian", mtf).kernel(scale), scale, taps, sigma)
    assert filters.sum((1, 2)) == pytest.approx(np.ones(scale**2), abs=1e-4)
    grid = filters.reshape(scale, scale, taps, taps)
    assert np.allclose(grid, grid[::-1, :, ::-1], atol=1e-4)
    assert np.allclose(grid, grid.transpose(1, 0, 3, 2), atol=1e-4)


def test_more_noise_smooths_more():
    kernel = Blur("gaussian", 0.27).kernel(2)
    gains = [float((interpolation_filters(kernel, 2, 11, s) ** 2).sum()) for s in (0, 0.001, 0.003, 0.01)]
    assert gains == sorted(gains, reverse=True)
