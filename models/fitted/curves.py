"""Contrast by curves: percentile stretch, gamma, and adaptive equalisation whose curves come from the whole scene.

Each returns values from 0 to 1 for the eye, not reflectance. What a pixel becomes depends on its value, and for `clahe`
on where in the scene it lies; never on the tile that it is in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenelift.models.fitted.views import View, pack, pixels, rounded, unpack

Patches = NDArray[np.float32]
BINS = 64
"""Knots of a curve of `clahe`."""
ANCHOR_SIDE = 128
"""Side of the window by which a curve of `clahe` is found, pixels."""
FULL = (0.1, 99.9)
"""Percentiles between which `clahe` and `gamma` spread the values."""


def _limits(view: View, low: float, high: float) -> dict[str, list[float]]:
    found = [np.percentile(plain, (low, high)) for plain in pixels(view)]
    return {"low": rounded(f[0] for f in found), "high": rounded(f[1] for f in found)}


def _normalized(patches: Patches, fitted: dict[str, Any]) -> Patches:
    """Return (N, C, H, W) spread from 0 to 1 between the limits of each band."""
    low, high = (np.asarray(fitted[key], np.float32)[:, None, None] for key in ("low", "high"))
    return np.clip((patches - low) / np.maximum(high - low, np.float32(1e-6)), 0, 1)


def fit_stretch(view: View, options: dict[str, float]) -> dict[str, Any]:
    """Find the percentiles of each band."""
    return _limits(view, options["low"], options["high"])


def run_stretch(patches: Patches, fitted: dict[str, Any], options: dict[str, float]) -> Patches:
    """Spread each band linearly between its percentiles."""
    return _normalized(patches, fitted)


def fit_gamma(view: View, options: dict[str, float]) -> dict[str, Any]:
    """Find the exponent, one for all bands, that brings the median (mean of the bands') to the middle."""
    found = _limits(view, *FULL)
    if options["exponent"]:
        return found | {"exponent": options["exponent"]}
    middles = []
    for plain, low, high in zip(pixels(view), found["low"], found["high"], strict=True):
        middles.append(np.clip((np.median(plain) - low) / max(high - low, 1e-6), 0, 1))
    middle = float(np.clip(np.mean(middles), 0.01, 0.99))
    return found | {"exponent": rounded([np.clip(np.log(0.5) / np.log(middle), 0.2, 5)])[0]}


def run_gamma(patches: Patches, fitted: dict[str, Any], options: dict[str, float]) -> Patches:
    """Raise the spread values to the exponent."""
    return np.power(_normalized(patches, fitted), np.float32(fitted["exponent"]))


def fit_clahe(view: View, options: dict[str, float]) -> dict[str, Any]:
    """Find an equalising curve for each band at anchors on a grid over the whole scene.

    At the middle of each of ``tiles`` x ``tiles`` cells a window is looked at; its histogram is clipped at ``clip``
    times the mean, what was cut off is shared out, and the sum is the curve (Zuiderveld, Graphics Gems IV, 1994).
    """
    found, count = _limits(view, *FULL), int(options["tiles"])
    height, width = view.shape
    curves = np.zeros((count, count, view.bands, BINS + 1))
    for i in range(count):
        for j in range(count):
            at = []
            for side, number in ((height, i), (width, j)):
                start, stop = side * number // count, max(side * number // count + 1, side * (number + 1) // count)
                length = min(ANCHOR_SIDE, stop - start, side)
                at.append((min((start + stop - length) // 2, side - length), length))
            window = view.read(at[0][0], at[1][0], at[0][1], at[1][1])
            values = _normalized(window[None], found)[0]
            for band, plane in enumerate(values):
                curves[i, j, band] = _curve(plane[np.isfinite(window[band])], options["clip"])
    return found | {"shape": list(view.shape), "_curves": pack(curves)}


def _curve(plain: NDArray[np.float32], clip: float) -> NDArray[np.float64]:
    """Return the (BINS + 1,) knots of an equalising curve from 0 to 1; a straight line where there are no pixels."""
    if not len(plain):
        return np.linspace(0, 1, BINS + 1)
    counts = np.histogram(plain, BINS, (0, 1))[0] / len(plain)
    cut = np.minimum(counts, clip / BINS)
    cut += (1 - cut.sum()) / BINS
    return np.concatenate([[0], np.cumsum(cut)])


def run_clahe(
    patches: Patches, fitted: dict[str, Any], options: dict[str, float], origins: NDArray[np.int64]
) -> Patches:
    """Send each pixel through the curves of the four anchors around it, weighted by its distance to each."""
    count, bands = int(options["tiles"]), patches.shape[1]
    flat = unpack(fitted["_curves"], (-1,)).astype(np.float32)  # (tiles, tiles, bands, BINS + 1)
    values = _normalized(patches, fitted) * np.float32(BINS)
    low = np.minimum(values.astype(np.int32), BINS - 1)
    share = (values - low).astype(np.float32)
    out = np.empty_like(patches)
    for n, (row, col) in enumerate(origins):
        rows, columns = (
            _between(start, length, side, count)
            for start, length, side in zip((row, col), patches.shape[2:], fitted["shape"], strict=True)
        )
        for band in range(bands):
            total = np.zeros(patches.shape[2:], np.float32)
            for i, across in rows:
                for j, along in columns:
                    at = (((i[:, None] * count + j[None, :]) * bands) + band) * (BINS + 1) + low[n, band]
                    here, there = flat[at], flat[at + 1]
                    weight = across[:, None] * along[None, :]
                    total += weight * (here + share[n, band] * (there - here))
            out[n, band] = np.clip(total, 0, 1)
    return out


def _between(start: int, length: int, side: int, count: int) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Return for pixels of one axis the anchor before and the one behind, each with its weight."""
    at = (np.arange(start, start + length) + 0.5) * count / side - 0.5
    before = np.floor(at)
    share = (at - before).astype(np.float32)
    lower, upper = (np.clip(before + k, 0, count - 1).astype(np.int64) for k in (0, 1))
    return [(lower, 1 - share), (upper, share)]
