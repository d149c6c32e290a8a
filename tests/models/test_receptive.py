"""The receptive radius is found on networks whose radius is known."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.receptive import check_halo, receptive_radius, seam_error
from scenelift.models.spec import ModelSpec


class GlobalMean(nn.Module):
    def forward(self, x):
        return x - x.mean((2, 3), keepdim=True)


class ZeroWeights(nn.Conv2d):
    """A path whose weights happen to be zero is a path all the same."""

    def __init__(self):
        super().__init__(1, 1, 7, padding=3)
        nn.init.zeros_(self.weight)


def conv(side, dilation=1):
    return nn.Conv2d(1, 1, side, padding=dilation * (side // 2), dilation=dilation)


@pytest.mark.parametrize(
    ("module", "radius"),
    [
        (nn.Identity(), 0),
        (conv(1), 0),
        (conv(3), 1),
        (conv(3, dilation=5), 5),
        (nn.Sequential(conv(5), nn.ReLU(), conv(3)), 3),
        (nn.Sequential(conv(3), nn.MaxPool2d(3, 1, 1)), 2),
        (nn.Conv2d(1, 1, 9), 4),
        (ZeroWeights(), 3),
    ],
)
def test_known_radii(module, radius):
    assert receptive_radius(module) == radius


def test_strided_networks_are_measured_in_cells():
    module = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(16, 16, 3, padding=1), nn.PixelShuffle(4))
    assert receptive_radius(module, multiple_of=4) == 4


def test_upsamplers_are_measured_in_input_pixels():
    module = nn.Sequential(nn.Conv2d(1, 9, 3, padding=1), nn.PixelShuffle(3), conv(3))
    assert receptive_radius(module, scale=3) == 2


@pytest.mark.parametrize("module", [GlobalMean(), nn.Sequential(conv(3), nn.InstanceNorm2d(1))])
def test_networks_that_look_everywhere_are_refused(module):
    with pytest.raises(ModelError, match="looks farther than 64 pixels"):
        receptive_radius(module, limit=64)


def test_check_names_both_figures():
    spec = ModelSpec("short", "other", halo=2)
    check_halo(conv(5), spec)
    with pytest.raises(ModelError, match="halo is 2 pixels, the network looks 3 pixels far"):
        check_halo(conv(7), spec)
    with pytest.raises(ModelError, match="looks more than"):
        check_halo(GlobalMean(), spec)


def test_sizes_that_do_not_fit_the_scale_are_refused():
    with pytest.raises(ModelError, match="not the same number of pixels"):
        receptive_radius(nn.Conv2d(1, 1, 2))


def test_the_module_is_left_in_float32():
    module = conv(3)
    receptive_radius(module)
    assert module.weight.dtype == torch.float32


def test_seam_error_is_zero_only_where_the_halo_is_enough():
    module = nn.Sequential(conv(5), conv(5))
    assert seam_error(module, ModelSpec("enough", "other", halo=4)) < 1e-6
    assert seam_error(module, ModelSpec("short", "other", halo=2)) > 1e-4


@settings(max_examples=12)
@given(
    arch=st.fixed_dictionaries(
        {
            "kind": st.just("generator"),
            "channels": st.integers(1, 4),
            "blocks": st.integers(1, 3),
            "bands": st.integers(1, 2),
            "scale": st.integers(1, 4),
        }
    )
    | st.fixed_dictionaries(
        {
            "kind": st.just("denoiser"),
            "channels": st.integers(1, 4),
            "blocks": st.integers(1, 3),
            "bands": st.integers(1, 2),
            "factor": st.integers(1, 3),
            "skips": st.booleans(),
        }
    )
    | st.fixed_dictionaries(
        {
            "kind": st.just("dense-generator"),
            "channels": st.integers(1, 3),
            "growth": st.integers(1, 3),
            "blocks": st.just(1),
            "scale": st.integers(1, 4),
        }
    ),
    valid=st.booleans(),
)
def test_the_halo_of_any_architecture_is_its_measured_radius(arch, valid):
    module = build(arch, valid=valid)
    factor, denoises = arch.get("factor", 1), arch["kind"] == "denoiser"
    found = receptive_radius(
        module, bands=arch.get("bands", 1), scale=arch.get("scale", 1), multiple_of=factor, needs_noise=denoises
    )
    assert found == module.halo


@settings(max_examples=12)
@given(layers=st.lists(st.tuples(st.sampled_from([1, 3, 5]), st.integers(1, 3)), min_size=1, max_size=4))
def test_radii_of_convolutions_one_after_the_other_add_up(layers):
    module = nn.Sequential(*(conv(side, dilation) for side, dilation in layers))
    assert receptive_radius(module) == sum(dilation * (side // 2) for side, dilation in layers)
