"""Training of the sharpening network: on places one scale lower, where the truth is known."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from scenelift.models.networks.sharpener import CENTRES, FACTS, DetailNetwork
from scenelift.models.sharpening.fitting import fit
from scenelift.models.sharpening.layout import BandGrid
from scenelift.models.sharpening.network import Inputs, lacking

EDGE = 4
"""Pixels at a patch's edge that do not count: zero padding reaches further than it should."""
HUBER = 4.0
"""Errors, in root mean squares, beyond which they count by their size and no longer by its square."""
UNKNOWN = 0.15
"""How often the wavelength is not told."""
GAINS = 0.2
"""Largest change (natural logarithm) of an example's levels and of its details."""


@dataclass(frozen=True)
class Example:
    """All coarse bands of one image, as the network sees them."""

    inputs: Tensor
    """(bands, inputs, H, W), half precision."""
    target: Tensor
    """(bands, 1, H, W): what the closed form lacks, in units of the band's detail."""
    facts: Tensor
    """(bands, FACTS)."""
    size: Tensor
    """(bands,) root mean square of the target: decibels count alike, however large."""
    weight: float = 1.0
    """How often it is drawn."""


def example(
    images: NDArray[np.float32], truth: NDArray[np.float32], layout: Sequence[BandGrid], weight: float = 1.0
) -> Example:
    """Make an example of an image whose coarse bands' truth is known.

    Parameters
    ----------
    images : ndarray of float32, shape (bands, H, W)
        As `ClosedForm` takes them, without holes; coarse bands of one grid, after the guides.
    truth : ndarray of float32, shape (coarse bands, H, W)
    layout : sequence of BandGrid
    weight : float
    """
    module = Inputs(layout, fit([images], layout))
    inputs, missing = lacking(module, images, truth)
    size = missing[:, EDGE:-EDGE, EDGE:-EDGE].square().mean((1, 2)).sqrt().clamp(min=1e-3)
    return Example(inputs.half(), missing[:, None].half(), module.facts(0), size, weight)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast."""

    steps: int = 3000
    batch: int = 32
    side: int = 40
    rate: float = 2e-3
    decay: float = 0.02
    """Of the weights, as of AdamW (Loshchilov and Hutter, ICLR 2019)."""
    average: float = 0.995
    """Of the running mean of the weights, which is what is kept."""
    seconds: float = math.inf
    """The schedule is shortened so that training ends about then."""


def train(
    examples: Sequence[Example],
    network: DetailNetwork,
    schedule: Schedule | None = None,
    seed: int = 0,
    report: Callable[[int, float], None] | None = None,
) -> DetailNetwork:
    """Train a padded network; return the mean of its weights over the last steps.

    Parameters
    ----------
    examples : sequence of Example
    network : DetailNetwork
        Padded; changed. Training runs on its device.
    schedule : Schedule, optional
    seed : int
    report : callable, optional
        Called with the step and the running loss.
    """
    plan, started = schedule or Schedule(), time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    device = next(network.parameters()).device
    optimizer = torch.optim.AdamW(network.parameters(), plan.rate, betas=(0.9, 0.99), weight_decay=plan.decay)
    kept = copy.deepcopy(network)
    network.to(memory_format=torch.channels_last)
    weights = torch.tensor([e.weight for e in examples])
    inner, loss_mean = (..., slice(EDGE, -EDGE), slice(EDGE, -EDGE)), 0.0
    for step in range(plan.steps):
        done = max(step / plan.steps, (time.perf_counter() - started) / plan.seconds)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * min(1.0, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * done))
        batch = _draw(examples, weights, plan, network.guides, generator)
        inputs, target, facts, size = (values.to(device) for values in batch)
        with torch.autocast(device.type, torch.bfloat16):
            found = network(inputs.contiguous(memory_format=torch.channels_last), facts)
        loss = F.huber_loss((found.float() / size)[inner], (target / size)[inner], delta=HUBER)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            share = min(plan.average, step / (step + 10))
            for mean, now in zip(kept.parameters(), network.parameters(), strict=True):
                mean.lerp_(now, 1 - share)
        loss_mean = loss.item() if step == 0 else 0.98 * loss_mean + 0.02 * loss.item()
        if report and (step + 1) % 100 == 0:
            report(step + 1, loss_mean)
    return kept.eval()


def _draw(
    examples: Sequence[Example], weights: Tensor, plan: Schedule, guides: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a batch: patches at random places, flipped and turned, levels and details scaled."""

    def number(below: int) -> int:
        return int(torch.randint(max(1, below), (1,), generator=generator))

    inputs, targets, facts, sizes = [], [], [], []
    for which in torch.multinomial(weights, plan.batch, True, generator=generator).tolist():
        chosen = examples[which]
        band = number(len(chosen.inputs))
        row, col = (number(side - plan.side + 1) for side in chosen.inputs.shape[2:])
        at = (slice(None), slice(row, row + plan.side), slice(col, col + plan.side))
        x, y = chosen.inputs[band][at].float(), chosen.target[band][at].float()
        detail, level = torch.exp((2 * torch.rand(2, generator=generator) - 1) * GAINS).tolist()
        x[:guides] *= detail
        x[guides : 2 * guides] = (x[guides : 2 * guides] + 1) * level - 1
        x[2 * guides : 2 * guides + 2] *= detail
        x[2 * guides + 2] = (x[2 * guides + 2] + 1) * level - 1
        turns, flip = number(4), number(2)
        x, y = (torch.rot90(v.flip(-1) if flip else v, turns, (-2, -1)) for v in (x, y * detail))
        inputs.append(x)
        targets.append(y)
        known = torch.rand(1, generator=generator) > UNKNOWN
        facts.append(torch.where(torch.arange(FACTS) < FACTS - len(CENTRES), 1, known) * chosen.facts[band])
        sizes.append(chosen.size[band])
    return torch.stack(inputs), torch.stack(targets), torch.stack(facts), torch.stack(sizes)[:, None, None, None]
