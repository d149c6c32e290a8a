"""The estimator: finds the blur and the noise that a random field was given, whatever its brightness."""

import numpy as np
import pytest
import torch

from scenelift.models.sensing import estimation
from scenelift.models.sensing.blurs import KINDS, Blur, decimate
from scenelift.models.sensing.estimation import (
    CANDIDATES,
    TILE,
    TRANSFERS,
    cut_tiles,
    estimate_blur,
    features,
    outputs,
    quantile,
)
from scenelift.models.training.estimation import EVERY, NOISIEST, dead_leaves, examples, fit, target


def scene(seed, side=512):
    """A scene of fields with edges: a tessellation with texture, blurred as Sentinel-2 blurs."""
    rng = np.random.default_rng(seed)
    centres = rng.random((220, 2)) * side
    rows, cols = np.mgrid[:side, :side]
    nearest = np.full((side, side), np.inf)
    owner = np.zeros((side, side), int)
    for index, (row, col) in enumerate(centres):
        distance = (rows - row) ** 2 + (cols - col) ** 2
        closer = distance < nearest
        nearest[closer], owner[closer] = distance[closer], index
    texture = np.fft.ifft2(
        np.fft.fft2(rng.standard_normal((side, side)))
        / (1 + 0.2 * np.hypot(*np.meshgrid(*[np.fft.fftfreq(side) * side] * 2)))
    ).real
    values = 0.05 + 0.15 * rng.random(len(centres))[owner] + 0.004 * texture / texture.std()
    fine = torch.from_numpy(values.astype(np.float32))[None, None]
    return decimate(fine, 2, [[Blur("gaussian", 0.3).kernel(2)]])


def seen(blur, sigma=0.0, gain=1.0, seed=0):
    low = decimate(scene(seed), 2, [[blur.kernel(2)]])[0, 0].numpy() * gain
    low = low + sigma * np.random.default_rng(1).standard_normal(low.shape)
    return estimate_blur([cut_tiles(low)])[0]


def test_stronger_blurs_are_told_from_weaker_ones():
    found = [seen(Blur("gaussian", mtf)).blur.mtf for mtf in (0.08, 0.2, 0.35, 0.5)]
    assert found == sorted(found)
    assert found[-1] - found[0] > 0.2


@pytest.mark.parametrize("gain", [0.6, 1.7])
def test_brightness_hardly_matters(gain):
    assert seen(Blur("gaussian", 0.3), gain=gain).blur.mtf == pytest.approx(
        seen(Blur("gaussian", 0.3)).blur.mtf, abs=0.05
    )


def test_the_noise_is_found():
    assert seen(Blur("gaussian", 0.3), sigma=0.004).sigma == pytest.approx(0.004, rel=0.3)


def test_flat_and_missing_tiles_tell_nothing():
    flat = np.full((64, 64), 0.1)
    assert estimate_blur([cut_tiles(flat)]) == (None,)
    valid = np.zeros((64, 64), bool)
    assert estimate_blur([cut_tiles(np.random.default_rng(0).random((64, 64)), valid)]) == (None,)
    assert estimate_blur([cut_tiles(np.random.default_rng(0).random((8, 8)))]) == (None,)


def test_tiles_with_a_missing_pixel_are_left_out():
    valid = np.ones((3 * TILE, 2 * TILE), bool)
    valid[TILE + 3, 5] = False
    assert len(cut_tiles(np.zeros((3 * TILE, 2 * TILE)), valid)) == 5


def test_targets_lie_between_the_nearest_transfers():
    assert target(Blur("gaussian", 0.32)) @ np.array([*TRANSFERS, 0, 0, 0]) == pytest.approx(0.32, abs=1e-6)
    for index, kind in enumerate(KINDS[1:]):
        assert target(Blur(kind)).argmax() == len(TRANSFERS) + index


def test_training_learns_to_tell_strong_blur_from_weak():
    def draw(count, generator):
        base = scene(int(torch.randint(5, (1,), generator=generator)), 256)
        at = torch.randint(base.shape[-1] - 64, (count, 2), generator=generator).tolist()
        return torch.cat([base[..., r : r + 64, c : c + 64] for r, c in at])

    x, y, sigma = examples(draw, 300, seed=0)
    assert x.shape == (len(y), len(features(np.random.default_rng(0).random((2, 32, 32)))))
    small = x[:, -1] == features(np.random.default_rng(0).random((2, 16, 16)))[-1]
    assert 40 < small.sum() < 80  # a fifth of them also as tiles of 16 pixels
    assert len(x) - 300 - small.sum() == (sigma > NOISIEST).sum() == 300 // EVERY  # and some in strong noise
    weights = fit(x, y, sigma, epochs=30)
    found = np.array([outputs(row, weights)[: len(TRANSFERS)].argmax() for row in x])
    gaussian = y[:, : len(TRANSFERS)].sum(1) > 0.5
    assert np.corrcoef(found[gaussian], y[gaussian, : len(TRANSFERS)].argmax(1))[0, 1] > 0.8


def test_a_doubtful_choice_leans_to_the_weaker_blur():
    """What a wrong guess costs was measured: too strong a blur told costs more than too weak a one."""
    regret = estimation._weights()["regret"]
    gaussians = regret[: len(TRANSFERS), : len(TRANSFERS)]
    assert np.allclose(np.diag(regret), 0)
    assert (
        gaussians[np.tril_indices(len(TRANSFERS), -1)] >= gaussians.T[np.tril_indices(len(TRANSFERS), -1)] - 0.2
    ).all()
    even = np.zeros(len(CANDIDATES))
    even[[2, 8]] = 0.5
    assert estimation._chosen(even @ regret, 0).mtf > np.mean([TRANSFERS[2], TRANSFERS[8]])


def test_quantiles_go_from_the_strongest_blur_to_the_weakest():
    chances = np.full(len(CANDIDATES), 1 / len(CANDIDATES))
    transfers = [quantile(chances, at).at_nyquist(2) for at in np.linspace(0.01, 0.99, 30)]
    assert transfers == sorted(transfers)
    assert quantile(np.eye(len(CANDIDATES))[4], 0.5) == CANDIDATES[4]


def test_drawn_shapes_are_reflectances_that_differ():
    drawn = dead_leaves(3, 64, torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 1, 64, 64)
    assert 0 < float(drawn.min()) < float(drawn.max()) < 1.2
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn, dead_leaves(3, 64, torch.Generator().manual_seed(0)))
