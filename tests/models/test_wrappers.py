"""Extras around a network keep tiles exact: the wrapped network needs the halo it states, and no more is read."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scenelift.models.catalog import find, with_settings
from scenelift.models.errors import ModelError
from scenelift.models.extras import Clamp, ClassMap, Consistency, SelfEnsemble, Strength, Uncertainty, apply_extras
from scenelift.models.loading import load
from scenelift.models.networks.architectures import build
from scenelift.models.networks.generator import Generator
from scenelift.models.receptive import check_halo
from scenelift.models.sensing.blurs import Blur
from scenelift.models.spec import ModelSpec
from scenelift.models.wrappers import Cropped, blend, self_ensemble, turn, turn_back

torch.set_num_threads(1)
ARCH = {"kind": "generator", "channels": 4, "blocks": 1, "scale": 2}


def network(seed=0, **changes):
    torch.manual_seed(seed)
    module = build(ARCH | changes, valid=True).eval()
    for p in module.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    return module, ModelSpec("tiny", "super-resolution", scale=module.scale, halo=module.halo)


@pytest.mark.parametrize(
    "extras",
    [
        *((SelfEnsemble(),), (Consistency(1),), (Consistency(3),), (SelfEnsemble(), Consistency(2))),
        *((Strength(0.3),), (Clamp(),), (Consistency(1), Strength(0.5), Clamp(), SelfEnsemble())),
    ],
)
@pytest.mark.parametrize("scale", [2, 4])
def test_the_stated_halo_is_enough(extras, scale):
    wrapped, spec = apply_extras(extras, *network(scale=scale), Blur())
    check_halo(wrapped, spec)
    x = torch.rand(1, 1, 24 + 2 * spec.halo, 24 + 2 * spec.halo)
    whole = wrapped(x)
    assert whole.shape[-1] == 24 * scale
    tile = wrapped(x[..., 8 : 16 + 2 * spec.halo, 8 : 16 + 2 * spec.halo])
    torch.testing.assert_close(tile, whole[..., 8 * scale : 16 * scale, 8 * scale : 16 * scale], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("scale", [2, 3])
def test_strength_runs_from_bicubic_to_the_network(scale):
    module, spec = network(scale=scale)
    x = torch.rand(2, 1, 12 + 2 * spec.halo, 16 + 2 * spec.halo)
    outs = {}
    for share in (0.0, 0.25, 1.0):
        wrapped, told = apply_extras((Strength(share),), module, spec, Blur())
        outs[share] = wrapped(x)
        assert told.halo == spec.halo
    assert torch.equal(outs[1.0], module(x))
    taps = {}  # the same weights from the other end: what one input pixel does to the output
    for at in range(12):
        impulse = torch.zeros_like(x)
        impulse[..., spec.halo + at, :] = 1
        taps[at] = apply_extras((Strength(0.0),), module, spec, Blur())[0](impulse)[0, 0, :, 0]
    at = torch.arange(12.0 * scale)
    distance = ((at + 0.5) / scale - 0.5)[:, None] - torch.arange(12.0)
    near, a = distance.abs(), -0.75  # Keys' kernel as torch has it
    inside = (a + 2) * near**3 - (a + 3) * near**2 + 1
    outside = a * (near**3 - 5 * near**2 + 8 * near - 4)
    kernel = torch.where(near <= 1, inside, torch.where(near < 2, outside, torch.zeros(())))
    torch.testing.assert_close(torch.stack([taps[i] for i in range(12)], 1), kernel, atol=3e-6, rtol=0)
    torch.testing.assert_close(outs[0.25], 0.75 * outs[0.0] + 0.25 * outs[1.0], atol=1e-6, rtol=0)


def test_strength_of_a_denoiser_keeps_a_share_of_its_input():
    module = torch.nn.Conv2d(1, 1, 3)
    spec = ModelSpec("smooth", "denoise", halo=1)
    x = torch.rand(1, 1, 9, 9)
    half = apply_extras((Strength(0.5),), module, spec, Blur())[0](x)
    torch.testing.assert_close(half, (module(x) + x[..., 1:-1, 1:-1]) / 2)


@given(st.integers(0, 2**31))
def test_a_clamped_network_stays_within_its_neighbourhood(seed):
    module, spec = network()
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(1, 1, 6 + 2 * spec.halo, 8 + 2 * spec.halo, generator=generator)
    found = apply_extras((Clamp(),), module, spec, Blur())[0](x)[0, 0]
    free = module(x)[0, 0]
    core = x[0, 0, spec.halo - 1 : -spec.halo + 1, spec.halo - 1 : -spec.halo + 1]
    for row in range(6):
        for col in range(8):
            near = core[row : row + 3, col : col + 3]
            ours, theirs = (v[2 * row : 2 * row + 2, 2 * col : 2 * col + 2] for v in (found, free))
            assert torch.equal(ours, theirs.clamp(near.min(), near.max()))


def test_less_of_a_network_leaves_what_names_land_cover_alone():
    module, spec = torch.nn.Identity(), ModelSpec("map", "landcover", out_bands=2)
    assert apply_extras((Strength(0.5), Clamp()), module, spec, Blur()) == (module, spec)


def test_uncertainty_comes_beside_each_band():
    module, spec = network(bands=3)
    spec = ModelSpec("t", "super-resolution", scale=2, halo=spec.halo, bands=3)
    wrapped, told = apply_extras((SelfEnsemble(), Uncertainty()), module, spec, Blur())
    answer = wrapped(torch.rand(2, 3, 8 + 2 * spec.halo, 8 + 2 * spec.halo))
    assert told.out_per_band * 3 == answer.shape[1] == 6
    assert bool((answer[:, 1::2] >= 0).all()) and float(answer[:, 1::2].max()) > 0


def test_consistency_leaves_alone_what_does_not_enlarge_and_takes_padded_networks():
    same = torch.nn.Identity()
    assert apply_extras((Consistency(1),), same, ModelSpec("same", "denoise"), Blur()) == (
        same,
        ModelSpec("same", "denoise"),
    )
    module, spec = network()
    padded = build(ARCH).eval()
    padded.load_state_dict(module.state_dict())
    x = torch.rand(1, 1, 48, 48)
    (one, _), (other, told) = (
        apply_extras((Consistency(1),), m, spec, Blur()) for m in (module, Cropped(padded, spec))
    )
    torch.testing.assert_close(other(x)[..., 16:-16, 16:-16], one(x)[..., 16:-16, 16:-16], atol=1e-5, rtol=1e-5)
    assert other(x).shape[-1] == 2 * (48 - 2 * told.halo)


def test_a_map_of_classes_is_made_of_the_mean_of_eight_passes():
    model = load(with_settings(find("landcover-eurosat"), extras=(ClassMap(), SelfEnsemble())))
    side = model.spec.patch + 2 * model.spec.halo
    classes = model(np.random.default_rng(0).random((1, 3, side, side), np.float32) / 4)
    assert classes.shape[1] == model.spec.out_bands == 1
    assert set(np.unique(classes)) <= set(range(len(model.spec.labels)))


def test_a_map_of_classes_wants_named_classes():
    with pytest.raises(ModelError, match="names no classes"):
        apply_extras((ClassMap(),), torch.nn.Identity(), ModelSpec("same", "denoise"), Blur())


def test_blends_run_from_one_network_to_the_other():
    (first, _), (second, _) = network(0), network(1)
    x = torch.rand(1, 1, 30, 30)
    torch.testing.assert_close(blend(first, second, 0)(x), first(x))
    torch.testing.assert_close(blend(first, second, 1)(x), second(x))
    images = blend(first, second, 0.5)(x)  # two trainings: weights between theirs would mean nothing
    torch.testing.assert_close(images, (first(x) + second(x)) / 2)
    tuned = copy.deepcopy(first)
    with torch.no_grad():
        for weight in tuned.parameters():
            weight.mul_(1.1)
    middle = blend(first, tuned, 0.5).state_dict()["head.bias"]
    torch.testing.assert_close(middle, (first.head.bias + tuned.head.bias).detach() / 2)
    with pytest.raises(ModelError, match="one architecture"):
        blend(first, network(channels=6)[0], 0.5)
    with pytest.raises(ModelError, match=r"must be from 0 to 1, got 1\.5"):
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


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_deeper_network_and_a_shallower_one_are_averaged(share):
    deep, shallow = (Generator(1, 2, 16, blocks, valid=True).eval() for blocks in (4, 2))
    x = torch.rand(1, 1, 24 + 2 * deep.halo, 24 + 2 * deep.halo)
    border = deep.halo - shallow.halo
    with torch.no_grad():
        made = blend(deep, shallow, share)(x)
        expected = (1 - share) * deep(x) + share * shallow(x[..., border:-border, border:-border])
    torch.testing.assert_close(made, expected)
    with pytest.raises(ModelError, match="a deeper one with a shallower one"):
        blend(shallow, deep, share)
    with pytest.raises(ModelError, match="a deeper one with a shallower one"):
        blend(deep, Generator(3, 2, 16, 2, valid=True), share)
