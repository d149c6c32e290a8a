"""Tasks on scenes whose blur and noise are known: what a network is adapted to, also where none is clean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scenelift.models.degradations import white_noise
from scenelift.models.errors import ModelError
from scenelift.models.networks.denoiser import STRONGEST
from scenelift.models.sensing.blurs import MTF_RANGE, Blur, decimate
from scenelift.models.training.tasks import LEVEL, BlindSuperResolution, Inputs

MOST_CASES = 3
"""Scenes whose blur and noise a network is validated on, at most."""
LEAST_NOISE = 2e-5
"""Noise (reflectance) that every scene has at least: half a digital number of 16 bits."""


@dataclass(frozen=True)
class Known:
    """Blur and noise of a scene."""

    blur: tuple[Blur, ...]
    """One a band."""
    noise: tuple[float, ...]
    """Standard deviation in each band, reflectance."""


@dataclass(frozen=True)
class KnownSuperResolution:
    """Wald's protocol with the blur and the noise of one's own scenes; every image draws those of one scene."""

    known: tuple[Known, ...]
    scale: int = 2
    told: bool = False
    """Whether the network is told them."""
    transfer_error: float = 0.02
    """Standard deviation of the error of the transfer at Nyquist that is drawn: an estimate has one."""

    def __post_init__(self) -> None:
        if not self.known or any(len(each.blur) != len(each.noise) for each in self.known):
            raise ModelError("degradation: known must name scenes, each with as many blurs as noise levels")

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Inputs:
        """Return ((N, C, H / scale, W / scale),); for a network that is told, estimate and condition, too."""
        picks = torch.randint(len(self.known), (len(clean),), generator=generator).tolist()
        errors = torch.randn(len(clean), clean.shape[1], generator=generator).mul(self.transfer_error).tolist()
        true = [
            Known(tuple(_moved(b, e) for b, e in zip(self.known[i].blur, row, strict=True)), self.known[i].noise)
            for i, row in zip(picks, errors, strict=True)
        ]
        low = self._low(clean, true, generator)
        if not self.told:
            return (low,)
        said = [self.known[i] for i in picks]
        blurs, noise = [list(each.blur) for each in said], [list(each.noise) for each in said]
        return (low, *BlindSuperResolution(self.scale).told(low, blurs, noise))

    def _low(self, clean: Tensor, of: list[Known], generator: torch.Generator) -> Tensor:
        low = decimate(clean, self.scale, [[blur.kernel(self.scale) for blur in each.blur] for each in of])
        return white_noise(low, torch.tensor([each.noise for each in of])[..., None, None], generator)

    def cases(self) -> tuple[Known, ...]:
        """Return the scenes that a network which is told blur and noise is validated on: some of all."""
        step = -(-len(self.known) // MOST_CASES)
        return self.known[::step]

    def validated(self, clean: Tensor, generator: torch.Generator) -> tuple[Inputs, Tensor]:
        """Return fixed inputs and targets: for each of the cases (told), or each image with one of the scenes."""
        if self.told:
            return tuple(self._low(clean, [case] * len(clean), generator) for case in self.cases()), clean
        return (self._low(clean, [self.known[i % len(self.known)] for i in range(len(clean))], generator),), clean

    def weight(self, inputs: Inputs) -> Tensor | float:
        """Return 1: every image counts alike."""
        return 1.0

    def misfit(self, prediction: Tensor, inputs: Inputs) -> Tensor:
        """Degrade the prediction as the first scene is; see `scenelift.models.training.tasks.Task`."""
        kernels = [blur.kernel(self.scale) for blur in self.known[0].blur]
        return F.l1_loss(decimate(prediction, self.scale, [kernels] * len(prediction)), inputs[0])

    def conditions(self) -> dict[str, list[float]]:
        """Return transfers at Nyquist and noise of all scenes; see `scenelift.models.training.tasks.Task`."""
        transfers = [blur.at_nyquist(self.scale) for each in self.known for blur in each.blur]
        noise = [sigma for each in self.known for sigma in each.noise]
        return {"mtf": [round(min(transfers), 3), round(max(transfers), 3)], "noise": [min(noise), max(noise)]}


def _moved(blur: Blur, error: float) -> Blur:
    """Return a Gaussian of a transfer that is off by some error, on a grid of hundredths; others as they are."""
    low, high = MTF_RANGE
    return Blur("gaussian", round(min(max(blur.mtf + error, low), high), 2)) if blur.kind == "gaussian" else blur


@dataclass(frozen=True)
class KnownDenoising:
    """Denoising learned from noisy scenes alone, whose pixels are corrupted further, twice, by uncorrelated noise.

    To a noisy image y with noise of standard deviation s, noise z of standard deviation r s is added for the input,
    y + z, and z / r² is taken away for the target, y - z / r². The noise of the two is uncorrelated, so that in the
    mean over all pixels nothing is gained by predicting the target's: the best prediction is that of the clean image,
    as in Noise2Noise, with one image (Pang et al., "Recorrupted-to-Recorrupted: unsupervised deep learning for image
    denoising", CVPR 2021). It wants s to be known; for a large r the target is the image itself.
    """

    noise: tuple[float, ...]
    """Standard deviation in each band of the scenes, reflectance."""
    sigma_max: float = STRONGEST
    """Largest standard deviation that is added, reflectance."""
    scale: int = 1

    def __post_init__(self) -> None:
        if not self.noise or not all(0 <= sigma < math.inf for sigma in self.noise):
            raise ModelError(f"degradation: noise must be one standard deviation a band, got {list(self.noise)}")

    @property
    def own(self) -> Tensor:
        """The scenes' noise, (1, C, 1, 1)."""
        return torch.tensor(self.noise).clamp(min=LEAST_NOISE)[None, :, None, None]

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Inputs:
        """Return the inputs of `pair`."""
        return self.pair(clean, generator)[0]

    def pair(self, noisy: Tensor, generator: torch.Generator) -> tuple[Inputs, Tensor]:
        """Return ((N, C, H, W) noisier, (N, 1, 1, 1) standard deviation) and the target (N, C, H, W).

        Half of the images get noise of about their own strength, the others any up to ``sigma_max``.
        """
        draws = torch.rand(2, len(noisy), 1, 1, 1, generator=generator)
        near = self.own * 4.0 ** (draws[1] - 0.5)  # half as strong to twice
        far = torch.maximum(self.sigma_max * draws[1] ** 2, self.own / 2)
        return self._corrupted(noisy, torch.where(draws[0] < 0.5, near, far), generator)

    def validated(self, noisy: Tensor, generator: torch.Generator) -> tuple[Inputs, Tensor]:
        """Return fixed inputs and targets: as much noise again as the scenes have."""
        return self._corrupted(noisy, self.own.expand(len(noisy), -1, 1, 1), generator)

    def _corrupted(self, noisy: Tensor, added: Tensor, generator: torch.Generator) -> tuple[Inputs, Tensor]:
        z = added * torch.randn(noisy.shape, generator=generator)
        told = (self.own.square() + added.square()).sqrt().mean(1, keepdim=True)
        return (noisy + z, told), noisy - z * (self.own / added).square()

    def weight(self, inputs: Inputs) -> Tensor | float:
        """Return weights that make errors count relative to the noise, see `Denoising`."""
        return LEVEL / (inputs[1] + LEVEL / 8)

    def misfit(self, prediction: Tensor, inputs: Inputs) -> Tensor:
        """Compare with the noisier image; see `scenelift.models.training.tasks.Task`."""
        return F.l1_loss(prediction, inputs[0])

    def conditions(self) -> dict[str, list[float]]:
        """Return the noise; see `scenelift.models.training.tasks.Task`."""
        return {"noise": [min(self.noise), max(*self.noise, self.sigma_max)]}
