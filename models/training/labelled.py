"""The objective of labelled images and pixels, and their augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.training.haze import Dehazing
from scenelift.models.training.objectives import Step
from scenelift.models.training.schedule import Phase

IGNORED = -1
"""Label of pixels without a label; they do not count."""
GREY = 0.1
"""Reflectance that a change of gamma leaves as it is."""


class LabelledSampler(Protocol):
    """Draws labelled samples."""

    def __call__(self, count: int, subset: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return (count, C, H, W) reflectance and (count,) or (count, H, W) int64 labels."""
        ...


@dataclass(frozen=True)
class Augment:
    """What happens to a training image besides a rotation and a reflection."""

    gains: tuple[float, float] = (1.0, 1.0)
    """Range of a random factor on all bands of an image."""
    tint: float = 0.0
    """Standard deviation of the logarithm of a further random factor for each band."""
    gammas: tuple[float, float] = (1.0, 1.0)
    """Range of the exponent, about a middle grey, on half of the images: other seasons, other instruments."""
    saturation: float = 0.0
    """Largest share by which half of the images get more or less colourful."""
    haze: float = 0.0
    """Largest optical depth at 550 nm of the air over half of the images, some of which lose contrast, too."""
    offset: float = 0.0
    """Standard deviation, reflectance, of what is added to each band of an image: other suns, other air."""
    mixup: float = 0.0
    """Share of batches whose images are averaged with other images of the batch, labels alike."""
    smoothing: float = 0.0
    """Label smoothing."""
    blur: float = 0.0
    """Largest standard deviation, pixels, of the Gaussian that blurs half of the images."""
    noise: float = 0.0
    """Largest standard deviation, reflectance, of the white noise on half of the images."""
    zoom: tuple[float, float] = (1.0, 1.0)
    """Range of the factor by which half of the images are enlarged about their middle; below 1 shows them mirrored."""

    def __post_init__(self) -> None:
        if not 0 < self.gains[0] <= self.gains[1]:
            raise ModelError(f"augment.gains must be two positive factors, the smaller first, got {list(self.gains)}")
        if not 0 < self.gammas[0] <= self.gammas[1]:
            raise ModelError(
                f"augment.gammas must be two positive exponents, the smaller first, got {list(self.gammas)}"
            )
        if not (0 <= self.saturation <= 1 and 0 <= self.haze <= 5 and 0 <= self.offset <= 0.1):
            raise ModelError(
                "augment.saturation must be from 0 to 1, .haze from 0 to 5, .offset from 0 to 0.1, "
                f"got {self.saturation}, {self.haze}, {self.offset}"
            )
        if not (0 <= self.mixup <= 1 and 0 <= self.smoothing < 1):
            raise ModelError(
                f"augment.mixup must be from 0 to 1, .smoothing from 0 to below 1, got {self.mixup}, {self.smoothing}"
            )
        if min(self.tint, self.blur, self.noise) < 0 or self.blur > 4:
            raise ModelError(
                "augment.tint, .blur and .noise must not be below 0, nor .blur above 4 pixels, "
                f"got {self.tint}, {self.blur}, {self.noise}"
            )
        if not 0.25 <= self.zoom[0] <= self.zoom[1] <= 4:
            raise ModelError(
                f"augment.zoom must be two factors from 0.25 to 4, the smaller first, got {list(self.zoom)}"
            )


