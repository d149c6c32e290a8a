"""What a model is shown where a scene has no data: its surroundings continued, never the nodata value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def fill_nodata(values: NDArray[np.float32], valid: NDArray[np.bool_], reach: int) -> NDArray[np.float32]:
    """Fill pixels without data from their valid neighbours, ring by ring.

    In each of `reach` rounds a pixel that touches known pixels gets their mean (of up to eight), so a valid pixel sees
    its own surroundings continued, as at an edge, and never the nodata value. What a pixel becomes depends only on
    pixels at most `reach` away, added in one fixed order: the same bits whatever window was read around it.

    Parameters
    ----------
    values : ndarray of float32, shape (C, H, W)
        Reflectance; anything, NaN included, where not valid.
    valid : ndarray of bool, shape (C, H, W)
    reach : int
        Rings to fill; pixels farther from data become 0.

    Returns
    -------
    ndarray of float32, shape (C, H, W)
    """
    filled = np.where(valid, values, np.float32(0))
    for band, known in zip(filled, valid, strict=True):
        if not known.all() and known.any():
            _fill_band(band, known, reach)
    return filled


_NEIGHBOURS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def _fill_band(band: NDArray[np.float32], valid: NDArray[np.bool_], reach: int) -> None:
    """Fill one band in place; `valid` is left as it is."""
    height, width = band.shape
    known = np.pad(valid, 1)
    padded = np.pad(band, 1)
    for _ in range(reach):
        touched = known[:, :-2] | known[:, 1:-1] | known[:, 2:]
        touched = touched[:-2] | touched[1:-1] | touched[2:]
        rows, cols = np.nonzero(touched & ~known[1:-1, 1:-1])
        if not rows.size:
            break
        total = np.zeros(rows.size, np.float64)
        count = np.zeros(rows.size, np.float64)
        for row, col in _NEIGHBOURS:
            at = rows + 1 + row, cols + 1 + col
            total += np.where(known[at], padded[at], 0)
            count += known[at]
        padded[rows + 1, cols + 1] = total / count
        known[rows + 1, cols + 1] = True
    band[:] = padded[1 : height + 1, 1 : width + 1]
