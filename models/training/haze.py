"""Learning to take haze away: scenes made of patches, each under air of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scenelift.models.errors import ModelError
from scenelift.models.sensing.atmosphere import COLOURS, REFERENCE, Air, statistics, thickness, through
from scenelift.models.training.tasks import Inputs


@dataclass(frozen=True)
class Dehazing:
    """Haze over a clean image; a network is told percentiles of the whole scene.

    Consecutive patches of a batch are one scene: they have one air, in which haze is thick here and thin there, and one
    row of percentiles.
    """

    depth: float = 1.2
    """Largest optical depth at 550 nm."""
    airlight: tuple[float, float] = (0.2, 0.6)
    """Range of the reflectance of endless haze."""
    clear_share: float = 0.1
    """Share of scenes without haze."""
    dim_share: float = 0.3
    """Share of scenes with less contrast, too."""
    together: int = 8
    """Patches of a scene."""
    scale: int = 1

    def __post_init__(self) -> None:
        low, high = self.airlight
        if not 0 < self.depth <= 5 or not 0 < low <= high <= 2 or not 1 <= self.together <= 256:
            raise ModelError(f"degradation: depth, airlight or together out of range in {self}")

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Inputs:
        """Return ((N, C, H, W) hazy, (N, C · 7) percentiles of each patch's scene)."""
        seen, told = [], []
        for scene in clean.split(self.together):
            hazy = self.over(scene, self.draw(generator), generator)
            seen.append(hazy)
            told.append(statistics(hazy).flatten().expand(len(hazy), -1))
        return torch.cat(seen), torch.cat(told)

    def draw(self, generator: torch.Generator) -> Air:
        """Return the air of a scene."""
        u = torch.rand(7, generator=generator).tolist()
        low, high = self.airlight
        clear = u[0] < self.clear_share
        return Air(
            depth=0.0 if clear else self.depth * u[1],
            structure=u[2],
            exponent=1.6 * u[3],
            airlight=low + (high - low) * u[4],
            contrast=0.6 + 0.4 * u[6] if u[5] < self.dim_share else 1.0,
        )

    def over(self, clean: Tensor, air: Air, generator: torch.Generator) -> Tensor:
        """Return patches of a scene (N, C, H, W) seen through its air."""
        field = thickness(len(clean), (clean.shape[2], clean.shape[3]), generator)
        at = COLOURS if clean.shape[1] == len(COLOURS) else (REFERENCE,) * clean.shape[1]
        return through(clean, air, field, at)

    def weight(self, inputs: Inputs) -> Tensor | float:
        """Return 1: every image counts alike."""
        return 1.0

    def misfit(self, prediction: Tensor, inputs: Inputs) -> Tensor:
        """Compare with the hazy image; see `scenelift.models.training.tasks.Task`."""
        return F.l1_loss(prediction, inputs[0])

    def conditions(self) -> dict[str, list[float]]:
        """Return the range of optical depths; see `scenelift.models.training.tasks.Task`."""
        return {"depth": [0.0, self.depth]}
