"""Sharpness, contrast and noise of one image, as sums that need no reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from scenelift.pipeline.scores.areas import LEVELS, Area, cells, halve
from scenelift.pipeline.scores.similarity import SSIM_KERNEL, SSIM_RADIUS
from scenelift.pipeline.scores.stencils import correlate, whole
from scenelift.pipeline.scores.sums import Block, Sums, ratio

PIXELS_PER_DEGREE = 32.0
"""Viewing condition of the contrast-sensitivity weighting: about a 96 dpi screen at half a metre."""
_BINS = 2000
_LOWEST, _HIGHEST = 1e-8, 1e2
"""Range of noise coefficients, relative to full scale, that the histogram tells apart: 1.2% a bin."""
_MAD = 0.6744897501960817
"""Median of the absolute value of a standard normal variable."""


@dataclass(frozen=True, eq=False)
class TextureSums(Sums):
    """Sums over one image, relative to full scale (the data range); float64 arrays, C bands."""

    pixels: np.ndarray
    """Valid pixels, shape (C,)."""
    total: np.ndarray
    """Sum of values, shape (C,)."""
    squares: np.ndarray
    """Sum of squared values, shape (C,)."""
    gradient: np.ndarray
    """Sum of squared Sobel gradients, shape (C,)."""
    gradients: np.ndarray
    """Pixels with a whole 3 x 3 neighbourhood, shape (C,)."""
    detail: np.ndarray
    """Sum of squared differences from the 11 x 11 Gaussian mean (sigma 1.5), shape (C,)."""
    details: np.ndarray
    """Pixels with a whole 11 x 11 neighbourhood, shape (C,)."""
    octaves: np.ndarray
    """Sum over 2 x 2 cells of the variance inside the cell, at each scale, shape (C, LEVELS - 1)."""
    cells: np.ndarray
    """Cells summed at each scale, shape (C, LEVELS - 1)."""
    diagonals: np.ndarray
    """Histogram of the absolute diagonal Haar coefficients at the finest scale, shape (C, bins)."""

    @property
    def mean(self) -> np.ndarray:
        """Mean of each band, shape (C,), relative to full scale."""
        return ratio(self.total, self.pixels)

    @property
    def rms_contrast(self) -> np.ndarray:
        """Standard deviation of each band relative to full scale, shape (C,) (Peli 1990)."""
        return np.sqrt(np.maximum(ratio(self.squares, self.pixels) - self.mean**2, 0))

    @property
    def tenengrad(self) -> np.ndarray:
        """Mean squared Sobel gradient of each band, shape (C,), (full scale per pixel) squared."""
        return ratio(self.gradient, self.gradients)

    @property
    def high_frequency(self) -> np.ndarray:
        """Mean squared difference from the local Gaussian mean, shape (C,): energy above about 0.1 cycles a pixel."""
        return ratio(self.detail, self.details)

    @property
    def visible_contrast(self) -> np.ndarray:
        """Contrast weighted by the eye's sensitivity, shape (C,).

        Root of the sum over octaves of (sensitivity x contrast) squared: the contrast of an octave is the root
        mean variance inside its 2 x 2 cells, relative to full scale; the sensitivity is Mannos and Sakrison's
        (1974), normalized to its peak, at the octave's centre frequency for ``PIXELS_PER_DEGREE``.
        """
        weights = _contrast_sensitivity(PIXELS_PER_DEGREE * 0.375 / 2.0 ** np.arange(LEVELS - 1)) ** 2
        energies = ratio(self.octaves, self.cells)
        seen = ~np.isnan(energies)
        total = np.sqrt((weights * np.where(seen, energies, 0)).sum(axis=-1))
        return np.where(seen.any(axis=-1), total, np.nan)

    @property
    def noise(self) -> np.ndarray:
        """Estimate of the white noise's standard deviation relative to full scale, shape (C,).

        Median absolute diagonal Haar coefficient over 0.6745 (Donoho and Johnstone 1994). Fine texture counts as
        noise, so for a real scene this is an upper estimate.
        """
        return _median(self.diagonals) / _MAD

    @property
    def signal_to_noise(self) -> np.ndarray:
        """Mean over the estimated noise, shape (C,); infinite where no noise is found."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.mean / self.noise

    @property
    def equivalent_looks(self) -> np.ndarray:
        """Signal to noise squared, shape (C,)."""
        return self.signal_to_noise**2


