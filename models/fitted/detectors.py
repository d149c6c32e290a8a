"""What neighbouring lines of a push-broom scene differ by: measured pixel by pixel, each as much as it tells.

Neighbouring lines see nearly the same ground, so the mean of their difference along the scene is that of two detectors.
Where the ground is even a pixel tells much, at an edge nothing: the covariance of the bands' differences around a pixel
says in which sums of bands the ground is even there. The mean is taken off before, so no stripe is in the covariance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from scenelift.models.fitted.views import Values

Array = NDArray[np.float64]
GROUPS = 8
"""Groups of rows whose differences from the mean say how well it is known."""
FEWEST = 8
"""Rows that lie together at least; twice as many must tell of a step."""
PASSES = 2
"""How often the mean is moved, from the median."""
SIDE = 2
"""Side of the blocks whose pixels share a covariance, pixels; the blocks around count, too."""
WIDE = 9
"""Side of a wide surrounding, blocks."""
EVEN, LOADING = 0.1, 0.004
"""Least unevenness: of a band, as a share of the usual; of any sum of bands, as a share of the variance of all."""
LEAST = 1e-20
"""Least variance, and least number of pixels."""
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


def measure(parts: Sequence[Values], seen: Callable[[Values], Array]) -> Steps:
    """Measure the steps of a scene.

    Parameters
    ----------
    parts : sequence of arrays
        Rows that lie together, (bands, rows, lines) each, NaN where there is no data.
    seen : callable
        What is measured of them: values in which stripes are sums.
    """
    every = max(1, sum(part.shape[1] for part in parts) // START_ROWS)
    few = np.concatenate([np.diff(seen(part[:, ::every]), axis=2) for part in parts], 1)
    known = np.asarray(np.isfinite(few).all(0))
    means = np.stack([median(np.where(known, band, np.nan)) for band in few])
    bands, steps, groups = len(few), few.shape[2], min(GROUPS, len(parts))
    if not known.any():
        return Steps(means, np.zeros((steps, bands, bands)), np.zeros((groups, *means.shape)))
    usual = 1.4826 * np.median(np.abs(few - means[:, None])[:, known], axis=1)
    floor = np.diag((EVEN * usual) ** 2 + 1e-12)
    for _ in range(PASSES):
        information, scores, count = np.zeros((steps, bands, bands)), np.zeros((groups, steps, bands)), np.zeros(steps)
        for number, part in enumerate(parts):
            rest = np.diff(seen(part), axis=2) - means[:, None]
            more, score = _told(rest, floor)
            information += more
            scores[number * groups // len(parts)] += score
            count += np.isfinite(rest).all(0).sum(0)
        means += _per(information, scores.sum(0)).T
    scores -= scores.mean(0)
    apart = np.stack([_per(information, score).T for score in scores]) * np.sqrt(groups / max(1, groups - 1))
    return Steps(means, information, apart).without(count < 2 * FEWEST)


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
    known: NDArray[np.bool_] = np.asarray(np.isfinite(rest).all(0))
    there, pixels = _blocks(known.astype(np.float64)[None]), _blocks(np.where(known, rest, 0.0))
    down, across = there.shape[:2]
    weight = np.linalg.inv(_unevenness(pixels, there.sum(3, keepdims=True)) + floor)
    pulled = (weight @ pixels).reshape(down, across, bands, SIDE, SIDE)
    some = there.reshape(down, across, SIDE, SIDE).sum(2)
    information = np.einsum("dal,dabc->albc", some, weight).reshape(-1, bands, bands)
    score = pulled.sum((0, 3)).swapaxes(1, 2).reshape(-1, bands)
    return information[:lines], score[:lines]


def _unevenness(pixels: Array, count: Array) -> Array:
    """Return the covariance of each block's pixels, of which so many have data.

    It is as large as in the blocks around; half of its shape is that of a wider surrounding, which is better known.
    Where pixels above one another are alike it is larger, since they tell hardly more together than one alone.
    """
    own = pixels @ pixels.swapaxes(2, 3)
    covariance = _around(own) / np.maximum(_around(count), LEAST)
    size = np.trace(covariance, axis1=2, axis2=3)[..., None, None] + LEAST
    wide = _wide(own / size) / np.maximum(_wide(count), LEAST)
    columns = pixels.reshape(*pixels.shape[:3], SIDE, SIDE).sum(3)
    columns[1:-1] += columns[:-2] + columns[2:]
    together, alone = (_wide((each**2).sum((2, 3), keepdims=True) / size) for each in (columns, pixels))
    alike = together / (3 * alone + LEAST)
    return alike * ((covariance + wide * size) / 2 + LOADING * size * np.identity(own.shape[2]))


def _blocks(planes: Array) -> Array:
    """Return (bands, rows, lines) as blocks (down, across, bands, pixels), zeros beyond the edges."""
    bands, rows, lines = planes.shape
    wide = np.pad(planes, ((0, 0), (0, -rows % SIDE), (0, -lines % SIDE)))
    cut = wide.reshape(bands, -(-rows // SIDE), SIDE, -(-lines // SIDE), SIDE).transpose(1, 3, 0, 2, 4)
    return cut.reshape(*cut.shape[:3], -1)


def _around(blocks: Array) -> Array:
    """Return the mean of each block and the eight around it, near ones counting more; zeros beyond the edges."""
    for axis in (0, 1):
        blocks = ndimage.correlate1d(blocks, (0.25, 0.5, 0.25), axis=axis, mode="constant")
    return blocks


def _wide(blocks: Array) -> Array:
    """Return the mean of the blocks in a wide window around each."""
    for axis in (0, 1):
        blocks = ndimage.uniform_filter1d(blocks, WIDE, axis=axis, mode="constant")
    return blocks


def _per(information: Array, scores: Array) -> Array:
    """Return the scores (lines, bands) over the information."""
    least = 1e-9 * np.einsum("lbb->l", information) + 1e-9
    moved: Any = np.linalg.solve(information + least[:, None, None] * np.identity(scores.shape[1]), scores[..., None])
    return np.asarray(moved[..., 0])
