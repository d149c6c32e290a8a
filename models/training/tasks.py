"""What a network is trained for: how a clean patch becomes the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from scenelift.models.degradations import (
    DEFAULT_MTF,
    SENTINEL2_MTF,
    bicubic_decimate,
    mtf_decimate,
    white_noise,
)
from scenelift.models.errors import ModelError
from scenelift.models.networks.conditioned import condition_of, linear, linear_filters
from scenelift.models.networks.denoiser import STRONGEST
from scenelift.models.sensing.blurs import MTF_RANGE, Blur, decimate_by, stacked

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
        """Return the factor by which prediction and target are multiplied before they are compared."""
        ...

    def misfit(self, prediction: Tensor, inputs: Inputs) -> Tensor:
        """Return the mean absolute difference (reflectance) between the prediction, degraded, and what was seen."""
        ...

    def conditions(self) -> dict[str, list[float]]:
        """Return the ranges of "mtf" (transfer at Nyquist) and "noise" (reflectance) that patches are degraded by."""
        ...


@runtime_checkable
class Staged(Protocol):
    """A task that draws what is random first, so that the arithmetic can be done where the network is."""

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Inputs:
        """Return what is random for clean patches of a shape: tensors of the CPU, one entry a patch."""
        ...

    def apply(self, clean: Tensor, drawn: Inputs) -> Inputs:
        """Return the network's inputs for clean patches and what was drawn for them, both on one device."""
        ...


@dataclass(frozen=True)
class SuperResolution:
    """Wald's protocol: the image itself is the target, its degraded form the input."""

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

    def misfit(self, prediction: Tensor, inputs: Inputs) -> Tensor:
        """Degrade the prediction by a middling transfer; see `Task`."""
        return F.l1_loss(mtf_decimate(prediction, self.scale, DEFAULT_MTF), inputs[0])

    def conditions(self) -> dict[str, list[float]]:
        """Return the transfers and the noise; see `Task`."""
        return {"mtf": [min(self.mtf), max(self.mtf)], "noise": [0.0, self.noise]}

    def fixed(self, clean: Tensor, mtf: float | Sequence[float]) -> Inputs:
        """Return the inputs of an evaluation: given transfers, no noise."""
        return (mtf_decimate(clean, self.scale, mtf),)