class CrossEntropy:
    """The cross-entropy of labelled images or pixels, which are augmented first.

    Parameters
    ----------
    sampler : LabelledSampler
        The network turns its images into logits (N, K) or (N, K, H, W).
    augment : Augment
    """

    modules: Mapping[str, nn.Module] = {}
    optimizers: Sequence[torch.optim.Optimizer] = ()

    def __init__(self, sampler: LabelledSampler, augment: Augment | None = None) -> None:
        self.sampler, self.augment = sampler, augment or Augment()

    def draw(self, phase: Phase, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, float]:
        """Return a batch: images, labels, with which image each is averaged, and the share of the image itself."""
        images, labels = self.sampler(count, phase.subset, generator)
        images, other, share = self._mixed(jitter(images, self.augment, generator), generator)
        return images, labels, other, share

    def __call__(self, step: Step) -> Tensor:
        """Return the loss of the step's batch."""
        images, labels, other, share = step.batch
        logits = step.predict((step.place(images),))
        loss = self._mean(logits, labels, step)
        return loss if share == 1 else share * loss + (1 - share) * self._mean(logits, labels[other], step)

    def _mean(self, logits: Tensor, labels: Tensor, step: Step) -> Tensor:
        """Return the loss of this process; the mean over processes is the mean over all labels of the batch."""
        own = step.place(labels)
        counted = int((own != IGNORED).sum())
        if not counted:  # the mean of nothing is not a number
            return logits.sum() * 0.0
        share = counted * step.group.size / int((labels != IGNORED).sum())
        return share * F.cross_entropy(logits, own, ignore_index=IGNORED, label_smoothing=self.augment.smoothing)

    def _mixed(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
        """Return images, the partner of each, and the share of the image itself (1: not mixed)."""
        draw, share = torch.rand(2, generator=generator).tolist()
        partner = torch.randperm(len(images), generator=generator)
        if draw >= self.augment.mixup:
            return images, partner, 1.0
        return share * images + (1 - share) * images[partner], partner, share


def jitter(images: Tensor, augment: Augment, generator: torch.Generator) -> Tensor:
    """Return (N, C, H, W) images with random factors on image and bands, some relit, zoomed, blurred, noisy."""
    low, high = augment.gains
    whole = low * (high / low) ** torch.rand(len(images), 1, 1, 1, generator=generator)
    each = torch.exp(augment.tint * torch.randn(len(images), images.shape[1], 1, 1, generator=generator))
    images = _relit(images * whole * each, augment, generator)
    if augment.zoom != (1.0, 1.0):
        images = zoomed(images, _factors(len(images), augment.zoom, generator))
    if augment.blur:
        images = blurred(images, augment.blur * _half(len(images), generator))
    if augment.noise:
        level = augment.noise * _half(len(images), generator)[:, None, None, None]
        images = images + level * torch.randn(images.shape, generator=generator)
    return images


def _relit(images: Tensor, augment: Augment, generator: torch.Generator) -> Tensor:
    """Return images as another season, sun and air would show them."""
    if augment.gammas != (1.0, 1.0):
        exponents = _factors(len(images), augment.gammas, generator)[:, None, None, None]
        images = GREY * (images.clamp(min=0) / GREY) ** exponents
    if augment.saturation:
        grey = images.mean(1, keepdim=True)
        change = _half(len(images), generator) * (2 * torch.rand(len(images), generator=generator) - 1).sign()
        images = grey + (1 + augment.saturation * change[:, None, None, None]) * (images - grey)
    if augment.haze:
        air = Dehazing(depth=augment.haze, airlight=(0.15, 0.5), clear_share=0.5, together=1)
        images = torch.cat([air.over(image, air.draw(generator), generator) for image in images.split(1)])
    if augment.offset:
        images = images + augment.offset * torch.randn(len(images), images.shape[1], 1, 1, generator=generator)
    return images


def _half(count: int, generator: torch.Generator) -> Tensor:
    """Return (count,) numbers: 0 for about half, the others even in 0..1."""
    return (2 * torch.rand(count, generator=generator) - 1).clamp(min=0)


def _factors(count: int, limits: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Return (count,) factors: 1 for about half, the others even on a logarithmic scale."""
    low, high = limits
    draw = torch.rand(count, 2, generator=generator)
    return torch.where(draw[:, 0] < 0.5, 1.0, low * (high / low) ** draw[:, 1])


def zoomed(images: Tensor, factors: Tensor) -> Tensor:
    """Return (N, C, H, W) images, each enlarged (N,) times about its middle: bicubic, edges mirrored."""
    turns = torch.zeros(len(images), 2, 3, dtype=images.dtype)
    turns[:, 0, 0] = turns[:, 1, 1] = 1 / factors
    grid = F.affine_grid(turns, list(images.shape), align_corners=False)
    changed = F.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return torch.where((factors == 1)[:, None, None, None], images, changed)


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Return (N, C, H, W) images, each blurred by a Gaussian of its own (N,) standard deviation in pixels."""
    reach = max(1, int(3 * float(sigma.max()) + 0.5))
    at = torch.arange(-reach, reach + 1, dtype=images.dtype)
    kernel = torch.exp(-(at**2) / (2 * sigma[:, None].clamp(min=1e-3) ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(images.shape[1], 0)[:, None]  # (N·C, 1, taps)
    flat = F.pad(images, (reach,) * 4, mode="reflect").reshape(1, -1, *(n + 2 * reach for n in images.shape[2:]))
    rows = F.conv2d(flat, kernel[..., None], groups=len(kernel))
    return F.conv2d(rows, kernel[:, :, None], groups=len(kernel)).reshape(images.shape)


def turned(image: Tensor, turn: int) -> Tensor:
    """Return one of the eight turned and mirrored forms of (..., H, W), ``turn`` from 0 to 7."""
    rotated = torch.rot90(image, turn % 4, (-2, -1))
    return rotated.flip(-1) if turn >= 4 else rotated
