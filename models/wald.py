"""Wald's protocol on arrays: make the coarse image that a sharper sensor's picture would have been."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from scenelift.models.degradations import SENTINEL2_MTF, mtf_decimate

DEFAULT_MTF = 0.26
"""Transfer at Nyquist for a band that is none of Sentinel-2's 10 m bands: the middle of theirs."""


def coarsen(values: NDArray[np.generic], scale: int, bands: list[str | None]) -> NDArray[np.float32]:
    """Blur each band with its sensor's MTF and keep every ``scale``-th pixel.

    Parameters
    ----------
    values : ndarray, shape (C, H, W)
        Any unit; sides multiples of ``scale``.
    scale : int
    bands : list of str or None
        Names of the bands ("B02", …), for the MTF.

    Returns
    -------
    ndarray of float32, shape (C, H / scale, W / scale)
    """
    mtf = [SENTINEL2_MTF.get(name or "", DEFAULT_MTF) for name in bands]
    fine = torch.from_numpy(values.astype(np.float32))[None]
    return mtf_decimate(fine, scale, mtf)[0].numpy()
