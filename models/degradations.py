"""What a sensor does to a scene, as seeded torch functions: the same code trains and evaluates.

Arrays are float32 reflectance (N, C, H, W). Every function that draws random numbers takes a
``torch.Generator``, so that a degradation can be repeated exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scenelift.models.errors import ModelError
from scenelift.models.sensing.blurs import DEFAULT_MTF, gaussian_sigma
from scenelift.models.sensing.sensors import SENTINEL2

SENTINEL2_MTF = {band: SENTINEL2[band] for band in ("B02", "B03", "B04", "B08")}
"""Modulation transfer at the Nyquist frequency of Sentinel-2's 10 m bands (used by the SEN2 fusion toolkits)."""

# Sentinel-2A noise model by band: alpha, beta (counts) and A (counts per W m-2 sr-1 um-1), from the L1C
# metadata's noise model; E0 is the solar irradiance (W m-2 um-1).
SENTINEL2_NOISE: dict[str, tuple[float, float, float, float]] = {
    "B02": (0.529, 0.01040, 3.76, 1959.7),
    "B03": (0.435, 0.00906, 4.19, 1823.2),
    "B04": (0.437, 0.00951, 4.52, 1512.1),
    "B08": (0.534, 0.01310, 6.16, 1041.6),
}
RESAMPLING_LOSS = 0.65
"""Share of the noise's standard deviation that survives the resampling of L1B to L1C."""


@dataclass(frozen=True)
class Stretch:
    """How 8-bit images show reflectance: linearly, from 0."""

    level: float
    """Reflectance of one of the 255 levels."""

    @property
    def peak(self) -> float:
        """Reflectance shown as 255."""
        return 255 * self.level


EUROSAT = Stretch(2750 / 255 / 10000)
"""That of EuroSAT's colour images: 0 to 255 are reflectances of 0 to 0.275."""


def mtf_of(bands: Sequence[str | None]) -> list[float]:
    """Return the transfer at the Nyquist frequency of bands by their names; ``DEFAULT_MTF`` for others."""
    return [SENTINEL2_MTF.get(band or "", DEFAULT_MTF) for band in bands]


def mtf_sigma(mtf: float, scale: int) -> float:
    """Return `gaussian_sigma` of a transfer that is checked.

    Raises
    ------
    ModelError
        If it is none.
    """
    if not 0 < mtf < 1:
        raise ModelError(f"the MTF at Nyquist must be between 0 and 1, got {mtf}")
    return gaussian_sigma(mtf, scale)


def mtf_kernel(mtf: float, scale: int) -> Tensor:
    """Return the (taps,) Gaussian, centred on a coarse pixel: even length for even scales, odd for odd."""
    sigma = mtf_sigma(mtf, scale)
    half = math.ceil(4 * sigma)
    taps = 2 * half + scale % 2
    at = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    weights = torch.exp(-(at**2) / (2 * sigma**2))
    return (weights / weights.sum()).float()


def mtf_decimate(x: Tensor, scale: int, mtf: float | Sequence[float]) -> Tensor:
    """Blur by the sensor's MTF and keep every ``scale``-th pixel (Wald's protocol).

    Parameters
    ----------
    x : Tensor
        (N, C, H, W) reflectance, sides multiples of ``scale``; edges are continued by reflection.
    scale : int
        Decimation factor. Coarse pixel i covers fine pixels [scale·i, scale·i + scale).
    mtf : float or sequence of float
        Transfer at the coarse grid's Nyquist frequency, one value or one a band.

    Returns
    -------
    Tensor
        (N, C, H / scale, W / scale).
    """
    bands = x.shape[1]
    values = [mtf] * bands if isinstance(mtf, float | int) else list(mtf)
    if len(values) != bands:
        raise ModelError(f"MTF values must be one, or one a band ({bands}), got {len(values)}")
    if x.shape[2] % scale or x.shape[3] % scale:
        raise ModelError(f"image sides must be multiples of the scale {scale}, got {tuple(x.shape[2:])}")
    kernels = [mtf_kernel(value, scale).to(x) for value in values]
    taps = max(map(len, kernels))
    kernels = [F.pad(k, ((taps - len(k)) // 2,) * 2) for k in kernels]
    weights = torch.stack(kernels)[:, None]  # (C, 1, taps)
    pad = (taps - scale) // 2
    x = F.pad(x, (pad,) * 4, mode="reflect")
    rows = F.conv2d(x, weights[..., None], stride=(scale, 1), groups=bands)
    return F.conv2d(rows, weights[:, :, None], stride=(1, scale), groups=bands)


def area_decimate(x: Tensor, scale: int) -> Tensor:
    """Shrink to the means of ``scale`` x ``scale`` pixels."""
    return F.avg_pool2d(x, scale)


def bicubic_decimate(x: Tensor, scale: int) -> Tensor:
    """Shrink by antialiased bicubic interpolation (kernel widened by ``scale``; Keys, a = -0.5)."""
    size = (x.shape[2] // scale, x.shape[3] // scale)
    return F.interpolate(x, size=size, mode="bicubic", antialias=True, align_corners=False)


def white_noise(x: Tensor, sigma: float | Tensor, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of standard deviation ``sigma`` (reflectance; broadcast against ``x``)."""
    return x + sigma * torch.randn(x.shape, generator=generator)


def sentinel2_sigma(x: Tensor, bands: Sequence[str], cos_zenith: float = 0.8) -> Tensor:
    """Return the noise of Sentinel-2A at each pixel, in reflectance.

    Counts CN = A · E0 · cos(theta) · rho / pi and sigma_CN = sqrt(alpha² + beta · CN): read-out and shot
    noise (Gorroño et al., Remote Sensing 9(2), 2017, and the L1C noise model), back in reflectance, times
    ``RESAMPLING_LOSS``.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W) reflectance.
    bands : sequence of str
        Name of each band, keys of ``SENTINEL2_NOISE``.
    cos_zenith : float
        Cosine of the sun's zenith angle.
    """
    if unknown := sorted(set(bands) - set(SENTINEL2_NOISE)):
        raise ModelError(f"no noise model for band {unknown[0]!r}; there is one for {', '.join(SENTINEL2_NOISE)}")
    rows = torch.tensor([SENTINEL2_NOISE[b] for b in bands], dtype=x.dtype)[:, :, None, None]  # (C, 4, 1, 1)
    alpha, beta, gain, irradiance = rows.unbind(1)
    per_reflectance = gain * irradiance * cos_zenith / math.pi
    counts = per_reflectance * x.clamp(min=0)
    return torch.sqrt(alpha**2 + beta * counts) / per_reflectance * RESAMPLING_LOSS


def quantize(x: Tensor, step: float) -> Tensor:
    """Round to multiples of ``step`` (reflectance), as storing integers does."""
    return (x / step).round() * step
