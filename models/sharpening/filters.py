"""The filters between a coarse grid and a fine one, along one axis; two of them after each other make the image's.

``blur`` is what the coarse band's sensor does to the fine image: a Gaussian of its MTF, sampled at the centres of the
coarse pixels. ``interpolation`` is its counterpart: the best linear estimate of the fine pixels from the coarse ones
around them (ordinary kriging, Matheron 1963, of pixels that are blurred means). Being exact for its own blur, one
application of it replaces the steps of iterated back-projection; being cut to a few pixels, it tiles exactly.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenelift.models.sensing.blurs import gaussian_sigma
from scenelift.models.sensing.wiener import matern

Array = NDArray[np.float64]

RADIUS = 6
"""Coarse pixels on either side that an interpolated pixel is made of."""
LENGTH = 1.0
"""Correlation length of the Matérn field that is interpolated, coarse pixels: what no guide explains is small."""
NUGGET = 1e-6
"""Share of the variance taken for noise, so that the equations stay well conditioned."""


@dataclass(frozen=True)
class Taps:
    """Weights on neighbouring pixels of one axis."""

    first: int
    """Fine pixel of the first weight, for coarse pixel 0."""
    weights: tuple[float, ...]

    def before(self, ratio: int) -> int:
        """Return how many coarse pixels at the start of a patch cannot be computed from inside of it."""
        return max(0, -(self.first // ratio))

    def after(self, ratio: int) -> int:
        """Return how many at the end of a patch (of whole coarse pixels) cannot."""
        return max(0, -(-(self.first + len(self.weights) - ratio) // ratio))


@functools.cache
def blur(mtf: float, ratio: int, centre: float) -> Taps:
    """Return the Gaussian whose transfer at the coarse Nyquist frequency is ``mtf``, on fine pixels.

    Cut at four sigma.

    Parameters
    ----------
    mtf : float
    ratio : int
    centre : float
        Centre of coarse pixel 0; a multiple of 0.5. Decides whether the filter is even or odd.
    """
    sigma = gaussian_sigma(mtf, ratio)
    reach = math.ceil(4 * sigma)
    first = math.floor(centre) - reach + (1 if centre % 1 else 0)
    at = np.arange(first, math.floor(centre) + reach + 1) - centre
    weights = np.exp(-(at**2) / (2 * sigma**2))
    return Taps(first, tuple((weights / weights.sum()).tolist()))


def pick(ratio: int, centre: float) -> Taps:
    """Return what takes a coarse pixel out of a band whose pixels were replicated onto the fine grid.

    Where fine pixels fill coarse ones, the mean of all of them: it is the same, except beyond the scene's edge, where
    the mirror cuts coarse pixels in two.
    """
    covered = ratio if (centre % 1 != 0) == (ratio % 2 == 0) else 1
    return Taps(math.floor(centre - (covered - 1) / 2), (1 / covered,) * covered)


def first_fine(ratio: int, centre: float) -> int:
    """Return the first of the ``ratio`` fine pixels that are counted to coarse pixel 0."""
    return math.floor(centre - (ratio - 1) / 2)


@functools.lru_cache(maxsize=256)
def interpolation(mtf: float, ratio: int, centre: float, radius: int = RADIUS) -> Array:
    """Return the weights of each fine phase on the coarse pixels around it, shape (ratio, 2 radius + 1).

    Fine pixel ``first_fine + ratio * k + phase`` is estimated from the coarse pixels k - radius to k + radius. Rows
    sum to one.
    """
    taps = blur(mtf, ratio, centre)
    weights = np.asarray(taps.weights)
    at = np.arange(taps.first, taps.first + len(weights))
    coarse = (at + ratio * np.arange(-radius, radius + 1)[:, None]).astype(float)  # (pixels, taps)
    fine = first_fine(ratio, centre) + np.arange(ratio, dtype=float)

    def blurred(target: Array) -> Array:  # covariance of the coarse pixels with fine points
        between = matern(np.abs(coarse[:, :, None] - target.reshape(-1)), LENGTH * ratio)
        return np.einsum("t,ptf->pf", weights, between).reshape(len(coarse), *target.shape)

    gram = blurred(coarse) @ weights
    gram = gram + NUGGET * np.eye(len(gram))
    solved = np.linalg.solve(gram, np.concatenate([blurred(fine), np.ones((len(gram), 1))], 1))
    found, ones = solved[:, :-1], solved[:, -1:]
    found = found + ones * ((1 - found.sum(0)) / ones.sum())
    return np.ascontiguousarray(found.T)