def _contrast_sensitivity(frequency: np.ndarray) -> np.ndarray:
    """Return Mannos and Sakrison's sensitivity, relative to its peak, for frequencies in cycles per degree."""
    return _mannos_sakrison(frequency) / _mannos_sakrison(np.linspace(0.1, 60, 6000)).max()


def _mannos_sakrison(frequency: np.ndarray) -> np.ndarray:
    scaled = 0.114 * np.asarray(frequency, np.float64)
    return 2.6 * (0.0192 + scaled) * np.exp(-(scaled**1.1))


def texture_sums(block: Block) -> TextureSums:
    """Sum sharpness, contrast and noise of the test image over what a block owns.

    Neighbourhoods and cells that touch an invalid pixel are left out.
    """
    bands = [_band(x / scale, m, block.area) for x, m, scale in zip(block.test, block.valid, block.ranges, strict=True)]
    return TextureSums(*(np.stack(column) for column in zip(*bands, strict=True)))


def _band(x: np.ndarray, mask: np.ndarray, area: Area) -> tuple[np.ndarray | float, ...]:
    own = area.owned()
    values = x[own][mask[own]]
    octaves, counts = _octaves(x, mask, area)
    return (
        float(values.size),
        values.sum(),
        (values**2).sum(),
        *_sum(_squared_gradient(x), whole(mask, 3), area.owned(shift=1)),
        *_sum(_squared_detail(x), whole(mask, len(SSIM_KERNEL)), area.owned(shift=SSIM_RADIUS)),
        octaves,
        counts,
        _diagonals(x, mask, area),
    )


def _sum(values: np.ndarray, keep: np.ndarray, own: tuple[slice, slice]) -> tuple[float, float]:
    kept = values[own][keep[own]]
    return float(kept.sum()), float(kept.size)


def _squared_gradient(x: np.ndarray) -> np.ndarray:
    if min(x.shape) < 3:
        return np.zeros((max(0, x.shape[0] - 2), max(0, x.shape[1] - 2)))
    return sum(ndimage.sobel(x, axis=axis)[1:-1, 1:-1] ** 2 for axis in (0, 1)) / 16


def _squared_detail(x: np.ndarray) -> np.ndarray:
    mean = correlate(x, SSIM_KERNEL)
    inside = x[SSIM_RADIUS:, SSIM_RADIUS:][: mean.shape[0], : mean.shape[1]]
    return (inside - mean) ** 2


def _octaves(x: np.ndarray, mask: np.ndarray, area: Area) -> tuple[np.ndarray, np.ndarray]:
    sums, counts = np.zeros(LEVELS - 1), np.zeros(LEVELS - 1)
    for level in range(LEVELS - 1):
        quads, mask = cells(x), halve(mask)
        sums[level], counts[level] = _sum(quads.var(axis=0), mask, area.owned(level + 1))
        x = quads.mean(axis=0)
    return sums, counts


def _diagonals(x: np.ndarray, mask: np.ndarray, area: Area) -> np.ndarray:
    northwest, northeast, southwest, southeast = cells(x)
    own = area.owned(1)
    coefficients = np.abs(northwest - northeast - southwest + southeast)[own][halve(mask)[own]] / 2
    with np.errstate(divide="ignore"):
        places = np.log(coefficients / _LOWEST) * ((_BINS - 2) / np.log(_HIGHEST / _LOWEST))
    bins = np.clip(np.floor(np.nan_to_num(places, neginf=-1)) + 1, 0, _BINS - 1).astype(np.int64)
    return np.bincount(bins, minlength=_BINS).astype(np.float64)


def _median(histogram: np.ndarray) -> np.ndarray:
    """Return the median that histograms (..., bins) tell of, shape (...); NaN without a count."""
    cumulative = np.cumsum(histogram, axis=-1)
    half = cumulative[..., -1:] / 2
    index = (cumulative < half).sum(axis=-1, keepdims=True)
    counted, below = (
        np.take_along_axis(a, np.maximum(i, 0), -1) for a, i in ((histogram, index), (cumulative, index - 1))
    )
    value = _LOWEST * (_HIGHEST / _LOWEST) ** ((index - 1 + ratio(half - below, counted)) / (_BINS - 2))
    return np.where(half > 0, np.where(index == 0, 0, value), np.nan)[..., 0]
