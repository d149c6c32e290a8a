"""Which input pixels moved an output pixel, and whether that is so: attribution and a deletion test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STEPS = 32
"""Points of the integral."""
AT_ONCE = 8
"""Patches that go through the network together."""
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Shares of the pixels that are deleted."""
DRAWS = 39
"""Draws of as many pixels at random."""

Function = Callable[[Tensor], Tensor]
"""Patches (N, C, S, S) to cores (N, C', K, K), differentiable."""


def baseline_of(patch: Tensor) -> Tensor:
    """Return what a patch (C, S, S) is compared with: each band's mean, without any structure."""
    return patch.mean(dim=(1, 2), keepdim=True).expand_as(patch)


def integrated_gradients(function: Function, patch: Tensor, at: tuple[int, int, int], steps: int = STEPS) -> Tensor:
    """Return by how much each input pixel moved one output pixel (Sundararajan, Taly and Yan, ICML 2017).

    Parameters
    ----------
    function : callable
    patch : Tensor
        (C, S, S) reflectance.
    at : (int, int, int)
        Channel, row and column in the core.
    steps : int
        Points of the integral, by the midpoint rule.

    Returns
    -------
    Tensor
        (C, S, S) reflectance. The sum is the output less what the network makes of `baseline_of` the patch, up to the
        error of the integral; a pixel outside the receptive field has 0.
    """
    base = baseline_of(patch)
    total = torch.zeros_like(patch)
    shares = (torch.arange(steps, dtype=patch.dtype) + 0.5) / steps
    for part in shares.split(AT_ONCE):
        between = (base + part[:, None, None, None] * (patch - base)).requires_grad_()
        (gradient,) = torch.autograd.grad(function(between)[(slice(None), *at)].sum(), between)
        total += gradient.sum(dim=0)
    return total / steps * (patch - base)


@dataclass(frozen=True)
class Deletion:
    """How an output pixel moved when input pixels were replaced by the band's mean."""

    fractions: tuple[float, ...]
    """Share of the receptive field's pixels that were replaced."""
    attributed: tuple[float, ...]
    """Absolute change, reflectance, with those replaced that have the largest attribution."""
    random: tuple[float, ...]
    """Mean of the same over draws of as many pixels at random."""
    p: float
    """Probability of a mean change (over the fractions) as large by random pixels: of a permutation test."""

    @property
    def ratio(self) -> float:
        """How many times farther the attributed pixels move the output, mean over the fractions."""
        chance = float(np.mean(self.random))
        return float(np.mean(self.attributed)) / chance if chance else float("nan")


def deletion_test(
    function: Function, patch: Tensor, at: tuple[int, int, int], found: Tensor, seed: int = 0
) -> Deletion:
    """Delete the pixels with the largest attribution, and as many at random, and see how far the output moves.

    Parameters
    ----------
    function, patch, at
        As of `integrated_gradients`.
    found : Tensor
        (C, S, S) attributions; pixels where all bands have 0 lie outside the receptive field and are left alone.
    seed : int
        Of the draws.
    """
    weight = found.abs().sum(dim=0).flatten()
    field = torch.nonzero(weight).flatten()
    ranked = field[torch.argsort(weight[field], descending=True, stable=True)]
    generator = torch.Generator().manual_seed(seed)
    orders = [ranked, *(field[torch.randperm(len(field), generator=generator)] for _ in range(DRAWS))]
    counts = [max(1, round(share * len(field))) for share in FRACTIONS]
    base, moved = baseline_of(patch), torch.zeros(len(orders), len(counts), dtype=patch.dtype)
    with torch.no_grad():
        before = function(patch[None])[(0, *at)]
        for number, order in enumerate(orders):
            deleted = patch.flatten(1).repeat(len(counts), 1, 1)
            for row, count in zip(deleted, counts, strict=True):
                row[:, order[:count]] = base.flatten(1)[:, order[:count]]
            moved[number] = (function(deleted.reshape(-1, *patch.shape))[(slice(None), *at)] - before).abs()
    means = moved.mean(dim=1)
    as_large = int((means[1:] >= means[0]).sum())
    return Deletion(FRACTIONS, _numbers(moved[0]), _numbers(moved[1:].mean(dim=0)), (1 + as_large) / (1 + DRAWS))


def _numbers(values: Tensor) -> tuple[float, ...]:
    found: NDArray[np.float64] = values.double().numpy()
    return tuple(float(value) for value in found)
