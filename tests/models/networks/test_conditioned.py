"""Networks that are told blur and noise: one of their own for each scene, equal to the one that was trained."""

import pytest
import torch

from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.networks.conditioned import condition_of, linear, linear_filters
from scenelift.models.receptive import receptive_radius
from scenelift.models.sensing.blurs import Blur, response
from scenelift.models.training.tasks import BlindSuperResolution

ARCH = {"kind": "conditioned-generator", "bands": 3, "scale": 2, "channels": 8, "blocks": 2}
BLURS = [Blur("gaussian", 0.2), Blur("gaussian", 0.3), Blur("area")]
NOISE = [0.0, 0.001, 0.004]


def moved(arch=ARCH, valid=False):
    """A network whose every weight counts."""
    torch.manual_seed(0)
    module = build(arch).eval()
    for p in module.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    again = build(arch, valid=valid).eval()
    again.load_state_dict(module.state_dict())
    return again


def told(blurs, noise, x, scale=2):
    filters = torch.stack([linear_filters(b, scale, s) for b, s in zip(blurs, noise, strict=True)])
    responses = torch.tensor([response(b.kernel(scale), scale).tolist() for b in blurs])
    base = linear(x, scale, filters.expand(len(x), *filters.shape))
    return base, condition_of(responses.expand(len(x), -1, -1), torch.tensor(noise).expand(len(x), -1))


@torch.no_grad()
def test_the_folded_network_is_the_trained_one():
    module, x = moved(), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(module.fold(BLURS, NOISE)(x), module(x, *told(BLURS, NOISE, x)), atol=1e-5)


@torch.no_grad()
def test_every_fact_that_is_told_matters():
    module, x = moved(), torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    known = module.fold(BLURS, NOISE)(x)
    for band in range(3):
        blurs, noise = list(BLURS), list(NOISE)
        blurs[band] = Blur("gaussian", 0.45)
        noise[band] = 0.006
        assert not torch.allclose(module.fold(blurs, NOISE)(x), known, atol=1e-5)
        assert not torch.allclose(module.fold(BLURS, noise)(x), known, atol=1e-5)


def test_the_folded_network_looks_as_far_as_its_halo():
    module = moved()
    assert receptive_radius(module.fold(BLURS, NOISE), bands=3, scale=2) == module.halo


def test_folding_wants_one_blur_and_one_noise_level_for_each_band():
    with pytest.raises(ModelError, match="3 bands, the scene has 2 blurs and 3 noise levels"):
        moved().fold(BLURS[:2], NOISE)


def test_a_batch_is_degraded_alike_for_the_same_seed_and_told_what_was_done():
    task, clean = BlindSuperResolution(told_error=0.0), torch.rand(8, 3, 32, 32) * 0.3
    first = task.degrade(clean, torch.Generator().manual_seed(5))
    again = task.degrade(clean, torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    low, base, condition = first
    assert low.shape == (8, 3, 16, 16)
    assert base.shape == clean.shape
    assert len(condition.unique(dim=0)) > 4
