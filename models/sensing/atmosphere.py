"""What lies between sensor and ground, as seeded torch functions: haze, low sun, low contrast.

The same code trains and evaluates. Arrays are float32 reflectance (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scenelift.models.errors import ModelError
from scenelift.models.spec import PERCENTILES

REFERENCE = 550.0
"""Wavelength at which optical depth is told, nm."""
COLOURS = (665.0, 560.0, 490.0)
"""Of red, green and blue."""


@dataclass(frozen=True)
class Air:
    """The air over one scene."""

    depth: float = 0.5
    """Optical depth at 550 nm, mean over the scene."""
    structure: float = 0.5
    """0: everywhere the same; 1: from none to twice as much."""
    exponent: float = 1.0
    """Ångström's: optical depth falls with the wavelength to this power; 0 for large drops, 1.3 for fine dust."""
    airlight: float = 0.35
    """Reflectance of endless haze."""
    sun: float = 1.0
    """Share of the light that comes: below 1 the scene is darker, as under a low sun."""
    contrast: float = 1.0
    """Share of the contrast that is left, around the mean of each band."""

    def __post_init__(self) -> None:
        limits = {"depth": 5.0, "structure": 1.0, "exponent": 4.0, "airlight": 2.0, "sun": 2.0, "contrast": 2.0}
        for name, most in limits.items():
            if not 0 <= getattr(self, name) <= most:
                raise ModelError(f"{name} of the air must be from 0 to {most:g}, got {getattr(self, name):g}")


def thickness(count: int, side: tuple[int, int], generator: torch.Generator, cell: int = 48) -> Tensor:
    """Return (count, 1, H, W) smooth random fields from 0 to 2, mean about 1: where the haze is thick.

    Parameters
    ----------
    count : int
    side : (int, int)
        Height and width.
    generator : torch.Generator
    cell : int
        Pixels from one random number to the next at the coarsest of three scales; the others are 2 and 4 times finer,
        and as much weaker.
    """
    total = torch.zeros(count, 1, *side)
    for level in range(3):
        step = max(2, cell >> level)
        coarse = [length // step + 4 for length in side]
        field = torch.rand(count, 1, *coarse, generator=generator)
        fine = F.interpolate(field, scale_factor=step, mode="bicubic", align_corners=False)
        row, col = (int(torch.randint(step, (), generator=generator)) for _ in range(2))
        total += fine[..., row + step : row + step + side[0], col + step : col + step + side[1]] / 2**level
    return (total / 1.75 * 2).clamp(0, 2)


def through(clean: Tensor, air: Air, field: Tensor, wavelengths: Sequence[float]) -> Tensor:
    """Return what a sensor sees of the ground through haze.

    By the atmospheric scattering model I = J t + A (1 - t), t = exp(-optical depth), whose depth falls with the
    wavelength (Ångström 1929).

    Parameters
    ----------
    clean : Tensor
        (N, C, H, W).
    air : Air
    field : Tensor
        (N, 1, H, W), see `thickness`.
    wavelengths : sequence of float
        Of each band, nm.
    """
    x = clean * air.sun
    if air.contrast != 1:
        mean = x.mean((0, 2, 3), keepdim=True)
        x = mean + air.contrast * (x - mean)
    at = torch.tensor(list(wavelengths), dtype=clean.dtype)[None, :, None, None]
    depth = air.depth * (1 + air.structure * (field - 1)) * (REFERENCE / at) ** air.exponent
    transmission = torch.exp(-depth)
    return x * transmission + air.airlight * (1 - transmission)


def statistics(images: Tensor) -> Tensor:
    """Return the `PERCENTILES` of each band over all pixels of all images, (C, 7)."""
    bands = images.transpose(0, 1).flatten(1)
    if bands.shape[1] > 1 << 23:  # more than torch's quantile takes
        bands = bands[:, :: -(-bands.shape[1] // (1 << 23))]
    return torch.quantile(bands, torch.tensor(PERCENTILES, dtype=bands.dtype) / 100, dim=1).T.contiguous()
