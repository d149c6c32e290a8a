"""Attribution of networks whose attributions are known, deletion, and the split of a result by a sensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from scenelift.models.errors import ModelError
from scenelift.models.explaining.attribution import baseline_of, deletion_test, integrated_gradients
from scenelift.models.explaining.support import support
from scenelift.models.sensing.blurs import Blur, decimate


def patch(bands: int = 2, side: int = 13, seed: int = 0) -> torch.Tensor:
    return torch.rand(bands, side, side, generator=torch.Generator().manual_seed(seed))


def test_of_a_linear_network_each_pixel_moved_its_weight_times_its_difference():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 5)
    x, at = patch(), (1, 4, 2)
    found = integrated_gradients(layer, x, at)
    expected = torch.zeros_like(x)
    expected[:, 4:9, 2:7] = layer.weight[1].detach() * (x - baseline_of(x))[:, 4:9, 2:7]
    assert torch.allclose(found, expected, atol=1e-6)


def test_attributions_sum_to_what_structure_changed():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(2, 8, 3), nn.GELU(), nn.Conv2d(8, 8, 3), nn.GELU(), nn.Conv2d(8, 1, 3)).double()
    x, at = patch().double(), (0, 3, 3)
    found = integrated_gradients(network, x, at, steps=64)
    with torch.no_grad():
        change = network(x[None])[(0, *at)] - network(baseline_of(x)[None])[(0, *at)]
    assert float(found.sum()) == pytest.approx(float(change), abs=1e-6)
    outside = torch.ones(13, 13, dtype=torch.bool)
    outside[3:10, 3:10] = False
    assert not found[:, outside].any()


def test_deleting_what_is_named_moves_the_output_farther_than_chance():
    layer = nn.Conv2d(1, 1, 9, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1e-3)
        layer.weight[0, 0, 4, 4] = 1.0
    x, at = patch(1, 17), (0, 2, 5)
    found = deletion_test(layer, x, at, integrated_gradients(layer, x, at))
    # the pixel in the middle is deleted first; 81 pixels lie in the field, 1 % of them is one
    middle = abs(float(x[0, 6, 9] - x.mean()))
    assert found.attributed[0] == pytest.approx(middle, rel=1e-4)
    assert found.random[0] < 0.2 * middle
    assert found.ratio > 3
    assert found.p <= 0.1


def test_pixels_at_random_are_not_named_better_than_chance():
    torch.manual_seed(2)
    layer = nn.Conv2d(1, 1, 9)
    x, at = patch(1, 17), (0, 2, 5)
    field = torch.zeros_like(x)
    field[:, 2:11, 5:14] = torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(5))
    assert deletion_test(layer, x, at, field).p > 0.05


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_result_is_the_sum_of_what_is_seen_and_what_is_not(scale: int):
    rng = np.random.default_rng(0)
    fine = rng.random((2, 12 * scale, 10 * scale)).astype(np.float32)
    blurs = [Blur(mtf=0.3), Blur("area")]

    def see(image: np.ndarray) -> np.ndarray:
        kernels = [[blur.kernel(scale) for blur in blurs]]
        return decimate(torch.from_numpy(image).double()[None], scale, kernels)[0].numpy()

    low = (see(fine) + 0.01 * rng.standard_normal((2, 12, 10))).astype(np.float32)
    found = support(low, fine, blurs)
    assert found.determined + found.corrected + found.added == pytest.approx(fine, abs=1e-5)
    assert see(found.determined) == pytest.approx(low, abs=1e-4)
    assert see(found.added) == pytest.approx(np.zeros_like(low), abs=1e-4)
    assert see(found.corrected) == pytest.approx(see(fine) - low, abs=1e-4)
    # what is seen is the smallest such image: it has nothing in common with what is not
    assert abs(np.vdot(found.determined, found.added)) < 1e-4 * np.linalg.norm(found.determined) ** 2
    consistent = support(see(fine).astype(np.float32), fine, blurs)
    assert np.abs(consistent.corrected).max() < 1e-4
    assert consistent.shares()["added"] > 0.1


def test_a_denoiser_adds_nothing_unseen():
    low, made = np.full((1, 4, 4), 0.2, np.float32), np.full((1, 4, 4), 0.3, np.float32)
    found = support(low, made, [Blur()])
    assert not found.added.any()
    assert found.corrected == pytest.approx(made - low)
    with pytest.raises(ModelError, match="does not fit an input"):
        support(low, made[:, :3], [Blur()])


def test_the_strongest_blur_that_is_estimated_is_inverted():
    rng = np.random.default_rng(0)
    low = rng.random((1, 30, 40)).astype(np.float32)
    fine = rng.random((1, 60, 80)).astype(np.float32)
    found = support(low, fine, [Blur("gaussian", 0.05)])
    seen = decimate(torch.from_numpy(found.determined)[None], 2, [[Blur("gaussian", 0.05).kernel(2)]])[0]
    assert np.abs(seen.numpy() - low).max() < 1e-3
    with pytest.raises(ModelError, match="its blur leaves nothing of some detail"):
        support(low, fine, [Blur("gaussian", 0.005)])
