"""What image fusion is measured by: universal quality, its hypercomplex form, and quality without a reference."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.scores.areas import ALIGNMENT, LEVELS, Area
from scenelift.pipeline.scores.sums import Block, Sums, ratio

Values = NDArray[np.float64]

WINDOW = 2 * ALIGNMENT
"""Side of the windows, 32 pixels as in the literature; one starts every ``ALIGNMENT`` pixels of the scene."""
MOST_BANDS = 16
"""Hypercomplex numbers have as many parts; more bands are not measured together."""


@dataclass(frozen=True, eq=False)
class FusionSums(Sums):
    """Sums over whole windows; float64 arrays of shape (C,) or ()."""

    quality: np.ndarray
    """Sum of the universal quality index over windows."""
    windows: np.ndarray
    """Windows whose pixels are all valid in both images."""
    together: np.ndarray
    """Sum of the hypercomplex index over windows, shape ()."""
    windows_together: np.ndarray
    """Windows that are valid in all bands, shape ()."""


def fusion_sums(block: Block) -> FusionSums:
    """Sum what a block owns.

    Conventions: the universal quality index of Wang and Bovik (IEEE SPL 9(3), 2002) and Q2n of Garzelli and Nencini
    (IEEE GRSL 6(4), 2009), of the values as they are, in windows of 32 x 32 pixels that start every 16 pixels; whole
    valid windows only. A window without variance in both images has the quality of its means.
    """
    moments = _Moments(block.reference, block.test, block.area)
    whole = _windows(block.valid.astype(np.float64), block.area) == WINDOW**2
    each = _universal(moments.means_x, moments.means_y, moments.variances_x, moments.variances_y, moments.own)
    everywhere = whole.all(axis=0)
    together = 0.0
    comparable = 1 < len(block.reference) <= MOST_BANDS
    if comparable and everywhere.any():
        together = float(_hypercomplex(moments)[everywhere].sum())
    return FusionSums(
        quality=np.where(whole, each, 0).sum(axis=(1, 2)),
        windows=whole.sum(axis=(1, 2), dtype=np.float64),
        together=np.array(together),
        windows_together=np.array(float(everywhere.sum()) if comparable else 0.0),
    )


def _windows(values: Values, area: Area) -> Values:
    """Return sums over the windows that a block owns, (..., H, W) to (..., rows, columns)."""
    height, width = (side // ALIGNMENT for side in values.shape[-2:])
    cut = values[..., : height * ALIGNMENT, : width * ALIGNMENT]
    cells = cut.reshape(*values.shape[:-2], height, ALIGNMENT, width, ALIGNMENT).sum(axis=(-3, -1))
    pairs = cells[..., :-1, :] + cells[..., 1:, :]
    windows = pairs[..., :-1] + pairs[..., 1:]
    rows, columns = area.owned(LEVELS - 1)
    return windows[..., rows, columns]


class _Moments:
    """Means and covariances of two images in windows, unbiased."""

    def __init__(self, x: Values, y: Values, area: Area) -> None:
        self._sums = functools.partial(_windows, area=area)
        # about a common point, so that variances of nearly constant windows keep their digits
        centre = x.mean(axis=(1, 2), keepdims=True)
        self._x, self._y = x - centre, y - centre
        self._means = [self._sums(v) / WINDOW**2 for v in (self._x, self._y)]
        self.means_x, self.means_y = (m + centre for m in self._means)
        self.variances_x = self._covariance(self._x, self._x, self._means[0], self._means[0])
        self.variances_y = self._covariance(self._y, self._y, self._means[1], self._means[1])
        self.own = self._covariance(self._x, self._y, *self._means)

    def _covariance(self, a: Values, b: Values, mean_a: Values, mean_b: Values) -> Values:
        found: Values = (self._sums(a * b) / WINDOW**2 - mean_a * mean_b) * (WINDOW**2 / (WINDOW**2 - 1))
        return found

    def between(self, i: int, j: int) -> Values:
        """Return the covariance of band ``i`` of the first image with band ``j`` of the second."""
        return self._covariance(self._x[i], self._y[j], self._means[0][i], self._means[1][j])


def _universal(mean_x: Values, mean_y: Values, var_x: Values, var_y: Values, covariance: Values) -> Values:
    """Return 4 σxy x̄ ȳ / ((σx² + σy²)(x̄² + ȳ²)); the quality of the means alone where nothing varies."""
    means = ratio(2 * mean_x * mean_y, mean_x**2 + mean_y**2)
    spread = var_x + var_y
    flat = spread <= 1e-12 * (mean_x**2 + mean_y**2)
    structure = np.where(flat, 1.0, 2 * covariance / np.where(flat, 1.0, spread))
    return np.where(np.isnan(means), 1.0, means) * structure


@functools.cache
def _signs(size: int) -> NDArray[np.int8]:
    """Return the signs of conjugate products of hypercomplex units: unit i times conjugate unit j, (size, size).

    Cayley and Dickson's doubling: (a, b)(c, d) = (ac - d*b, da + bc*). The product of units i and j is unit i xor j.
    """
    signs = _products(size).copy()
    signs[:, 1:] *= -1  # the conjugate
    return signs


@functools.cache
def _products(size: int) -> NDArray[np.int8]:
    """Return the sign of unit i times unit j."""
    if size == 1:
        return np.ones((1, 1), np.int8)
    half = size // 2
    inner = _products(half)
    conj = np.where(np.arange(half) == 0, 1, -1).astype(np.int8)
    out = np.empty((size, size), np.int8)
    out[:half, :half] = inner  # a c
    out[half:, half:] = -(inner.T * conj[None, :])  # - d* b, with b = unit i, d = unit j
    out[:half, half:] = inner.T  # d a
    out[half:, :half] = inner * conj[None, :]  # b c*
    return out


def _hypercomplex(moments: _Moments) -> Values:
    """Return Q2n of each window."""
    bands = len(moments.means_x)
    size = 1 << (bands - 1).bit_length()
    signs = _signs(size)
    parts = np.zeros((size, *moments.means_x.shape[1:]))
    for i in range(bands):
        for j in range(bands):
            parts[i ^ j] += signs[i, j] * moments.between(i, j)
    covariance = np.sqrt((parts**2).sum(axis=0))
    mean_x, mean_y = (np.sqrt((m**2).sum(axis=0)) for m in (moments.means_x, moments.means_y))
    return _universal(mean_x, mean_y, moments.variances_x.sum(axis=0), moments.variances_y.sum(axis=0), covariance)


@dataclass(frozen=True, eq=False)
class NoReferenceSums(Sums):
    """What D_lambda, D_S and QNR are made of: universal quality summed over windows."""

    fused: np.ndarray
    """Between sharpened bands, shape (C, C)."""
    coarse: np.ndarray
    """Between the same bands before."""
    fused_guides: np.ndarray
    """Between sharpened bands and guides, shape (C, G)."""
    coarse_guides: np.ndarray
    """Between bands before and guides as coarse as they."""
    windows: np.ndarray
    """Shape ()."""


def no_reference_sums(
    fused: np.ndarray, coarse: np.ndarray, guides: np.ndarray, coarse_guides: np.ndarray, area: Area | None = None
) -> NoReferenceSums:
    """Sum what a block contributes to the quality without a reference.

    Parameters
    ----------
    fused, coarse : ndarray, shape (C, H, W)
        Sharpened bands, and those they were made of, replicated onto the fine grid.
    guides, coarse_guides : ndarray, shape (G, H, W)
        The fine bands, and what the coarse bands' sensor sees of them, replicated. NaN anywhere: no data there.
    area : Area, optional
        Where the arrays lie in the scene and what the block owns; by default the arrays are the whole scene.
    """
    area = area or Area.whole(fused.shape[1:])
    fine = np.concatenate([fused, guides]).astype(np.float64)
    low = np.concatenate([coarse, coarse_guides]).astype(np.float64)
    valid = np.logical_and.reduce(np.isfinite(np.concatenate([fine, low])))
    fine, low = (np.where(valid, v, 0) for v in (fine, low))
    whole = _windows(np.asarray(valid, np.float64), area) == WINDOW**2
    bands, count = len(fused), len(fine)
    pairs = [(i, j) for i in range(bands) for j in range(i + 1, count)]
    found = np.zeros((2, bands, count))
    for number, stack in enumerate((fine, low)):
        moments = _Moments(stack, stack, area)
        for i, j in pairs:
            each = _universal(
                moments.means_x[i],
                moments.means_x[j],
                moments.variances_x[i],
                moments.variances_x[j],
                moments.between(i, j),
            )
            found[number, i, j] = each[whole].sum()
    (one, other), count_windows = found, np.array(float(whole.sum()))
    return NoReferenceSums(one[:, :bands], other[:, :bands], one[:, bands:], other[:, bands:], count_windows)


def without_reference(sums: NoReferenceSums) -> dict[str, float]:
    """Return ``d_lambda``, ``d_s`` and ``qnr`` (Alparone et al., PE&RS 74(2), 2008), exponents 1.

    D_lambda is the mean change of the quality between two bands, D_S that between a band and a guide, QNR =
    (1 - D_lambda)(1 - D_S). D_lambda is 0 for a single band.
    """
    count = float(sums.windows)
    if not count:
        return dict.fromkeys(("d_lambda", "d_s", "qnr"), float("nan"))
    upper = np.triu_indices(len(sums.fused), 1)
    between = np.abs(sums.fused - sums.coarse)[upper] / count
    d_lambda = float(between.mean()) if len(between) else 0.0
    d_s = float((np.abs(sums.fused_guides - sums.coarse_guides) / count).mean())
    return {"d_lambda": d_lambda, "d_s": d_s, "qnr": (1 - d_lambda) * (1 - d_s)}
