"""Haze taken off reflectance: dark-object subtraction, and the dark channel with one airlight for the whole scene."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from scenelift.models.fitted.views import View, pixels, rounded

Patches = NDArray[np.float32]
DARK = 7
"""Radius of the window whose darkest value is looked for, pixels (He et al.: 15 x 15)."""
SMOOTH = 15
"""Radius of the guided filter's windows, pixels."""
EDGE = 1e-4
"""The guided filter's epsilon, for a guide of reflectance."""
BRIGHTEST = 99.9
"""Percentile of the dark channel above which the airlight is looked for."""
HALO = DARK + 2 * SMOOTH
LEAST_AIRLIGHT = 0.05


def fit_dark_object(view: View, options: dict[str, float]) -> dict[str, Any]:
    """Find what the haze adds to the darkest pixels of each band.

    What they would be without (``floor``, Chavez, Photogrammetric Engineering and Remote Sensing 62(9), 1996: one
    per cent) is left to them.
    """
    darkest = [np.percentile(plain, options["percent"]) for plain in pixels(view)]
    return {"added": rounded(max(0.0, float(value) - options["floor"]) for value in darkest)}


def run_dark_object(patches: Patches, fitted: dict[str, Any], options: dict[str, float]) -> Patches:
    """Subtract it."""
    return patches - np.asarray(fitted["added"], np.float32)[:, None, None]


def fit_dark_channel(view: View, options: dict[str, float]) -> dict[str, Any]:
    """Find the airlight of each band: the mean where the dark channel is brightest (He, Sun and Tang, CVPR 2009)."""
    dark = [_darkest(np.nan_to_num(window, nan=np.inf).min(0)) for window in view.sample]
    dark = [np.where(np.isfinite(window).all(0), d, -np.inf) for d, window in zip(dark, view.sample, strict=True)]
    known = np.concatenate([d[np.isfinite(d)] for d in dark])
    if not len(known):
        return {"airlight": [1.0] * view.bands}
    least = np.percentile(known, BRIGHTEST)
    chosen = np.concatenate([w[:, d >= least] for d, w in zip(dark, view.sample, strict=True)], 1)
    return {"airlight": rounded(np.maximum(chosen.astype(np.float64).mean(1), LEAST_AIRLIGHT))}


def run_dark_channel(patches: Patches, fitted: dict[str, Any], options: dict[str, float]) -> Patches:
    """Take the haze off: J = (I - A) / t + A, with the transmission t from the dark channel, by a guided filter."""
    airlight = np.asarray(fitted["airlight"], np.float64)[:, None, None]
    strength, least = options["strength"], options["least"]
    return np.stack([_without(patch.astype(np.float64), airlight, strength, least) for patch in patches])


def _without(patch: NDArray[np.float64], airlight: NDArray[np.float64], strength: float, least: float) -> Patches:
    transmission = 1 - strength * np.clip(_darkest((patch / airlight).min(0)), 0, 1)
    smooth = _guided(patch.mean(0), transmission)
    inner = slice(HALO, patch.shape[1] - HALO), slice(HALO, patch.shape[2] - HALO)
    t = np.clip(smooth[inner], least, 1)
    return ((patch[(slice(None), *inner)] - airlight) / t + airlight).astype(np.float32)


def _darkest(values: NDArray[np.floating]) -> NDArray[np.floating]:
    return ndimage.minimum_filter(values, 2 * DARK + 1, mode="nearest")


def _guided(guide: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth values along a guide's edges (He, Sun and Tang, ECCV 2010)."""
    m, v = _mean(guide), _mean(values)
    a = (_mean(guide * values) - m * v) / (np.maximum(_mean(guide * guide) - m * m, 0) + EDGE)
    return _mean(a) * guide + _mean(v - a * m)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    kernel = np.full(2 * SMOOTH + 1, 1 / (2 * SMOOTH + 1))  # running sums would round differently in every tile
    rows = ndimage.correlate1d(values, kernel, axis=0, mode="nearest")
    return ndimage.correlate1d(rows, kernel, axis=1, mode="nearest")
