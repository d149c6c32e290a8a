"""Interpolation by an integer factor and its opposite, decimation by a sensor's MTF, in numpy.

Grids are aligned by pixel area: fine pixel o of a factor k lies at coarse coordinate (o + 0.5) / k - 0.5. Every
output value is the same sum in the same order wherever it lies, so tiles and whole images agree to the last bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from scenelift.models.sensing.blurs import gaussian_sigma

Array = NDArray[np.floating]


def _box(x: Array) -> Array:
    return ((x >= -0.5) & (x < 0.5)).astype(np.float64)


def _triangle(x: Array) -> Array:
    return np.maximum(0, 1 - np.abs(x))


def _cubic(x: Array) -> Array:
    """Keys' cubic convolution with a = -0.5 (IEEE TASSP 29(6), 1981)."""
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(x: Array) -> Array:
    """Lanczos-windowed sinc with three lobes (Duchon, J. Appl. Meteorol. 18(8), 1979)."""
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


KERNELS: dict[str, tuple[Callable[[Array], Array], int]] = {
    "nearest": (_box, 0),
    "bilinear": (_triangle, 1),
    "bicubic": (_cubic, 2),
    "lanczos": (_lanczos, 3),
}
"""Kernel function and its reach in coarse pixels."""


@functools.cache
def phases(kernel: str, scale: int) -> NDArray[np.float32]:
    """Return the weights of each fine phase, shape (scale, 2 * reach + 1), rows summing to one."""
    function, reach = KERNELS[kernel]
    centres = (np.arange(scale) + 0.5) / scale - 0.5
    weights = function(np.arange(-reach, reach + 1)[None, :] - centres[:, None])
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def upsample(x: NDArray[np.float32], scale: int, kernel: str) -> NDArray[np.float32]:
    """Interpolate by an integer factor; the outer pixels are used up as context.

    Parameters
    ----------
    x : ndarray of float32, shape (..., H + 2 r, W + 2 r)
        r is the kernel's reach, ``KERNELS[kernel][1]``.
    scale : int
    kernel : str
        A key of ``KERNELS``.

    Returns
    -------
    ndarray of float32, shape (..., scale * H, scale * W)
    """
    if kernel == "nearest":
        return (x + np.float32(0)).repeat(scale, axis=-1).repeat(scale, axis=-2)  # as sums that begin with zero
    weights = phases(kernel, scale)
    return _upsample_columns(_upsample_rows(x, weights), weights)


def _upsample_rows(x: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    scale, taps = weights.shape
    length, width = x.shape[-2] - taps + 1, x.shape[-1]
    out = np.empty((*x.shape[:-2], length, scale, width), np.float32)
    for phase, row in enumerate(weights):
        out[..., phase, :] = _weighted_sum([x[..., tap : tap + length, :] for tap in range(taps)], row)
    return out.reshape(*x.shape[:-2], length * scale, width)


def _upsample_columns(x: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    scale, taps = weights.shape
    length = x.shape[-1] - taps + 1
    out = np.empty((*x.shape[:-1], length, scale), np.float32)
    for phase, row in enumerate(weights):
        out[..., phase] = _weighted_sum([x[..., tap : tap + length] for tap in range(taps)], row)
    return out.reshape(*x.shape[:-1], length * scale)


def _weighted_sum(terms: list[NDArray[np.float32]], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Add terms in their order, beginning with zero."""
    total = np.zeros(terms[0].shape, np.float32)
    part = np.empty_like(total)
    for term, weight in zip(terms, weights, strict=True):
        if weight:
            total += np.multiply(term, weight, out=part)
    return total


@functools.cache
def _mtf_taps(mtf: float, scale: int) -> NDArray[np.float32]:
    """Return the Gaussian whose transfer at the coarse grid's Nyquist frequency is ``mtf``.

    Cut at four sigma; of even length for even scales, so that it is centred on a coarse pixel.
    """
    sigma = gaussian_sigma(mtf, scale)
    length = 2 * math.ceil(4 * sigma) + scale % 2
    at = np.arange(length) - (length - 1) / 2
    weights = np.exp(-(at**2) / (2 * sigma**2))
    return (weights / weights.sum()).astype(np.float32)


def mtf_reach(mtf: float, scale: int) -> int:
    """Return how many coarse pixels on each side a decimated pixel looks at."""
    return math.ceil((len(_mtf_taps(mtf, scale)) - scale) / 2 / scale)


def decimate(x: NDArray[np.float32], scale: int, mtf: float) -> NDArray[np.float32]:
    """Blur by a sensor's MTF and keep every ``scale``-th pixel; the outer pixels are used up as context.

    Parameters
    ----------
    x : ndarray of float32, shape (..., scale * (H + 2 r), scale * (W + 2 r))
        r is ``mtf_reach(mtf, scale)``.
    scale : int
    mtf : float
        Transfer at the coarse grid's Nyquist frequency, between 0 and 1.

    Returns
    -------
    ndarray of float32, shape (..., H, W)
    """
    return _decimate_axis(_decimate_axis(x, scale, mtf, -2), scale, mtf, -1)


def _decimate_axis(x: NDArray[np.float32], scale: int, mtf: float, axis: int) -> NDArray[np.float32]:
    x, taps, reach = np.moveaxis(x, axis, -1), _mtf_taps(mtf, scale), mtf_reach(mtf, scale)
    length = x.shape[-1] // scale - 2 * reach
    first = reach * scale - (len(taps) - scale) // 2
    out = np.zeros((*x.shape[:-1], length), np.float32)
    for tap, weight in enumerate(taps):
        start = first + tap
        out += weight * x[..., start : start + scale * (length - 1) + 1 : scale]
    return np.moveaxis(out, -1, axis)


def back_projection_reach(scale: int, kernel: str, mtf: float, steps: int) -> int:
    """Return the context in coarse pixels that :func:`back_project` uses up on each side."""
    return KERNELS[kernel][1] + steps * (KERNELS[kernel][1] + mtf_reach(mtf, scale))


def back_project(
    coarse: NDArray[np.float32], scale: int, kernel: str, mtf: float, steps: int, gain: float = 1.0
) -> NDArray[np.float32]:
    """Interpolate, then correct what the sensor would see differently, ``steps`` times.

    Irani and Peleg (CVGIP 53(3), 1991): x <- x + gain * up(y - decimate(x)).

    Parameters
    ----------
    coarse : ndarray of float32, shape (..., H + 2 r, W + 2 r)
        r is :func:`back_projection_reach`.
    scale, kernel, mtf
        As in :func:`upsample` and :func:`decimate`.
    steps : int
    gain : float
        Share of the residual that is put back.

    Returns
    -------
    ndarray of float32, shape (..., scale * H, scale * W)
    """
    reach, blur = KERNELS[kernel][1], mtf_reach(mtf, scale)
    fine, used = upsample(coarse, scale, kernel), reach
    for _ in range(steps):
        used += blur
        residual = _crop(coarse, used) - decimate(fine, scale, mtf)
        used += reach
        fine = _crop(fine, (blur + reach) * scale) + np.float32(gain) * upsample(residual, scale, kernel)
    return fine


def _crop(x: NDArray[np.float32], border: int) -> NDArray[np.float32]:
    return x[..., border : x.shape[-2] - border, border : x.shape[-1] - border]
