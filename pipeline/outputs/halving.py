"""Half the resolution: means of 2 x 2 pixels that know of missing ones, of masks and of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.scenes.scenes import beside


def coarsen(
    output: Output, band: Callable[[int], NDArray[np.generic]], mask: NDArray[np.uint8] | None
) -> tuple[NDArray[np.generic], NDArray[np.uint8] | None]:
    """Make a window of a coarser level of an output from the next finer one.

    Parameters
    ----------
    output : Output
    band : function
        Returns a band's values in the finer window, shape (H, W), by its 0-based index.
    mask : ndarray of uint8, shape (H, W), or None
        The finer window's mask, if the output has one.

    Returns
    -------
    values : ndarray, shape (C, ceil(H / 2), ceil(W / 2))
    mask : ndarray of uint8, shape (ceil(H / 2), ceil(W / 2)), or None
        255 where any of four pixels has data.
    """
    count, has_alpha = len(output.bands), output.bands[-1].color == "alpha"
    alpha = band(count - 1) if has_alpha else None
    known = mask != 0 if mask is not None else alpha != 0 if alpha is not None else None
    missing = np.asarray(output.missing).astype(output.dtype)
    marker = missing if output.nodata is not None or output.dtype == "float32" else None
    made = []
    for index in range(count):
        values = alpha if alpha is not None and index == count - 1 else band(index)
        if output.categories:
            made.append(_most_frequent(values, missing))
        elif values is alpha and known is not None:
            made.append(_halve_alpha(values[None], _any(known)))
        else:
            made.append(_halve_band(values, marker, known))
    seen = None if mask is None or known is None else np.where(_any(known), np.uint8(255), np.uint8(0))
    return np.stack(made), seen


def halve(
    values: NDArray[np.generic], missing: NDArray[np.generic] | None, known: NDArray[np.bool_] | None = None
) -> NDArray[np.generic]:
    """Average 2 x 2 pixels, leaving missing ones out; where all four are missing the result is missing.

    Parameters
    ----------
    values : ndarray, shape (C, H, W)
    missing : 0-d array or None
        The value that marks missing pixels (NaN too).
    known : ndarray of bool, shape (H, W), optional
        False where a mask says that there is no data.

    Returns
    -------
    ndarray, shape (C, ceil(H / 2), ceil(W / 2)), same dtype; integers rounded to nearest, 0 where nothing is known
    and no value marks that
    """
    return np.stack([_halve_band(band, missing, known) for band in values])  # one by one keeps float64 copies small


def _halve_band(
    band: NDArray[np.generic], missing: NDArray[np.generic] | None, known: NDArray[np.bool_] | None
) -> NDArray[np.generic]:
    if band.dtype.kind in "iu" and band.dtype.itemsize <= 2 and known is None and not _has(band, missing):
        return _halve_whole(band, missing)
    total = np.zeros([-(-side // 2) for side in band.shape], np.float64)
    count = np.zeros(total.shape, np.uint8)
    masks = [None] * 4 if known is None else _quarters(known)
    for part, mask in zip(_quarters(band), masks, strict=True):
        use = np.ones(part.shape, bool) if mask is None else mask.copy()
        if missing is not None:
            use &= ~np.isnan(part) if np.isnan(missing) else part != missing
        np.add(total, part, out=total, where=use)
        count += use
    np.divide(total, count, out=total, where=count > 0)
    if np.issubdtype(band.dtype, np.integer):
        np.rint(total, out=total)
    out = total.astype(band.dtype)
    if missing is not None:
        out[(count > 0) & (out == missing)] = beside(missing)
        out[count == 0] = missing
    return out


def _most_frequent(values: NDArray[np.generic], missing: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the most frequent of 2 x 2 classes, of several the first in reading order; missing ones do not count."""
    quarters = _quarters(values)
    found, most = np.full(quarters[0].shape, missing), np.zeros(quarters[0].shape, np.uint8)
    for part in quarters:
        votes = np.sum([part == other for other in quarters], axis=0, dtype=np.uint8) * (part != missing)
        better = votes > most
        found[better], most[better] = part[better], votes[better]
    return found


def _has(band: NDArray[np.generic], missing: NDArray[np.generic] | None) -> bool:
    return missing is not None and bool((band == missing).any())


def _halve_whole(band: NDArray[np.generic], missing: NDArray[np.generic] | None) -> NDArray[np.generic]:
    """Average 2 x 2 integers of at most 16 bits, of which none is missing: exact in 32 bits, ties to even."""
    one, two, three, four = _quarters(band)
    total = one.astype(np.int32)
    for part in (two, three, four):
        total += part
    total += 1 + ((total >> 2) & 1)
    total >>= 2
    out = total.astype(band.dtype)
    if missing is not None:
        out[out == missing] = beside(missing)
    return out


def _halve_alpha(alpha: NDArray[np.generic], seen: NDArray[np.bool_]) -> NDArray[np.generic]:
    """Average transparency; what can be seen at all (`seen`, of the result) never becomes wholly transparent."""
    nan = np.asarray(np.nan, alpha.dtype) if np.issubdtype(alpha.dtype, np.floating) else None
    out = halve(alpha, nan)[0]
    out[seen & (out == 0)] = 1
    return out


def _any(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where at least one of 2 x 2 pixels is known."""
    return np.logical_or.reduce(_quarters(known))


def _quarters(plane: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the four pixels of each 2 x 2, as planes of half the size; an odd last row or column counts twice."""
    odd = [(0, side % 2) for side in plane.shape]
    padded = np.pad(plane, odd, mode="edge") if any(map(any, odd)) else plane
    return [padded[row::2, col::2] for row in (0, 1) for col in (0, 1)]
