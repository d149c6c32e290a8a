"""Structural similarity (SSIM, MS-SSIM) and visual information fidelity (VIF) as sums over windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scenelift.pipeline.scores.areas import LEVELS, halve
from scenelift.pipeline.scores.stencils import correlate, gaussian_kernel, whole
from scenelift.pipeline.scores.sums import Block, Sums, ratio

SSIM_RADIUS = 5
SSIM_KERNEL = gaussian_kernel(1.5, SSIM_RADIUS)
MS_SSIM_WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
"""Exponents of Wang, Simoncelli and Bovik (2003), finest scale first."""
VIF_NOISE = 2.0
"""Variance of the visual noise on a scale of 0 to 255 (Sheikh and Bovik 2006, pixel domain)."""
_VIF_EPSILON = 1e-10


@dataclass(frozen=True, eq=False)
class SimilaritySums(Sums):
    """What SSIM and MS-SSIM are made of; float64 arrays of shape (LEVELS, C)."""

    ssim: np.ndarray
    """Sum of SSIM over window centres."""
    structure: np.ndarray
    """Sum of the contrast-structure term of SSIM."""
    windows: np.ndarray
    """How many windows were summed."""

    @property
    def mean_ssim(self) -> np.ndarray:
        """SSIM of each band at full resolution, shape (..., C); NaN without a whole window."""
        return ratio(self.ssim[..., 0, :], self.windows[..., 0, :])

    @property
    def ms_ssim(self) -> np.ndarray:
        """MS-SSIM of each band, shape (..., C).

        Structure at every scale but the coarsest, SSIM at the coarsest, to the powers ``MS_SSIM_WEIGHTS``.
        Scales on which no whole window fits are left out and the remaining weights rescaled to sum to one.
        A negative mean counts as zero.
        """
        fits = np.logical_and.accumulate(self.windows > 0, axis=-2)
        coarsest = fits & ~np.concatenate([fits[..., 1:, :], np.zeros_like(fits[..., :1, :])], axis=-2)
        terms = np.where(coarsest, ratio(self.ssim, self.windows), ratio(self.structure, self.windows))
        weights = np.where(fits, MS_SSIM_WEIGHTS[:, None], 0)
        weights = ratio(weights, weights.sum(axis=-2, keepdims=True))
        value = np.prod(np.where(fits, np.maximum(terms, 0), 1) ** weights, axis=-2)
        return np.where(fits[..., 0, :], value, np.nan)


@dataclass(frozen=True, eq=False)
class InformationSums(Sums):
    """What VIF is made of; float64 arrays of shape (C,)."""

    kept: np.ndarray
    """Information (log10) that the test image keeps of the reference."""
    total: np.ndarray
    """Information (log10) in the reference."""

    @property
    def vif(self) -> np.ndarray:
        """VIF of each band, shape (C,); NaN for a reference without information (constant, or no window)."""
        return ratio(self.kept, self.total)


def similarity_sums(block: Block) -> SimilaritySums:
    """Sum SSIM over the windows that a block owns, at five scales.

    Conventions (those of Wang et al. 2004 and of ``skimage.metrics.structural_similarity`` with
    ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``): 11 x 11 Gaussian windows, population
    covariance, K1 = 0.01, K2 = 0.03, whole windows only. Coarser scales are exact means of 2 x 2 cells of
    the scene's own grid; a cell with an invalid pixel is invalid, and so is a window with an invalid cell.
    """
    sums = np.zeros((3, LEVELS, len(block.test)))
    for band, (x, y, mask) in enumerate(zip(block.reference, block.test, block.valid, strict=True)):
        for level in range(LEVELS):
            if level:
                x, y, mask = halve(x), halve(y), halve(mask)
            ssim, structure = _ssim_maps(x, y, float(block.ranges[band]))
            own = block.area.owned(level, shift=SSIM_RADIUS)
            keep = whole(mask, len(SSIM_KERNEL))[own]
            sums[:, level, band] = ssim[own][keep].sum(), structure[own][keep].sum(), keep.sum()
    return SimilaritySums(*sums)


def _ssim_maps(x: np.ndarray, y: np.ndarray, data_range: float) -> tuple[np.ndarray, np.ndarray]:
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (correlate(v, SSIM_KERNEL) for v in (x, y, x * x, y * y, x * y))
    structure = (2 * (mean_xy - mean_x * mean_y) + c2) / (mean_xx - mean_x**2 + mean_yy - mean_y**2 + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * structure, structure


def information_sums(block: Block) -> InformationSums:
    """Sum the two informations of pixel-domain VIF over the windows that a block owns, at four scales.

    Conventions of ``sewar.vifp`` and ``torchmetrics``: values rescaled to 0..255 by the data range, Gaussian
    windows of 17, 9, 5 and 3 pixels with sigma = size / 5, whole windows only, every second filtered pixel kept
    from one scale to the next, counted from the scene's upper-left corner. A window that touches an invalid pixel
    at any scale is left out.
    """
    sums = np.zeros((2, len(block.test)))
    for band, (x, y, mask) in enumerate(zip(block.reference, block.test, block.valid, strict=True)):
        factor = 255 / float(block.ranges[band])
        x, y = x * factor, y * factor
        for level, size in enumerate((17, 9, 5, 3)):
            kernel = gaussian_kernel(size / 5, size // 2)
            if level:
                x, y = correlate(x, kernel)[::2, ::2], correlate(y, kernel)[::2, ::2]
                mask = whole(mask, size)[::2, ::2]
            kept, total = _information_maps(x, y, kernel)
            own = block.area.owned(level)
            keep = whole(mask, size)[own]
            sums[:, band] += kept[own][keep].sum(), total[own][keep].sum()
    return InformationSums(*sums)


def _information_maps(x: np.ndarray, y: np.ndarray, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean_x, mean_y = correlate(x, kernel), correlate(y, kernel)
    var_x = np.maximum(correlate(x * x, kernel) - mean_x**2, 0)
    var_y = np.maximum(correlate(y * y, kernel) - mean_y**2, 0)
    covariance = correlate(x * y, kernel) - mean_x * mean_y
    gain = covariance / (var_x + _VIF_EPSILON)
    noise = var_y - gain * covariance
    flat_x, flat_y = var_x < _VIF_EPSILON, var_y < _VIF_EPSILON
    noise = np.where(flat_x, var_y, noise)
    gain = np.where(flat_x | flat_y, 0, gain)
    var_x = np.where(flat_x, 0, var_x)
    noise = np.where(flat_y, 0, noise)
    noise = np.maximum(np.where(gain < 0, var_y, noise), _VIF_EPSILON)
    gain = np.maximum(gain, 0)
    kept = np.log10(1 + gain**2 * var_x / (noise + VIF_NOISE))
    return kept, np.log10(1 + var_x / VIF_NOISE)
