"""The measures of opensr-test: is detail that super-resolution adds consistent with the input, and is it true?

Aybar, Montero, Donike, Kalaitzis and Gómez-Chova (2024), "A Comprehensive Benchmark for Optical Remote Sensing Image
Super-Resolution", IEEE Geoscience and Remote Sensing Letters 21, with the formulas and the default choices of their
package opensr-test 1.3.3 (distances by single pixels).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from scenelift.pipeline.scores.pixels import spectral_angles
from scenelift.pipeline.scores.sums import Block, Coarse, Sums, ratio

SIDE = 128
"""Pixels a side of a tile: what the package takes as one image. Cut to a multiple of the factor."""
HALO = SIDE - 1
"""Context in pixels that a tile needs that starts with the core's last pixel."""
LEAST = 16
"""Pixels a side below which a tile is left out."""
COLUMNS = ("reflectance", "spectral", "spatial", "synthesis", "improvement", "omission", "hallucination")
SHARPNESS = 0.05
"""The package's `im_score`, `om_score` and `ha_score`."""
TEMPERATURE = 0.25
"""Of the softmin that turns the three distances into shares."""
QUANTILE = 0.75
"""Pixels count where one of the three distances is above this quantile of the input's distance to the truth."""
PARTS = 50
"""Shifts are found to one part of a pixel out of so many."""
FARTHEST = 5.0
"""A shift of more pixels is taken for an error: nothing is moved, and there is no spatial consistency."""

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OpenSrSums(Sums):
    """Sums over tiles, each counted with its pixels; float64 arrays of shape (7,), in the order of `COLUMNS`."""

    total: Values
    pixels: Values

    def mean(self, column: str) -> Values:
        """Return a measure's mean over tiles, shape (...)."""
        at = COLUMNS.index(column)
        return ratio(self.total[..., at], self.pixels[..., at])


def opensr_sums(block: Block) -> OpenSrSums:
    """Sum the measures over the tiles that a block owns: those whose first pixel is in its core.

    A tile is what the package calls an image. Rows and columns at its edges without data are cut off (to whole pixels
    of the input); a tile with an invalid pixel inside is left out.
    """
    total, pixels = np.zeros(len(COLUMNS)), np.zeros(len(COLUMNS))
    for fine, low in _tiles(block, block.coarse) if block.coarse else ():
        images = (image[:, *fine] for image in (block.test, block.reference))
        found = measures(low, *images)
        values = np.array([found[name] for name in COLUMNS])
        size, there = block.valid[0, *fine].size, np.isfinite(values)
        total += np.where(there, values, 0) * size
        pixels += there * size
    return OpenSrSums(total, pixels)


Slices = tuple[slice, slice]


