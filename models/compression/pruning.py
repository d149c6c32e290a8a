"""Structured pruning: which channels of a stack of convolutions matter, and the narrower network of those that do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scenelift.models.errors import ModelError

PRUNABLE = ("conditioned-generator", "denoiser", "generator")
"""Kinds of networks whose channels can be pruned: a head, residual blocks, a tail."""
LEAST = 4
"""Channels that must remain."""

Slices = list[tuple[str, int]]
"""Names of tensors and the dimension of each along which a group of channels lies."""


@dataclass(frozen=True)
class Group:
    """Channels that must go together: those of the trunk, or those between the two convolutions of one block."""

    makers: Slices
    """What computes them: weights, biases and scales of the convolutions behind which they stand."""
    readers: Slices
    """The weights of the convolutions that read them."""


def width_after(arch: dict[str, Any], ratio: float) -> int:
    """Return how many channels remain of a network if a share of them is pruned.

    Raises
    ------
    ModelError
        If the kind of network has no channels to prune, the share is not between 0 and 1, or too few remain.
    """
    if arch.get("kind") not in PRUNABLE:
        raise ModelError(f"a network of kind {arch.get('kind')} cannot be pruned; {', '.join(PRUNABLE)} can")
    channels = int(arch.get("channels", 64))
    if not 0 < ratio < 1:
        raise ModelError(f"--prune must be a share of the channels above 0 and below 1, got {ratio:g}")
    width = round(channels * (1 - ratio))
    if not LEAST <= width < channels:
        raise ModelError(
            f"--prune {ratio:g} leaves {width} of {channels} channels; from {LEAST} to {channels - 1} must remain"
        )
    return width


def groups(arch: dict[str, Any]) -> list[Group]:
    """Return the groups of channels of a network: the trunk's, then one for each residual block."""
    inner = "network." if arch["kind"] == "conditioned-generator" else ""
    blocks = int(arch.get("blocks", 8))
    normed = arch.get("norm", "none") != "none"

    def made(name: str, norm: str = "") -> Slices:
        scales = ("weight", "bias", "running_mean", "running_var") if norm and normed else ()
        return [(f"{inner}{name}.{kind}", 0) for kind in ("weight", "bias")] + [
            (f"{inner}{norm}.{kind}", 0) for kind in scales
        ]

    def read(name: str) -> tuple[str, int]:
        return f"{inner}{name}.weight", 1

    parts = range(blocks)
    second = [each for i in parts for each in made(f"body.{i}.second", f"body.{i}.norm2")]
    trunk = Group(
        [*made("head"), *second, *made(f"body.{blocks}")],
        [*(read(f"body.{i}.first") for i in parts), read(f"body.{blocks}"), read("tail")],
    )
    within = [Group(made(f"body.{i}.first", f"body.{i}.norm1"), [read(f"body.{i}.second")]) for i in parts]
    return [trunk, *within]


def importance(module: nn.Module, arch: dict[str, Any], losses: Iterable[Tensor]) -> list[Tensor]:
    """Return how much the loss depends on each channel of each group.

    What removing a channel does to the loss, to first order, is the sum of weight times gradient over the weights that
    make it; its square is averaged over batches and added up over the convolutions of a group (Molchanov et al.,
    "Importance estimation for neural network pruning", CVPR 2019, eq. 8).

    Parameters
    ----------
    module : Module
        The network; its gradients are overwritten.
    arch : dict
    losses : iterable of Tensor
        Losses of batches, each computed by the module as it is.

    Returns
    -------
    list of Tensor
        (channels,) for each of `groups`.
    """
    weights = dict(module.named_parameters())
    found = [torch.zeros(int(arch.get("channels", 64))) for _ in groups(arch)]
    for loss in losses:
        module.zero_grad(set_to_none=True)
        loss.backward()
        for total, group in zip(found, groups(arch), strict=True):
            for name, dim in group.makers:
                weight = weights.get(name)
                if weight is not None and weight.grad is not None:
                    each = (weight * weight.grad).detach().movedim(dim, 0).flatten(1 if weight.dim() > 1 else 0)
                    total += (each.sum(1) if weight.dim() > 1 else each).square().cpu()
    module.zero_grad(set_to_none=True)
    return found


def prune(
    state: dict[str, Tensor], arch: dict[str, Any], scores: list[Tensor], width: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the architecture and the weights of the network of the most important channels.

    Parameters
    ----------
    state : dict of str to Tensor
        Weights of the whole network.
    arch : dict
        Its architecture.
    scores : list of Tensor
        See `importance`.
    width : int
        Channels to keep of every group.
    """
    kept = [score.argsort(descending=True, stable=True)[:width].sort().values for score in scores]
    cut = dict(state)
    for group, at in zip(groups(arch), kept, strict=True):
        for name, dim in (*group.makers, *group.readers):
            if name in cut:
                cut[name] = cut[name].index_select(dim, at)
    if arch["kind"] == "conditioned-generator":
        rows = _modulated(arch, kept)
        cut |= {name: state[name].index_select(0, rows) for name in ("modulation.weight", "modulation.bias")}
    return arch | {"channels": width}, {name: value.clone() for name, value in cut.items()}


def _modulated(arch: dict[str, Any], kept: list[Tensor]) -> Tensor:
    """Return the rows that remain of a conditioned network's scales and shifts, which are told for each convolution."""
    trunk, *within = kept
    ends = int(arch.get("bands", 1)) * int(arch.get("scale", 2)) ** 2
    each = [trunk, *(part for inner in within for part in (inner, trunk)), trunk, torch.arange(ends)]
    full = [int(arch.get("channels", 64))] * (len(each) - 1) + [ends]
    starts = [sum(full[:i]) for i in range(len(full))]
    scales = torch.cat([start + part for start, part in zip(starts, each, strict=True)])
    return torch.cat([scales, sum(full) + scales])
