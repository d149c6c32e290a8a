"""How noisy an image is, from the image alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PATCH = 8
MAX_PATCHES = 20_000


def estimate_noise(values: NDArray[np.float32], valid: NDArray[np.bool_] | None = None) -> float:
    """Return the standard deviation of the white noise in one band.

    Small patches of a scene lie near a subspace; white noise lifts all eigenvalues of their covariance alike.
    The smallest ones, once their mean equals their median, are the noise alone (Chen, Zhu and Heng, "An
    efficient statistical method for image noise level estimation", ICCV 2015).

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
    windows = np.lib.stride_tricks.sliding_window_view(values, (PATCH, PATCH)).reshape(-1, PATCH, PATCH)
    usable = np.arange(len(windows))
    if valid is not None:
        whole = np.lib.stride_tricks.sliding_window_view(valid, (PATCH, PATCH)).all(axis=(2, 3))
        usable = usable[whole.ravel()]
    if len(usable) < 4 * PATCH**2:
        return 0.0
    usable = usable[:: -(-len(usable) // MAX_PATCHES)]
    patches = windows[usable].reshape(len(usable), -1).astype(np.float64)
    eigenvalues = np.linalg.eigvalsh(np.cov(patches, rowvar=False))[::-1]
    for start in range(len(eigenvalues)):
        rest = eigenvalues[start:]
        level = rest.mean()
        if (rest > level).sum() >= (rest < level).sum():
            return float(np.sqrt(max(level, 0.0)))
    return float(np.sqrt(max(eigenvalues[-1], 0.0)))