def _tiles(block: Block, coarse: Coarse) -> Iterator[tuple[Slices, Values]]:
    """Yield where a block's tiles lie in its arrays, and what the coarse image (C, h, w) shows there."""
    factor, area = coarse.factor, block.area
    known = np.logical_and.reduce(block.valid)
    seen = np.logical_and.reduce(coarse.valid)
    side = SIDE // factor * factor
    starts = [range(-(-area.core[axis] // side) * side, area.core[axis + 2], side) for axis in (0, 1)]
    for corner in itertools.product(*starts):
        whole = _slices([(at, at + side) for at in corner], area.origin, 1)
        spans = [_inner(known[whole].any(axis=1 - axis), corner[axis], factor) for axis in (0, 1)]
        fine, low = (_slices(spans, area.origin, step) for step in (1, factor))
        if min(end - first for first, end in spans) >= LEAST and known[fine].all() and seen[low].all():
            yield fine, coarse.values[:, *low]


def _slices(spans: Sequence[tuple[int, int]], origin: tuple[int, int], step: int) -> Slices:
    """Return where spans of the scene's pixels lie in an array of every ``step``-th, which begins at an origin."""
    rows, columns = (slice(*(n // step - o // step for n in span)) for span, o in zip(spans, origin, strict=True))
    return rows, columns


def _inner(known: NDArray[np.bool_], start: int, factor: int) -> tuple[int, int]:
    """Return first and end row (or column) of a tile that holds data, in the scene, at whole pixels of the input."""
    held = np.flatnonzero(known)
    if not len(held):
        return start, start
    return -(-(start + int(held[0])) // factor) * factor, (start + int(held[-1]) + 1) // factor * factor


def measures(coarse: Values, test: Values, reference: Values) -> dict[str, float]:
    """Return the measures of one image.

    Parameters
    ----------
    coarse : ndarray, shape (C, H / f, W / f)
        What was super-resolved, reflectance.
    test, reference : ndarray, shape (C, H, W)
        What was made of it, and the truth.

    Returns
    -------
    dict
        ``reflectance`` (mean absolute difference, lower is better), ``spectral`` (mean angle in degrees, lower) and
        ``spatial`` (shift in pixels of the input, lower; NaN where none is found) of the result, reduced to the
        input's grid; ``synthesis`` (mean absolute difference of the harmonized result to the interpolated input:
        how much was added); ``improvement`` (higher is better), ``omission`` and ``hallucination`` (lower), which
        sum to 1 in each pixel.

    Notes
    -----
    Both resamplings are bilinear with antialiasing (triangles). Harmonized means: each band's histogram matched to
    the truth's, then moved by the shift that phase correlation finds. With the normalized difference
    ``d(x, y) = mean |x - y| / |x + y|`` over bands, and distances relative to that of input and truth, ``a`` of
    result and truth and ``b`` of result and input: improvement, omission and hallucination are the softmin of
    ``a + b (1 - exp(-(a + b - 1) / 20))``, ``b + a (1 - exp(-(a + b - 1) / 20))`` and ``exp(-a b / 20)``.
    """
    low, fine = coarse.shape[1:], test.shape[1:]
    reduced, enlarged = _resampled(test, low), _resampled(coarse, fine)
    spatial = _shift(reduced[:3].mean(axis=0), coarse[:3].mean(axis=0))
    harmonized = _harmonized(test, reference)
    angles = spectral_angles(coarse, reduced, np.ones(low, bool))
    shares = _correctness(enlarged, harmonized, reference)
    return {
        "reflectance": float(np.abs(coarse - reduced).mean()),
        "spectral": float(np.degrees(angles).mean()) if angles.size else float("nan"),
        "spatial": float("nan") if spatial is None else float(np.hypot(*spatial)),
        "synthesis": float(np.abs(enlarged - harmonized).mean()),
        **dict(zip(COLUMNS[4:], shares, strict=True)),
    }


def _resampled(image: Values, shape: tuple[int, int]) -> Values:
    """Resample (C, h, w) to another size, bilinear with antialiasing, as torch's ``interpolate`` does."""
    rows, columns = (_triangles(n, m) for n, m in zip(image.shape[1:], shape, strict=True))
    return np.einsum("ij,cjk,lk->cil", rows, image, columns, optimize=True)


@functools.lru_cache(maxsize=16)
def _triangles(length: int, wanted: int) -> Values:
    """Return the weights (wanted, length) of resampling by triangles that are as wide as the wider pixel."""
    step = length / wanted
    centres = (np.arange(wanted) + 0.5) * step
    weights = np.maximum(0, 1 - np.abs(np.arange(length) + 0.5 - centres[:, None]) / max(1.0, step))
    return weights / weights.sum(axis=1, keepdims=True)


def _shift(fixed: Values, moving: Values) -> tuple[float, float] | None:
    """Return rows and columns by which ``moving`` must be moved; None where that cannot be right."""
    from skimage.registration import phase_cross_correlation  # late: half a second that no other score needs

    if not (fixed.any() and moving.any()):
        return 0.0, 0.0  # dark images correlate with nothing
    found, *_ = phase_cross_correlation(fixed, moving, upsample_factor=PARTS)
    shift = float(found[0]), float(found[1])
    return shift if np.hypot(*shift) <= FARTHEST else None


def _harmonized(test: Values, reference: Values) -> Values:
    """Return the result without what is systematic: other histograms, and a shift of the whole."""
    from skimage.exposure import match_histograms

    matched: Values = match_histograms(test, reference, channel_axis=0)
    shift = _shift(reference.mean(axis=0), matched.mean(axis=0))
    if shift is None or not any(shift):
        return matched
    return np.stack([ndimage.shift(band, shift, order=1, mode="nearest") for band in matched])


def _distance(x: Values, y: Values) -> Values:
    return np.mean(np.abs(x - y) / np.abs(x + y + 1e-8), axis=0)


def _correctness(enlarged: Values, test: Values, reference: Values) -> tuple[float, float, float]:
    """Return improvement, omission and hallucination, means over the pixels where there was something to do."""
    base, missed, added = _distance(enlarged, reference), _distance(test, reference), _distance(test, enlarged)
    rank = max(1, int(QUANTILE * base.size))
    threshold = np.partition(base.ravel(), rank - 1)[rank - 1]
    counted = np.maximum(np.maximum(base, missed), added) > threshold
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = missed[counted] / base[counted], added[counted] / base[counted]
        damped = 1 - np.exp(-(a + b - 1) * SHARPNESS)
        distances = np.stack([a + b * damped, b + a * damped, np.exp(-a * b * SHARPNESS)])
        weights = np.exp(-distances / TEMPERATURE)
        shares = weights / weights.sum(axis=0)
    known = np.isfinite(shares).all(axis=0)
    if not known.any():
        return float("nan"), float("nan"), float("nan")
    improvement, omission, hallucination = shares[:, known].mean(axis=1)
    return float(improvement), float(omission), float(hallucination)
