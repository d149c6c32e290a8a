"""Calibration: error models by maximum likelihood under a Laplace distribution; the temperature of a classifier."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from scenelift.models.calibration import ErrorModel

STEPS, BATCH, RATE = 4000, 4096, 5e-3


def fit(errors: ErrorModel, features: Tensor, absolute: Tensor, seed: int = 0, steps: int = STEPS) -> float:
    """Fit the widths of Laplace distributions to absolute errors.

    A Laplace distribution of width b has the density exp(-|e| / b) / 2b: large errors, of which there are more than a
    Gaussian has, do not rule the fit.

    Parameters
    ----------
    errors : ErrorModel
        Changed in place.
    features : Tensor
        (n, F), see `ErrorModel.features`.
    absolute : Tensor
        (n,) |error|, reflectance.
    seed : int
    steps : int

    Returns
    -------
    float
        Mean negative log likelihood of the last tenth of the steps.
    """
    generator = torch.Generator().manual_seed(seed)
    errors.middle.copy_(features.mean(0))
    errors.width.copy_(features.std(0).clamp(min=1e-3))
    with torch.no_grad():
        for part in errors.layers:
            if isinstance(part, torch.nn.Conv2d):
                size = 0.1 if part.out_channels == 1 else 1.0
                draw = torch.randn(part.weight.shape, generator=generator)
                part.weight.copy_(size * draw / part.in_channels**0.5)
                part.bias.zero_()  # type: ignore[union-attr]
        errors.last_bias.fill_(float(absolute.mean().log()))
    optimiser = torch.optim.Adam(errors.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    losses = []
    for _ in range(steps):
        at = torch.randint(len(features), (BATCH,), generator=generator)
        width = errors.log_deviation(features[at][..., None, None]).flatten()
        loss = (absolute[at] / width.exp() + width).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)


def temperature(logits: Tensor, labels: Tensor, limit: float = 5.0) -> float:
    """Return the divisor of logits under which the labels are likeliest (Guo et al., ICML 2017).

    Parameters
    ----------
    logits : Tensor
        (n, K).
    labels : Tensor
        (n,) int64.
    limit : float
        It lies from 1 / limit to limit: where every image is named rightly, the likelihood knows no bound.
    """
    low, high = -math.log(limit), math.log(limit)
    for _ in range(40):  # the loss falls, then rises: each pass leaves two thirds of the range
        third = (high - low) / 3
        left, right = (F.cross_entropy(logits / math.exp(at), labels).item() for at in (low + third, high - third))
        low, high = (low, high - third) if left < right else (low + third, high)
    return math.exp((low + high) / 2)


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the expected calibration error: how far shares named rightly lie from the probabilities told.

    Parameters
    ----------
    probabilities : Tensor
        (n, K).
    labels : Tensor
        (n,) int64.
    bins : int
        Equal intervals of the largest probability, over which the difference is averaged by their number of images.
    """
    told, named = probabilities.max(1)
    gap = (named == labels).double() - told.double()
    at = (told * bins).long().clamp(max=bins - 1)
    return float(torch.zeros(bins, dtype=torch.double).index_add_(0, at, gap).abs().sum() / len(labels))
