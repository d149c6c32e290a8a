"""Haze: what the simulation does, and the network that takes it away."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scenelift.models.errors import ModelError
from scenelift.models.fitted import running
from scenelift.models.networks.architectures import build
from scenelift.models.receptive import receptive_radius
from scenelift.models.sensing.atmosphere import PERCENTILES, Air, statistics, thickness, through
from scenelift.models.training.haze import Dehazing
from scenelift.workflows.evidence.simulated import order_error

torch.set_num_threads(1)


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def test_haze_of_even_depth_is_the_scattering_model() -> None:
    clean = torch.rand(2, 3, 16, 16, generator=seed()) * 0.3
    air = Air(depth=0.7, structure=0.0, exponent=1.0, airlight=0.4)
    hazy = through(clean, air, thickness(2, (16, 16), seed()), (550.0, 550.0, 1100.0))
    for band, depth in ((0, 0.7), (2, 0.35)):
        t = math.exp(-depth)
        torch.testing.assert_close(hazy[:, band], clean[:, band] * t + 0.4 * (1 - t))


def test_fields_are_smooth_and_of_mean_one() -> None:
    field = thickness(8, (200, 150), seed(1))
    assert field.shape == (8, 1, 200, 150)
    assert float(field.min()) >= 0 and float(field.max()) <= 2 and abs(float(field.mean()) - 1) < 0.1
    assert float(field.diff(dim=-1).abs().max()) < 0.2 and float(field.std()) > 0.1


def test_patches_of_a_scene_are_told_the_percentiles_of_all_of_them() -> None:
    task = Dehazing(together=4)
    hazy, told = task.degrade(torch.rand(8, 3, 32, 32, generator=seed()) * 0.3, seed(2))
    assert torch.equal(told[0], told[3]) and not torch.equal(told[3], told[4])
    band = hazy[:4, 1].numpy().ravel()
    np.testing.assert_allclose(told[0].reshape(3, 7)[1], np.percentile(band, PERCENTILES), atol=1e-5)
    assert running.PERCENTILES == PERCENTILES
    assert statistics(hazy[:4]).flatten().equal(told[0])


@pytest.mark.parametrize("values", [{"depth": 9.0}, {"together": 0}, {"airlight": (0.6, 0.2)}])
def test_impossible_air_is_refused(values: dict) -> None:
    with pytest.raises(ModelError, match="out of range"):
        Dehazing(**values)


def network(valid: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    made = build({"kind": "dehazer", "channels": 6, "dilations": [1, 3], "smooth": 2}, valid=valid).eval()
    for value in made.parameters():
        torch.nn.init.normal_(value, std=0.1)
    return made


def test_unpadded_and_padded_networks_agree_and_look_as_far_as_they_say() -> None:
    padded, unpadded = network(False), network(True)
    told = torch.rand(1, 21, generator=seed()) * 0.2
    x = torch.rand(1, 3, 40, 40, generator=seed()) * 0.3
    halo = padded.halo
    assert halo == 7
    inner = padded(x, told)[..., halo:-halo, halo:-halo]
    torch.testing.assert_close(unpadded(x, told), inner, atol=1e-6, rtol=1e-5)
    folded = unpadded.fold_statistics(told[0].tolist())
    torch.testing.assert_close(folded(x), inner, atol=1e-6, rtol=1e-5)
    assert receptive_radius(folded, bands=3) == halo


def test_an_untrained_network_begins_near_dark_object_subtraction() -> None:
    torch.manual_seed(0)
    fresh = build({"kind": "dehazer"}).eval()
    x = torch.rand(1, 3, 64, 64, generator=seed()) * 0.3 + 0.08
    told = statistics(x).flatten()[None]
    dark = told.reshape(3, 7)[:, 0] - 0.01
    assert float((fresh(x, told) - (x - dark[None, :, None, None])).abs().max()) < 0.02


def test_the_share_of_pairs_out_of_order() -> None:
    image = np.random.default_rng(0).random((3, 20, 20))
    assert order_error(image, image**0.5) == 0
    assert order_error(image[:1], -image[:1]) > 0.95
