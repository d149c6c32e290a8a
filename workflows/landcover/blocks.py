"""Maps of classes scored block by block: pixels beside each other are not independent, blocks nearly are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scenelift.models.training.confusion import Confusion
from scenelift.pipeline.scores.bootstrap import Interval, draws

BLOCK = 32
"""Side of the blocks that are drawn with replacement, pixels."""


def block_counts(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: tuple[str, ...], side: int = BLOCK
) -> list[NDArray[np.int64]]:
    """Return the confusion (K, K) of each block of ``side`` pixels; they add up to the whole image's."""
    height, width = labels.shape
    parts = [
        (slice(row, row + side), slice(col, col + side))
        for row in range(0, height, side)
        for col in range(0, width, side)
    ]
    return [Confusion.of(labels[part], predicted[part], classes).counts for part in parts]


def miou_difference(one: NDArray[np.int64], other: NDArray[np.int64], seed: int = 0) -> Interval:
    """Return the difference of two mean IoUs with its 95 % interval over draws of blocks, the same for both.

    Parameters
    ----------
    one, other : ndarray of int, shape (blocks, K, K)
    seed : int
    """
    drawn = draws(len(one), seed)
    gaps = _miou(np.tensordot(drawn, one, 1)) - _miou(np.tensordot(drawn, other, 1))
    low, high = np.nanpercentile(gaps, [2.5, 97.5])
    return Interval(float(_miou(one.sum(0)) - _miou(other.sum(0))), float(low), float(high))


def _miou(counts: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the mean IoU over the classes that occur, of (…, K, K) counts."""
    c = np.asarray(counts, np.float64)
    hit = np.diagonal(c, axis1=-2, axis2=-1)
    union = c.sum(-1) + c.sum(-2) - hit
    shares = np.where(union > 0, hit / np.maximum(union, 1e-9), np.nan)
    return np.asarray(np.nanmean(shares, axis=-1))
