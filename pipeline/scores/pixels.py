"""Errors pixel by pixel, spectrum by spectrum and cell by cell, as sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scenelift.pipeline.scores.areas import Area, halve
from scenelift.pipeline.scores.sums import Block, Sums


@dataclass(frozen=True, eq=False)
class PixelSums(Sums):
    """Sums over valid pixels; float64 arrays of shape (C,) in the images' unit, or of shape ()."""

    pixels: np.ndarray
    """Pixels valid in both images."""
    error: np.ndarray
    """Sum of test - reference."""
    absolute: np.ndarray
    """Sum of |test - reference|."""
    squared: np.ndarray
    """Sum of (test - reference) squared."""
    reference: np.ndarray
    """Sum of the reference."""
    power: np.ndarray
    """Sum of the reference squared."""
    angle: np.ndarray
    """Sum of the angles between the two spectra, radians, shape ()."""
    angles: np.ndarray
    """Pixels valid in all bands and non-zero in both images, shape ()."""
    coarse: np.ndarray
    """Sum of squared differences between means of 2 x 2 cells."""
    coarse_cells: np.ndarray
    """Cells wholly valid in both images."""


def pixel_sums(block: Block) -> PixelSums:
    """Sum errors over the pixels that a block owns."""
    x, y, mask, area = block.reference, block.test, block.valid, block.area
    own = (slice(None), *area.owned())
    mine = mask[own]
    error = np.where(mine, y[own] - x[own], 0)
    angles = spectral_angles(x[own], y[own], np.logical_and.reduce(mine))
    coarse = [_coarse_sums(*band, area) for band in zip(x, y, mask, strict=True)]
    return PixelSums(
        pixels=mine.sum(axis=(1, 2), dtype=np.float64),
        error=error.sum(axis=(1, 2)),
        absolute=np.abs(error).sum(axis=(1, 2)),
        squared=(error**2).sum(axis=(1, 2)),
        reference=x[own].sum(axis=(1, 2)),
        power=(x[own] ** 2).sum(axis=(1, 2)),
        angle=np.array(angles.sum()),
        angles=np.array(float(angles.size)),
        coarse=np.array([total for total, _ in coarse]),
        coarse_cells=np.array([count for _, count in coarse]),
    )


def spectral_angles(x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the angles in radians, shape (n,), between spectra (C, H, W) in a mask; those of zeros are left out."""
    x, y = x[:, mask], y[:, mask]
    norm_x, norm_y = np.linalg.norm(x, axis=0), np.linalg.norm(y, axis=0)
    seen = (norm_x > 0) & (norm_y > 0)
    u, v = x[:, seen] / norm_x[seen], y[:, seen] / norm_y[seen]
    # Kahan's form of the angle: exactly 0 for equal spectra, where the arc cosine would return 1e-8.
    return 2 * np.arctan2(np.linalg.norm(u - v, axis=0), np.linalg.norm(u + v, axis=0))


def _coarse_sums(x: np.ndarray, y: np.ndarray, mask: np.ndarray, area: Area) -> tuple[float, float]:
    own = area.owned(1)
    keep = halve(mask)[own]
    return float((halve(y - x)[own][keep] ** 2).sum()), float(keep.sum())