@dataclass(frozen=True)
class BlindSuperResolution:
    """Wald's protocol over every blur and noise that users' images have; the network is told which.

    Every image of a batch has its own blur and noise. Bands that go together have one kind of blur; their transfers
    differ a little, as a sensor's do.
    """

    scale: int = 2
    sensor_share: float = 0.15
    """Share of images with the transfers of Sentinel-2's bands, without noise."""
    resampled_share: float = 0.3
    """Share of images shrunk as libraries do: mean over the area, antialiased bicubic and Lanczos."""
    noisy_share: float = 0.6
    noise: float = 0.008
    """Largest standard deviation of the noise, reflectance; levels are noise · u³, so that low ones come often."""
    told_error: float = 0.01
    """Standard deviation of the error of the transfer that the network is told, as an estimate has one."""

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Inputs:
        """Return ((N, C, H / scale, W / scale), the linear estimate (N, C, H, W), the condition)."""
        return self.apply(clean, self.draw(clean.shape, generator))

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Inputs:
        """Return all that is random for clean patches (N, C, H, W), and what follows from it alone.

        These are kernels (N, C, taps), standard deviations (N, C, 1, 1), whether they grow with the signal, noise of
        standard deviation 1, filters of the linear estimate, and the condition.
        """
        count, bands, height, width = shape
        blurs, told, sigma = self._draw(count, bands, generator)
        kernels = stacked([[b.kernel(self.scale) for b in row] for row in blurs])
        spread = torch.tensor(sigma, dtype=torch.float32)[..., None, None]
        signal = torch.rand(count, 1, 1, 1, generator=generator) < 0.5  # shot noise grows with the signal
        noise = torch.randn(count, bands, height // self.scale, width // self.scale, generator=generator)
        return (kernels, spread, signal, noise, *self._told(told, sigma))

    def apply(self, clean: Tensor, drawn: Inputs) -> Inputs:
        """Return what `degrade` does, with what was drawn; on the device of the patches."""
        kernels, spread, signal, noise, filters, condition = drawn
        low = decimate_by(clean, self.scale, kernels)
        growth = torch.where(signal, (low / low.mean((2, 3), keepdim=True).clamp(min=1e-3)).clamp(0.1, 4).sqrt(), 1.0)
        low = low + spread * growth * noise
        return low, linear(low, self.scale, filters), condition

    def told(self, low: Tensor, blurs: list[list[Blur]], sigma: list[list[float]]) -> tuple[Tensor, Tensor]:
        """Return the linear estimate and the condition for known blurs and noise levels."""
        filters, condition = self._told(blurs, sigma)
        return linear(low, self.scale, filters), condition

    def _told(self, blurs: list[list[Blur]], sigma: list[list[float]]) -> tuple[Tensor, Tensor]:
        """Return filters (N, C, scale², taps, taps) and condition."""
        filters = [
            torch.stack([linear_filters(b, self.scale, s) for b, s in zip(*rows, strict=True)])
            for rows in zip(blurs, sigma, strict=True)
        ]
        responses = torch.tensor([[b.transfers(self.scale) for b in row] for row in blurs])
        return torch.stack(filters), condition_of(responses, torch.tensor(sigma))

    def _draw(
        self, count: int, bands: int, generator: torch.Generator
    ) -> tuple[list[list[Blur]], list[list[Blur]], list[list[float]]]:
        """Return blurs, blurs as told, and noise levels, from a grid so that filters are computed once."""
        blurs, told, levels = [], [], []
        sensor = list(SENTINEL2_MTF.values())
        for draw in torch.rand(count, 5, generator=generator).tolist():
            errors = torch.randn(2, bands, generator=generator).tolist()
            noisy = draw[1] < self.noisy_share
            if draw[0] < self.sensor_share:
                at = int(draw[2] * len(sensor))
                row = [Blur("gaussian", sensor[(at + band) % len(sensor)]) for band in range(bands)]
                noisy = False
            elif draw[0] < self.sensor_share + self.resampled_share:
                row = [Blur(RESAMPLED[int(draw[2] * len(RESAMPLED))])] * bands
            else:
                low, high = MTF_RANGE
                middle = low + (high - low) * draw[2]
                row = [_near(middle + 0.02 * errors[0][band]) for band in range(bands)]
            blurs.append(row)
            told.append(
                [
                    _near(b.mtf + self.told_error * e) if b.kind == "gaussian" else b
                    for b, e in zip(row, errors[1], strict=True)
                ]
            )
            step = round(12 * draw[3]) / 12
            levels.append([self.noise * step**3 if noisy else 0.0] * bands)
        return blurs, told, levels

    def weight(self, inputs: Inputs) -> Tensor | float:
        """Return 1: every image counts alike."""
        return 1.0

    def misfit(self, prediction: Tensor, inputs: Inputs) -> Tensor:
        """Compare means over coarse pixels with those of the least-squares estimate, which knows each image's blur."""
        ours, expected = (F.avg_pool2d(x, self.scale) for x in (prediction, inputs[1]))
        return F.l1_loss(ours, expected)

    def conditions(self) -> dict[str, list[float]]:
        """Return the noise, and transfers from the strongest blur to none; see `Task`."""
        return {"mtf": [MTF_RANGE[0], 1.0], "noise": [0.0, self.noise]}


RESAMPLED = ("area", "bicubic", "area", "bicubic", "lanczos")
"""Kinds of resampling, by how often they are met."""


def _near(mtf: float) -> Blur:
    low, high = MTF_RANGE
    return Blur("gaussian", round(min(max(mtf, low), high), 2))


@dataclass(frozen=True)
class Denoising:
    """White noise of a known level on a clean image."""

    sigma_max: float = STRONGEST
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

    def misfit(self, prediction: Tensor, inputs: Inputs) -> Tensor:
        """Compare with the noisy image; see `Task`."""
        return F.l1_loss(prediction, inputs[0])

    def conditions(self) -> dict[str, list[float]]:
        """Return the noise; see `Task`."""
        return {"noise": [0.0, self.sigma_max]}
