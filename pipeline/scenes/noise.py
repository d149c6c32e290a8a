"""The noise level of a scene, once per band, before any block is cut: every worker gets the same numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.scenes.scenes import Readable

PATCH = 8
MAX_PATCHES = 20_000


def scene_noise(scene: Readable) -> tuple[float, ...]:
    """Return the noise level of each band by `estimate_noise`, standard deviation in reflectance.

    The median over the windows of the scene's sample, so that neither a cloud nor a city decides.
    """
    estimates: list[list[float]] = [[] for _ in scene.bands]
    for region in scene.sample:
        for band, (values, valid) in enumerate(zip(region.values, region.valid, strict=True)):
            if valid.mean() > 0.5:
                estimates[band].append(estimate_noise(values, valid))
    return tuple(float(np.median(found)) if found else 0.0 for found in estimates)


def estimate_noise(values: NDArray[np.float32], valid: NDArray[np.bool_] | None = None) -> float:
    """Return the standard deviation of the white noise in one band.

    Small patches of a scene lie near a subspace; white noise lifts all eigenvalues of their covariance alike.
    The smallest ones, once their mean equals their median, are the noise alone (Chen, Zhu and Heng, "An
    efficient statistical method for image noise level estimation", ICCV 2015). Fine texture fills the subspace: of weak
    noise in a textured scene this is an upper bound.

    Parameters
    ----------
    values : ndarray
        (H, W) float32 band, any unit.
    valid : ndarray, optional
        (H, W) bool; patches that touch an invalid pixel are left out.

    Returns
    -------
    float
        In the unit of ``values``; 0.0 if there are too few patches to tell.
    """
    if min(values.shape) < PATCH:
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(values, (PATCH, PATCH))
    usable = np.arange(windows.shape[0] * windows.shape[1])
    if valid is not None:
        whole = np.lib.stride_tricks.sliding_window_view(valid, (PATCH, PATCH)).all(axis=(2, 3))
        usable = usable[whole.ravel()]
    if len(usable) < 4 * PATCH**2:
        return 0.0
    usable = usable[:: -(-len(usable) // MAX_PATCHES)]
    patches = windows[np.unravel_index(usable, windows.shape[:2])].reshape(len(usable), -1).astype(np.float64)
    eigenvalues = np.linalg.eigvalsh(np.cov(patches, rowvar=False))[::-1]
    for start in range(len(eigenvalues)):
        rest = eigenvalues[start:]
        level = rest.mean()
        if (rest > level).sum() >= (rest < level).sum():
            return float(np.sqrt(max(level, 0.0)))
    return float(np.sqrt(max(eigenvalues[-1], 0.0)))
