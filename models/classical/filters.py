"""Classical noise filters on one band, in float64.

Each takes a band (H, W) and the noise's standard deviation in the band's unit, and returns a band of that shape.
Where a filter looks at a finite neighbourhood, every value is the same sum in the same order wherever it lies.
Defaults are the best found on 30 images of EuroSAT's validation split under noise of 5, 15 and 25 levels (lee:
4-look speckle) by ``python -m scenelift.workflows.evidence.tune``; where a much larger neighbourhood won less than
0.1 dB a step (tv, lee), the smaller one is kept.
"""

from __future__ import annotations

import itertools

import numpy as np
import pywt
from numpy.typing import NDArray
from scipy import ndimage
from skimage import restoration

Band = NDArray[np.float64]


def bilateral(x: Band, sigma: float, color: float = 3.0, spatial: float = 1.6, radius: int = 4) -> Band:
    """Average neighbours of like value (Tomasi and Manduchi, ICCV 1998).

    ``color`` is the value kernel's width in noise sigmas, ``spatial`` the space kernel's in pixels. (scikit-image's
    looks its weights up in a table spanned by the image's maximum, so its result depends on the tile.)
    """
    total, weights = np.zeros_like(x), np.zeros_like(x)
    padded = np.pad(x, radius, mode="reflect")
    scale = -0.5 / max(color * sigma, 1e-12) ** 2
    for dy in range(2 * radius + 1):
        for dx in range(2 * radius + 1):
            near = np.exp(-((dy - radius) ** 2 + (dx - radius) ** 2) / (2 * spatial**2))
            shifted = padded[dy : dy + x.shape[0], dx : dx + x.shape[1]]
            weight = near * np.exp(scale * (shifted - x) ** 2)
            total += weight * shifted
            weights += weight
    return total / weights


def wavelet(x: Band, sigma: float, family: str = "haar", shifts: int = 3, gain: float = 1.0) -> Band:
    """Shrink wavelet coefficients by BayesShrink (Chang, Yu and Vetterli, IEEE TIP 9(9), 2000).

    Averaged over ``shifts`` + 1 cyclic shifts along each axis (Coifman and Donoho 1995). Thresholds depend on the
    statistics of the whole array, so a tile and a whole image differ a little.
    """
    levels = max(1, pywt.dwt_max_level(min(x.shape), pywt.Wavelet(family).dec_len) - 1)
    options = {"sigma": gain * sigma, "wavelet": family, "method": "BayesShrink", "mode": "soft"}
    options |= {"wavelet_levels": levels, "rescale_sigma": False}
    total = np.zeros_like(x)
    for shift in itertools.product(range(shifts + 1), repeat=2):
        shrunk = restoration.denoise_wavelet(np.roll(x, shift, axis=(0, 1)), **options)
        total += np.roll(shrunk, (-shift[0], -shift[1]), axis=(0, 1))
    return total / (shifts + 1) ** 2


def non_local_means(x: Band, sigma: float, strength: float = 0.8, size: int = 5, distance: int = 8) -> Band:
    """Average pixels whose surroundings look alike (Buades, Coll and Morel, CVPR 2005).

    ``strength`` is the filter's h in noise sigmas; patches of ``size`` within ``distance`` pixels are compared by
    scikit-image's fast variant (running sums).
    """
    options = {"patch_size": size, "patch_distance": distance, "fast_mode": True}
    return restoration.denoise_nl_means(x, h=strength * sigma, sigma=sigma, **options)


def total_variation(x: Band, sigma: float, weight: float = 0.9, steps: int = 60) -> Band:
    """Minimize total variation (Rudin, Osher and Fatemi 1992) by ``steps`` of Chambolle's algorithm (2004).

    The fixed number of steps, instead of a test on the whole array's energy, bounds how far a pixel looks.
    """
    return restoration.denoise_tv_chambolle(x, weight=weight * sigma, eps=0, max_num_iter=steps)


def wiener(x: Band, sigma: float, size: int = 7, gain: float = 1.2) -> Band:
    """Shrink towards the local mean by the local signal-to-noise ratio (Lee 1980; scipy.signal.wiener)."""
    mean, variance = _moments(x, size)
    noise = (gain * sigma) ** 2
    return mean + np.maximum(variance - noise, 0) / np.maximum(variance, max(noise, 1e-30)) * (x - mean)


def median(x: Band, sigma: float, size: int = 3) -> Band:
    """Take the median of ``size`` x ``size`` pixels; the noise level plays no part."""
    return ndimage.median_filter(x, size=size, mode="reflect")


def lee(x: Band, sigma: float, looks: float = 1.0, size: int = 11) -> Band:
    """Filter the multiplicative speckle of an intensity image of ``looks`` (Lee, IEEE TPAMI 2(2), 1980).

    Shrinks towards the local mean by (1 - Cn² / Ci²) / (1 + Cn²), Cn² = 1 / looks the squared coefficient of
    variation of speckle and Ci² the image's; the additive noise level plays no part.
    """
    mean, variance = _moments(x, size)
    speckle = 1 / looks
    signal = np.maximum(variance - speckle * mean**2, 0) / (1 + speckle)
    return mean + signal / np.maximum(variance, 1e-30) * (x - mean)


def _moments(x: Band, size: int) -> tuple[Band, Band]:
    kernel = np.full(size, 1 / size)  # not uniform_filter: its running sums round differently in every tile

    def mean(values: Band) -> Band:
        rows = ndimage.correlate1d(values, kernel, axis=0, mode="reflect")
        return ndimage.correlate1d(rows, kernel, axis=1, mode="reflect")

    local = mean(x)
    return local, np.maximum(mean(x * x) - local**2, 0)
