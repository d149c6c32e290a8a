"""What neighbouring lines of a push-broom scene differ by: measured pixel by pixel, each as much as it tells.

Neighbouring lines see nearly the same ground, so the mean of their difference along the scene is that of two detectors.
Where the ground is even a pixel tells much, at an edge nothing: the covariance of the bands' differences around a pixel
says in which sums of bands the ground is even there. The mean is taken off before, so no stripe is in the covariance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
GROUPS = 8
"""Groups of rows whose differences from the mean say how well it is known."""
FEWEST = 8
"""Rows that must tell of a step."""
PASSES = 2
"""How often the mean is moved, from the median."""
SIDE = 2
"""Side of the blocks whose pixels share a covariance, pixels; the blocks around count, too."""
EVEN, LOADING = 0.1, 0.02
"""Least unevenness: of a band, as a share of the usual; of any sum of bands, as a share of the variance of all."""
START_ROWS = 512
"""Rows of which the medians are taken."""
AT_ONCE = 1 << 22
"""Numbers of covariances at once."""


@dataclass(frozen=True)
class Steps:
    """From each line to the next."""

    means: Array
    """What they differ by, (bands, lines - 1); 0 where nothing tells."""
    information: Array
    """Its inverse covariance as far as each pixel is by itself, (lines - 1, bands, bands); 0 where nothing tells."""
    apart: Array
    """What each group of rows adds to the mean, (groups, bands, lines - 1)."""

    def without(self, steps: NDArray[np.bool_]) -> Steps:
        """Return the steps, some of which tell nothing."""
        apart, means = np.where(steps, 0.0, self.apart), np.where(steps, 0.0, self.means)
        return Steps(means, np.where(steps[:, None, None], 0.0, self.information), apart)


def measure(parts: Sequence[Array]) -> Steps:
    """Measure the steps of a scene.

    Parameters
    ----------
    parts : sequence of arrays
        Rows that lie together, (bands, rows, lines) each, NaN where there is no data.
    """
    every = max(1, sum(part.shape[1] for part in parts) // START_ROWS)
    few = np.concatenate([np.diff(part[:, ::every], axis=2) for part in parts], 1)
    known = np.asarray(np.isfinite(few).all(0))
    means = np.stack([median(np.where(known, band, np.nan)) for band in few])
    bands, count = len(few), sum(np.isfinite(np.diff(part, axis=2)).all(0).sum(0) for part in parts)
    if not known.any():
        return Steps(means, np.zeros((few.shape[2], bands, bands)), np.zeros((1, *means.shape)))
    usual = 1.4826 * np.median(np.abs(few - means[:, None])[:, known], axis=1)
    floor = np.diag((EVEN * usual) ** 2 + 1e-12)
    groups = min(GROUPS, len(parts))
    for _ in range(PASSES):
        information, scores = np.zeros((few.shape[2], bands, bands)), np.zeros((groups, few.shape[2], bands))
        for number, part in enumerate(parts):
            more, score = _told(np.diff(part, axis=2) - means[:, None], floor)
            information += more
            scores[number * groups // len(parts)] += score
        means += _per(information, scores.sum(0)).T
    scores -= scores.mean(0)
    apart = np.stack([_per(information, score).T for score in scores]) * np.sqrt(groups / max(1, groups - 1))
    return Steps(means, information, apart).without(count < FEWEST)


def median(rows: Array) -> Array:
    """Return the median of the values of each column that are not NaN; 0 where none is."""
    ordered = np.sort(np.ascontiguousarray(rows.T), 1)  # NaN at the end
    count, at = np.isfinite(ordered).sum(1), np.arange(len(ordered))
    low, high = ordered[at, np.maximum(count - 1, 0) // 2], ordered[at, np.minimum(count // 2, ordered.shape[1] - 1)]
    return np.where(count > 0, (low + high) / 2, 0.0)


def _told(rest: Array, floor: Array) -> tuple[Array, Array]:
    """Return what rests (bands, rows, lines) from the means tell of each line: information, and their weighted sum."""
    bands, rows, lines = rest.shape
    width = SIDE * max(1, AT_ONCE // (bands * bands * -(-rows // SIDE)))
    found = [_told_at_once(rest[..., start : start + width], floor) for start in range(0, lines, width)]
    return np.concatenate([one for one, _ in found]), np.concatenate([other for _, other in found])


def _told_at_once(rest: Array, floor: Array) -> tuple[Array, Array]:
    bands, _, lines = rest.shape
    known = np.isfinite(rest).all(0)
    there, pixels = _blocks(known[None].astype(np.float64)), _blocks(np.where(known, rest, 0.0))
    down, across = there.shape[:2]
    count = _around(there.sum(3)[..., None])
    covariance = _around(pixels @ pixels.swapaxes(2, 3)) / np.maximum(count, 1)
    loading = LOADING * np.trace(covariance, axis1=2, axis2=3)
    weight = np.linalg.inv(covariance + loading[..., None, None] * np.identity(bands) + floor)
    pulled = (weight @ pixels).reshape(down, across, bands, SIDE, SIDE)
    some = there.reshape(down, across, SIDE, SIDE).sum(2)
    information = np.einsum("dal,dabc->albc", some, weight).reshape(-1, bands, bands)
    score = pulled.sum((0, 3)).swapaxes(1, 2).reshape(-1, bands)
    return information[:lines], score[:lines]


def _blocks(planes: Array) -> Array:
    """Return (bands, rows, lines) as blocks (down, across, bands, pixels), zeros beyond the edges."""
    bands, rows, lines = planes.shape
    wide = np.pad(planes, ((0, 0), (0, -rows % SIDE), (0, -lines % SIDE)))
    cut = wide.reshape(bands, -(-rows // SIDE), SIDE, -(-lines // SIDE), SIDE).transpose(1, 3, 0, 2, 4)
    return cut.reshape(*cut.shape[:3], -1)


def _around(blocks: Array) -> Array:
    """Return the sum of each block and the eight around it."""
    for axis in (0, 1):
        blocks = blocks.swapaxes(0, axis)
        total = blocks.copy()
        total[1:] += blocks[:-1]
        total[:-1] += blocks[1:]
        blocks = total.swapaxes(0, axis)
    return blocks


def _per(information: Array, scores: Array) -> Array:
    """Return the scores (lines, bands) over the information."""
    least = 1e-9 * np.einsum("lbb->l", information) + 1e-9
    moved: Any = np.linalg.solve(information + least[:, None, None] * np.identity(scores.shape[1]), scores[..., None])
    return np.asarray(moved[..., 0])
