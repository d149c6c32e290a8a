"""What of a result the input determines, and what the prior adds: range and null space of a sensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scenelift.models.errors import ModelError
from scenelift.models.sensing.blurs import Blur, decimate

TOLERANCE = 1e-6
"""Part of the right side that may remain unexplained."""
MOST = 3000
"""Steps of the conjugate gradients: the strongest blur that is ever estimated (MTF .05) takes less than 2,000."""

Image = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Support:
    """A result as a sum of three images, each (C, scale H, scale W) reflectance."""

    determined: Image
    """The smallest image that the sensor would see as the input: what the input says."""
    corrected: Image
    """By how much the result, seen by the sensor, departs from the input: noise taken away, or a contradiction."""
    added: Image
    """What the sensor does not see of the result: any other would agree with the input as well."""

    def shares(self) -> dict[str, float]:
        """Return the root mean square of the departures, reflectance, and the share of the detail that is added.

        Detail is what is left of the result without each band's mean; its share is of the squares.
        """
        whole = self.determined + self.corrected + self.added
        detail = np.mean((whole - whole.mean(axis=(1, 2), keepdims=True)) ** 2)
        added, corrected = (float(np.sqrt(np.mean(part**2))) for part in (self.added, self.corrected))
        return {
            "added": added,
            "corrected": corrected,
            "share_added": added**2 / float(detail) if detail else 0.0,
        }


def support(image: Image, result: Image, blurs: Sequence[Blur]) -> Support:
    """Split a result into what its input determines, what departs from the input, and what the sensor cannot see.

    With the sensor D (blur, then every scale-th pixel) and its pseudoinverse D+, found by conjugate gradients:
    ``result = D+ image + D+ (D result - image) + (1 - D+ D) result``. A denoiser has D = 1: it adds nothing unseen.

    Parameters
    ----------
    image : ndarray, shape (C, H, W)
        What was enhanced, reflectance.
    result : ndarray, shape (C, scale H, scale W)
        What was made of it.
    blurs : sequence of Blur
        The sensor's, one a band. Edges are continued by reflection.

    Raises
    ------
    ModelError
        If shapes or blurs do not fit, or the equations cannot be solved.
    """
    scale = result.shape[1] // image.shape[1]
    if result.shape != (len(image), scale * image.shape[1], scale * image.shape[2]) or len(blurs) != len(image):
        raise ModelError(f"a result of {result.shape} with {len(blurs)} blurs does not fit an input of {image.shape}")
    if scale == 1:
        return Support(image, result - image, np.zeros_like(result))
    low, fine = (torch.from_numpy(np.ascontiguousarray(values)).double() for values in (image, result))
    sensor = _Sensor([blur.kernel(scale) for blur in blurs], scale, fine.shape)
    seen = sensor.see(fine)
    determined, corrected = (sensor.back(sensor.solve(values)) for values in (low, seen - low))
    added = fine - determined - corrected
    return Support(*(part.float().numpy() for part in (determined, corrected, added)))


class _Sensor:
    """Blur and decimation of images of one shape (C, H, W), and their transpose."""

    def __init__(self, kernels: Sequence[NDArray[np.float64]], scale: int, shape: torch.Size) -> None:
        self.kernels, self.scale, self.shape = [list(kernels)], scale, shape

    def see(self, fine: Tensor) -> Tensor:
        return decimate(fine[None], self.scale, self.kernels)[0]

    def back(self, low: Tensor) -> Tensor:
        """Apply the transpose."""
        fine = torch.zeros(self.shape, dtype=low.dtype, requires_grad=True)
        (gradient,) = torch.autograd.grad(self.see(fine), fine, low)
        return gradient

    def solve(self, wanted: Tensor) -> Tensor:
        """Return z with D D' z = wanted, band by band."""
        found, left = torch.zeros_like(wanted), wanted
        direction, power = left, _dot(left, left)
        enough = TOLERANCE**2 * power
        for _ in range(MOST):
            if bool((power <= enough).all()):
                return found
            image = self.see(self.back(direction))
            step = power / _dot(direction, image).clamp(min=1e-300)
            found, left = found + step * direction, left - step * image
            power, before = _dot(left, left), power
            direction = left + power / before.clamp(min=1e-300) * direction
        raise ModelError("what the sensor sees cannot be inverted: its blur leaves nothing of some detail")


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(dim=(1, 2), keepdim=True)
