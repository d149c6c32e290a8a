"""Least-squares interpolation for a known blur and noise: the linear path of the conditioned networks.

A scene is taken for a random field whose variogram is known (a sum of isotropic Matérn fields). The best linear
estimate of a fine pixel from the coarse ones around it then follows from the blur's kernel and the noise level alone
(Wiener 1949; ordinary kriging, Matheron 1963): no filter is trained, and any blur has its own.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LENGTHS = (1.5, 2.5, 4.0, 8.0, 32.0)
"""Correlation lengths of the Matérn fields (smoothness 3/2), fine pixels."""
PRIOR = (1.61e-4, 1.21e-4, 3.3e-5, 2.87e-4, 2.48e-4)
"""Variance of each of them, reflectance²: fitted to the variogram of 3,000 EuroSAT images of the training places."""


def matern(distance: Array, length: float) -> Array:
    """Return the correlation at a distance of a Matérn field of smoothness 3/2."""
    x = np.sqrt(3) * distance / length
    return (1 + x) * np.exp(-x)


@functools.cache
def covariance(reach: int) -> Array:
    """Return the covariance of two fine pixels at lags of -reach..reach, shape (2 reach + 1, 2 reach + 1)."""
    lags = np.arange(-reach, reach + 1)
    distance = np.hypot(lags[:, None], lags)
    return sum(v * matern(distance, length) for v, length in zip(PRIOR, LENGTHS, strict=True))  # type: ignore[return-value]


def interpolation_filters(kernel: Array, scale: int, taps: int, sigma: float) -> NDArray[np.float32]:
    """Return the filters that estimate each fine phase from ``taps`` x ``taps`` coarse pixels.

    Parameters
    ----------
    kernel : ndarray
        (n,) separable blur on fine pixels, as of `Blur.kernel`.
    scale : int
    taps : int
        Odd.
    sigma : float
        Standard deviation of the noise of the coarse pixels, reflectance.

    Returns
    -------
    ndarray of float32, shape (scale², taps, taps)
        Each sums to one.
    """
    return _filters(tuple(kernel.tolist()), scale, taps, sigma).copy()


@functools.lru_cache(maxsize=8192)
def _filters(kernel: tuple[float, ...], scale: int, taps: int, sigma: float) -> NDArray[np.float32]:
    weights, r = np.asarray(kernel), taps // 2
    auto = np.convolve(weights, weights[::-1])
    reach = scale * (taps - 1) + len(weights)
    field = covariance(reach)
    lags = np.arange(-reach, reach + 1)

    def placed(values: Array, centre: float) -> Array:  # the values on the axis of lags, their middle at `centre`
        row = np.zeros(len(lags))
        first = round(centre - (len(values) - 1) / 2) + reach
        row[first : first + len(values)] = values
        return row

    coarse = np.stack([placed(auto, scale * lag) for lag in range(-(taps - 1), taps)])
    between = coarse @ field @ coarse.T  # covariance of coarse pixels by lag
    at = np.arange(taps)
    lag = at[:, None] - at + taps - 1
    gram = between[lag[:, None, :, None], lag[None, :, None, :]].reshape(taps**2, taps**2)
    gram = gram + np.eye(taps**2) * (sigma**2 + 1e-6 * between[taps - 1, taps - 1])
    phases = [p - (scale - 1) / 2 for p in range(scale)]
    rows = [np.stack([placed(weights, scale * i - p) for i in range(-r, r + 1)]) for p in phases]
    pull = np.stack([(a @ field @ b.T).ravel() for a in rows for b in rows], 1)  # (taps², scale²)
    solved = np.linalg.solve(gram, np.concatenate([pull, np.ones((taps**2, 1))], 1))
    found, ones = solved[:, :-1], solved[:, -1:]
    found = found + ones * ((1 - found.sum(0)) / ones.sum())
    return found.T.reshape(scale**2, taps, taps).astype(np.float32)
