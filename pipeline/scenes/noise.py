"""The noise level of a scene, once per band, before any block is cut: every worker gets the same numbers."""

from __future__ import annotations

import numpy as np

from scenelift.pipeline.scenes.noise_estimate import estimate_noise
from scenelift.pipeline.scenes.scenes import Scene
from scenelift.pipeline.tiles import Window

SAMPLES = 4
"""Windows along each axis; 16 windows in all are plenty for one number a band."""
SIDE = 256


def scene_noise(scene: Scene, dn: float | None = None) -> tuple[float, ...]:
    """Return the noise level of each band, standard deviation in reflectance.

    Parameters
    ----------
    scene : Scene
    dn : float, optional
        A known level in the scene's own units (DN), used for all bands; None: estimated from up to 16 windows spread
        evenly over the scene, whose median is taken, so that neither a cloud nor a city decides.
    """
    if dn is not None:
        return tuple(dn * band.scale for band in scene.bands)
    estimates: list[list[float]] = [[] for _ in scene.bands]
    for window in sample_windows(scene.grid.shape):
        region = scene.read(window)
        for band, (values, valid) in enumerate(zip(region.values, region.valid, strict=True)):
            if valid.mean() > 0.5:
                estimates[band].append(estimate_noise(values, valid))
    return tuple(float(np.median(found)) if found else 0.0 for found in estimates)


def sample_windows(shape: tuple[int, int]) -> list[Window]:
    """Return up to 16 windows of 256 pixels a side, spread evenly over a scene."""
    rows, cols = ([round(p) for p in np.linspace(0, max(0, n - SIDE), min(SAMPLES, -(-n // SIDE)))] for n in shape)
    return [Window(row, col, SIDE, SIDE).clip(shape) for row in rows for col in cols]
