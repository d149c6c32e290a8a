"""Pruning: dead channels go first and are not missed, whatever the network; distillation sees the whole network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from scenelift.models.compression.distillation import distillation_term
from scenelift.models.compression.pruning import groups, importance, prune, width_after
from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.networks.conditioned import FACTS
from scenelift.models.training.losses import pixel_loss
from scenelift.models.training.objectives import Restored
from scenelift.models.training.tasks import Denoising

torch.set_num_threads(1)
KINDS: list[dict[str, Any]] = [
    {"kind": "generator", "scale": 2},
    {"kind": "conditioned-generator", "scale": 2, "bands": 3},
    {"kind": "denoiser", "bands": 2},
    {"kind": "denoiser", "norm": "batch", "act": "silu"},
]


def inputs(arch: dict[str, Any]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    bands = arch.get("bands", 1)
    x = torch.rand(2, bands, 12, 12, generator=generator) * 0.3
    if arch["kind"] == "conditioned-generator":
        return x, torch.rand(2, bands, 24, 24, generator=generator), torch.rand(2, bands * FACTS, generator=generator)
    return (x, torch.tensor([0.01, 0.02])) if arch["kind"] == "denoiser" else (x,)


def with_dead_channels(arch: dict[str, Any], alive: int) -> tuple[nn.Module, list[Tensor]]:
    """A network of random weights whose channels beyond some are zero wherever they are made, at random places."""
    torch.manual_seed(0)
    module = build(arch).eval()
    for value in module.parameters():
        nn.init.normal_(value, std=0.2)
    state, living = module.state_dict(), []
    for group in groups(arch):
        order = torch.randperm(arch["channels"])
        living.append(order[:alive].sort().values)
        for name, _ in group.makers:
            if name in state and not name.endswith("running_var"):
                state[name][order[alive:]] = 0
    if arch["kind"] == "conditioned-generator":  # what is told shifts and scales them: let it not
        state["modulation.weight"].zero_()
        state["modulation.bias"].copy_(torch.randn(state["modulation.bias"].shape) * 0.1)
        at, half = 0, len(state["modulation.bias"]) // 2
        trunk, *within = living
        for part in (trunk, *(each for inner in within for each in (inner, trunk)), trunk):
            dead = torch.ones(arch["channels"], dtype=torch.bool)
            dead[part] = False
            state["modulation.bias"][half + at : half + at + arch["channels"]][dead] = 0
            at += arch["channels"]
    module.load_state_dict(state)
    return module, living


@settings(max_examples=12)
@given(arch=st.sampled_from(KINDS), channels=st.integers(6, 12), blocks=st.integers(1, 3), alive=st.integers(4, 5))
def test_dead_channels_are_not_missed(arch: dict[str, Any], channels: int, blocks: int, alive: int) -> None:
    arch = arch | {"channels": channels, "blocks": blocks}
    module, living = with_dead_channels(arch, alive)
    given_inputs = inputs(arch)
    scores = importance(module, arch, [module(*given_inputs).square().mean() for _ in range(2)])
    for score, part in zip(scores, living, strict=True):
        dead = [i for i in range(channels) if i not in part.tolist()]
        assert not score[dead].any()
    # a first-order score may be zero by chance for a living one (a rectifier that never opens): keep those that live
    kept = [torch.zeros(channels).index_fill(0, part, 1.0) for part in living]
    narrow_arch, state = prune(module.state_dict(), arch, kept, alive)
    narrow = build(narrow_arch).eval()
    narrow.load_state_dict(state)
    assert narrow_arch["channels"] == alive
    torch.testing.assert_close(narrow(*given_inputs), module(*given_inputs), rtol=1e-5, atol=1e-5)


def test_importance_is_the_squared_change_of_the_loss_to_first_order() -> None:
    arch = {"kind": "generator", "scale": 2, "channels": 6, "blocks": 1}
    torch.manual_seed(2)
    module = build(arch)
    x = torch.rand(1, 1, 10, 10)
    module(x).square().mean().backward()
    first = module.get_submodule("body.0.first")
    expected = ((first.weight * first.weight.grad).sum((1, 2, 3))).square() + (first.bias * first.bias.grad).square()
    found = importance(module, arch, [module(x).square().mean()])[1]
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize(
    ("arch", "ratio", "says"),
    [
        ({"kind": "dense-generator", "channels": 32}, 0.5, "of kind dense-generator cannot be pruned; conditioned-"),
        ({"kind": "generator", "channels": 32}, 1.0, "above 0 and below 1, got 1"),
        ({"kind": "generator", "channels": 32}, 0.99, "leaves 0 of 32 channels; from 4 to 31 must remain"),
        ({"kind": "generator", "channels": 32}, 0.001, "leaves 32 of 32"),
    ],
)
def test_what_cannot_be_pruned_is_refused(arch: dict[str, Any], ratio: float, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        width_after(arch, ratio)
    assert width_after({"kind": "generator", "channels": 64}, 0.5) == 32


def test_distillation_compares_with_the_whole_network() -> None:
    torch.manual_seed(0)
    parent, task = build({"kind": "denoiser", "channels": 8, "blocks": 1}), Denoising()
    noisy, sigma = task.degrade(torch.rand(3, 1, 16, 16) * 0.3, torch.Generator().manual_seed(0))
    term = distillation_term(parent, task, "charbonnier", weight=2.0)
    with torch.no_grad():
        wanted = parent(noisy, sigma)
    prediction = torch.rand(3, 1, 16, 16, requires_grad=True)
    found = term(Restored((noisy, sigma), prediction, torch.zeros_like(noisy)))
    weight = task.weight((noisy, sigma))
    torch.testing.assert_close(found, 2 * pixel_loss("charbonnier")(prediction * weight, wanted * weight))
    found.backward()
    assert prediction.grad is not None and all(p.grad is None for p in parent.parameters())
