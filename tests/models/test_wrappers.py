"""Extras around a network keep tiles exact: the wrapped network needs the halo it states, and no more is read."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.receptive import check_halo
from scenelift.models.spec import ModelSpec
from scenelift.models.wrappers import blend, self_ensemble, turn, turn_back, with_extras

torch.set_num_threads(1)
ARCH = {"kind": "generator", "channels": 4, "blocks": 1, "scale": 2}


def network(seed=0, **changes):
    torch.manual_seed(seed)
    module = build(ARCH | changes, valid=True).eval()
    for p in module.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    return module, ModelSpec("tiny", "super-resolution", scale=module.scale, halo=module.halo)


@pytest.mark.parametrize(
    "extras", [{"tta": True}, {"consistency": 1}, {"consistency": 3}, {"tta": True, "consistency": 2}]
)
@pytest.mark.parametrize("scale", [2, 4])
def test_the_stated_halo_is_enough(extras, scale):
    wrapped, spec = with_extras(*network(scale=scale), **extras)
    check_halo(wrapped, spec)
    x = torch.rand(1, 1, 24 + 2 * spec.halo, 24 + 2 * spec.halo)
    whole = wrapped(x)
    assert whole.shape[-1] == 24 * scale
    tile = wrapped(x[..., 8 : 16 + 2 * spec.halo, 8 : 16 + 2 * spec.halo])
    torch.testing.assert_close(tile, whole[..., 8 * scale : 16 * scale, 8 * scale : 16 * scale], atol=2e-6, rtol=1e-5)


def test_uncertainty_comes_beside_each_band():
    module, spec = network(bands=3)
    wrapped, told = with_extras(
        module, ModelSpec("t", "super-resolution", scale=2, halo=spec.halo, bands=3), uncertainty=True
    )
    answer = wrapped(torch.rand(2, 3, 8 + 2 * spec.halo, 8 + 2 * spec.halo))
    assert told.out_per_band * 3 == answer.shape[1] == 6
    assert bool((answer[:, 1::2] >= 0).all()) and float(answer[:, 1::2].max()) > 0


def test_consistency_needs_an_enlarging_model():
    with pytest.raises(ModelError, match="does not enlarge"):
        with_extras(torch.nn.Identity(), ModelSpec("same", "denoise"), consistency=1)


def test_blends_run_from_one_network_to_the_other():
    (first, _), (second, _) = network(0), network(1)
    x = torch.rand(1, 1, 30, 30)
    torch.testing.assert_close(blend(first, second, 0)(x), first(x))
    torch.testing.assert_close(blend(first, second, 1)(x), second(x))
    middle = blend(first, second, 0.5).state_dict()["head.bias"]
    torch.testing.assert_close(middle, (first.head.bias + second.head.bias).detach() / 2)
    with pytest.raises(ModelError, match="one architecture"):
        blend(first, network(channels=6)[0], 0.5)
    with pytest.raises(ModelError, match="between 0 and 1"):
        blend(first, second, 1.5)


images = st.tuples(*[st.integers(1, 7)] * 2, st.integers(0, 99)).map(
    lambda drawn: torch.rand(2, 1, *drawn[:2], generator=torch.Generator().manual_seed(drawn[2]))
)
ways = st.integers(0, 7)


@given(image=images, way=ways, other=ways)
def test_the_eight_forms_are_the_symmetries_of_the_square(image, way, other):
    assert torch.equal(turn_back(turn(image, way), way), image)
    assert torch.equal(turn(turn_back(image, way), way), image)
    twice = turn(turn(image, way), other)  # two symmetries, one after the other, are one
    same = [n for n in range(8) if turn(image, n).shape == twice.shape and torch.equal(turn(image, n), twice)]
    assert same
    corners = image[..., [0, 0, -1, -1], [0, -1, 0, -1]].sort().values
    assert torch.equal(turn(image, way)[..., [0, 0, -1, -1], [0, -1, 0, -1]].sort().values, corners)


@given(image=images, weights=st.lists(st.floats(-1, 1), min_size=9, max_size=9))
def test_a_self_ensemble_of_a_convolution_is_the_convolution_by_the_mean_of_its_turned_kernels(image, weights):
    kernel = torch.tensor(weights).reshape(1, 1, 3, 3)
    mean, spread = self_ensemble(lambda x: torch.nn.functional.conv2d(x, kernel, padding=1), image)
    turned = torch.stack([turn(kernel, way) for way in range(8)]).mean(0)
    torch.testing.assert_close(mean, torch.nn.functional.conv2d(image, turned, padding=1), atol=1e-5, rtol=1e-5)
    assert bool((spread >= 0).all())
