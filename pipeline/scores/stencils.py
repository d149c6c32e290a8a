"""Filters that keep whole windows only: nothing outside the array or in a hole is ever made up."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def gaussian_kernel(sigma: float, radius: int) -> np.ndarray:
    """Return a normalized Gaussian of ``2 * radius + 1`` taps, float64."""
    offsets = np.arange(-radius, radius + 1, dtype=np.float64)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    return weights / weights.sum()


def correlate(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlate with an odd one-dimensional kernel along both axes, whole windows only.

    Parameters
    ----------
    values : numpy.ndarray
        Float64, shape (H, W).
    kernel : numpy.ndarray
        Float64, shape (2 r + 1,).

    Returns
    -------
    numpy.ndarray
        Float64, shape (H - 2 r, W - 2 r), or empty if a window does not fit. Its first value belongs to the
        window whose first pixel is the array's first.
    """
    radius = len(kernel) // 2
    if min(values.shape) < len(kernel):
        return np.zeros((max(0, values.shape[0] - 2 * radius), max(0, values.shape[1] - 2 * radius)))
    inside = slice(radius, -radius or None)
    rows = ndimage.correlate1d(values, kernel, axis=0, mode="constant")[inside]
    return ndimage.correlate1d(rows, kernel, axis=1, mode="constant")[:, inside]


def whole(valid: np.ndarray, size: int) -> np.ndarray:
    """Return which windows of ``size`` x ``size`` pixels are wholly valid, shape (H - size + 1, W - size + 1)."""
    height, width = (max(0, side - size + 1) for side in valid.shape)
    if valid.all() or not height or not width:
        return np.ones((height, width), dtype=bool)
    before = size // 2
    low = ndimage.minimum_filter(valid.astype(np.uint8), size=size, mode="constant", cval=0)
    return low[before : before + height, before : before + width].astype(bool)
