"""What a network is trained for: how a clean patch becomes the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from scenelift.models.degradations import (
    SENTINEL2_MTF,
    bicubic_decimate,
    mtf_decimate,
    white_noise,
)
from scenelift.models.errors import ModelError

Inputs = tuple[Tensor, ...]

LEVEL = 0.016
"""Noise (reflectance) whose errors count with a weight of about one."""


class Task(Protocol):
    """Turns clean patches into a network's inputs."""

    @property
    def scale(self) -> int:
        """Output pixels per input pixel."""
        ...

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Inputs:
        """Return the network's inputs for (N, C, H, W) clean reflectance."""
        ...

    def weight(self, inputs: Inputs) -> Tensor | float:
        """Return by what answer and truth are multiplied before they are compared."""
        ...


@dataclass(frozen=True)
class SuperResolution:
    """Wald's protocol: the image itself is the truth, its degraded form the input."""

    scale: int = 2
    mtf: tuple[float, ...] = tuple(SENTINEL2_MTF.values())
    """Transfers at Nyquist; every batch draws one a band (training), or uses them in order (``fixed``)."""
    bicubic_share: float = 0.0
    """Share of batches degraded by antialiased bicubic interpolation instead."""
    noise: float = 0.0
    """Largest standard deviation of white noise on the low-resolution image, reflectance."""

    def __post_init__(self) -> None:
        if not isinstance(self.mtf, tuple) or not self.mtf or not all(0 < transfer < 1 for transfer in self.mtf):
            raise ModelError(f"degradation: mtf must be a list of transfers between 0 and 1, got {self.mtf!r}")

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Inputs:
        """Return ((N, C, H / scale, W / scale),)."""
        draws = torch.rand(2, generator=generator)
        if draws[0] < self.bicubic_share:
            low = bicubic_decimate(clean, self.scale)
        else:
            picks = torch.randint(len(self.mtf), (clean.shape[1],), generator=generator)
            low = mtf_decimate(clean, self.scale, [self.mtf[int(i)] for i in picks])
        if self.noise:
            low = white_noise(low, float(draws[1]) * self.noise, generator)
        return (low,)

    def weight(self, inputs: Inputs) -> Tensor | float:
        """Return 1: every image counts alike."""
        return 1.0

    def fixed(self, clean: Tensor, mtf: float | Sequence[float]) -> Inputs:
        """Return the inputs of an evaluation: given transfers, no noise."""
        return (mtf_decimate(clean, self.scale, mtf),)


@dataclass(frozen=True)
class Denoising:
    """White noise of a known level on a clean image."""

    sigma_max: float = 0.06
    """Largest standard deviation, reflectance."""
    power: float = 2.0
    """Levels are sigma_max · u^power: above 1, low levels, which real scenes have, come more often."""
    scale: int = 1

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Inputs:
        """Return ((N, C, H, W) noisy, (N, 1, 1, 1) standard deviation)."""
        sigma = self.sigma_max * torch.rand(len(clean), 1, 1, 1, generator=generator) ** self.power
        return white_noise(clean, sigma, generator), sigma

    def weight(self, inputs: Inputs) -> Tensor | float:
        """Return weights that make errors count relative to the noise; otherwise the strongest noise rules alone."""
        return LEVEL / (inputs[1] + LEVEL / 8)
