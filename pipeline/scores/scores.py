"""How close one image is to another: sums that add over blocks, and the scores made of them once, at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scores.areas import Area
from scenelift.pipeline.scores.registry import Score, Values, known_scores
from scenelift.pipeline.scores.sums import Block, Coarse, Sums

REFLECTANCE_RANGE = 0.3
"""Full scale for reflectance where none is given: what most land in the visible bands stays under."""


@dataclass(frozen=True)
class Convention:
    """What scores must agree on before they can be added or compared."""

    data_range: float | tuple[float, ...] = 1.0
    """Full scale in the images' unit, for all bands or for each; PSNR and SSIM mean nothing without it."""
    ratio: float = 1.0
    """Coarse over fine pixel size, for ERGAS: 2 for a super-resolution by two."""
    names: tuple[str, ...] | None = None
    """Names of the scores to measure; None: all that are known."""

    def __post_init__(self) -> None:
        ranges = np.atleast_1d(self.data_range)
        if not np.all(np.isfinite(ranges) & (ranges > 0)):
            raise UsageError(f"the data range must be positive, got {self.data_range}: give another --data-range")
        if not self.ratio > 0:
            raise UsageError(f"the ratio of pixel sizes must be positive, got {self.ratio}")
        if unknown := sorted(set(self.names or ()) - set(known_scores())):
            raise UsageError(f"unknown score {unknown[0]!r}; known are {', '.join(known_scores())}")

    def ranges(self, bands: int) -> Values:
        """Return full scale per band, float64 of shape (bands,)."""
        ranges = np.atleast_1d(np.asarray(self.data_range, np.float64))
        if len(ranges) not in (1, bands):
            raise UsageError(f"data ranges must be one, or one a band ({bands}), got {len(ranges)}")
        return np.broadcast_to(ranges, bands)

    def scores(self) -> list[Score]:
        """Return the scores to measure, in the order shown."""
        return [score for name, score in known_scores().items() if self.names is None or name in self.names]

    @property
    def halo(self) -> int:
        """Pixels around a block's core that must be read with it."""
        return max((score.halo for score in self.scores()), default=0)


@dataclass(frozen=True, eq=False)
class Count(Sums):
    """How much was looked at."""

    samples: Values
    """Valid pixels of each band that the block owns, shape (C,)."""


class Statistics(dict[str, Sums]):
    """Everything an image or a pair of images is scored by, summed over some part of them; parts add with ``+``."""

    @property
    def paired(self) -> bool:
        """Whether two images were compared."""
        return "paired" in self

    @property
    def with_input(self) -> bool:
        """Whether the coarse image that the second one was made of was there, too."""
        return any(key.startswith("input ") for key in self)

    @property
    def samples(self) -> int:
        """Valid samples: pixels times bands."""
        count = self["paired" if self.paired else "single"]
        return int(count.samples.sum()) if isinstance(count, Count) else 0

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics({key: sums + other[key] for key, sums in self.items()})

    @staticmethod
    def weighted(parts: Sequence[Statistics], weights: Values) -> Statistics:
        """Return sums of parts, each counted ``weights`` (draws, parts) times; every array gets a leading axis."""
        return Statistics({key: Sums.weighted([part[key] for part in parts], weights) for key in parts[0]})


def block_statistics(
    reference: np.ndarray | None,
    test: np.ndarray,
    valid: np.ndarray | None = None,
    area: Area | None = None,
    convention: Convention | None = None,
    coarse: Coarse | None = None,
) -> Statistics:
    """Sum what one block contributes to the scores of a scene.

    Parameters
    ----------
    reference, test : numpy.ndarray
        Shape (C, H, W) of one unit (reflectance or digital numbers): the block's core and its halo. Without a
        reference the scores of one image are measured.
    valid : numpy.ndarray, optional
        Boolean, shape (H, W) or (C, H, W): pixels that are data in both images. Values that are not finite
        are invalid whatever it says.
    area : Area, optional
        Where the arrays lie in the scene and what the block owns (``Area.around`` gives the window to read);
        by default the arrays are the whole scene.
    convention : Convention, optional
        Data range, ratio and which scores; by default all, of values that span 0 to 1.
    coarse : Coarse, optional
        What the test image was made of: then the scores that look at it are measured, too.

    Returns
    -------
    Statistics
        Add those of all blocks with ``+``, then call :func:`scores`.

    Raises
    ------
    UsageError
        If shapes differ or do not fit the area.
    """
    convention = convention or Convention()
    block = _prepared(test if reference is None else reference, test, valid, area, convention)
    if coarse is not None:
        block = _with_coarse(block, coarse)
    counted = block.valid[(slice(None), *block.area.owned())].sum(axis=(1, 2), dtype=np.float64)
    parts: dict[str, Sums] = {"single" if reference is None else "paired": Count(counted)}
    for score in convention.scores():
        for key in score.keys(reference is not None, coarse is not None):
            if key not in parts:
                own = dataclasses.replace(block, test=block.reference) if key.startswith("reference") else block
                parts[key] = score.measure(own)
    return Statistics(parts)


def _prepared(
    reference: np.ndarray, test: np.ndarray, valid: np.ndarray | None, area: Area | None, convention: Convention
) -> Block:
    x, y = np.asarray(reference, np.float64), np.asarray(test, np.float64)
    if x.ndim != 3 or x.shape != y.shape:
        raise UsageError(f"images must have one shape (bands, height, width), got {x.shape} and {y.shape}")
    area = area or Area.whole(x.shape[1:])
    if x.shape[1:] != area.shape:
        raise UsageError(f"arrays must have the area's {area.shape} pixels, got {x.shape[1:]}")
    mask = np.isfinite(x) & np.isfinite(y)
    if valid is not None:
        mask &= np.asarray(valid, bool)
    return Block(np.where(mask, x, 0), np.where(mask, y, 0), mask, area, convention.ranges(len(x)))


def _with_coarse(block: Block, coarse: Coarse) -> Block:
    values = np.asarray(coarse.values, np.float64)
    ends = [(o + n, o // coarse.factor) for o, n in zip(block.area.origin, block.area.shape, strict=True)]
    shape = (len(block.test), *(-(-end // coarse.factor) - first for end, first in ends))
    if values.shape != shape:
        raise UsageError(f"the coarse image must have the shape {shape}, got {values.shape}")
    known = np.isfinite(values) & coarse.valid
    return dataclasses.replace(block, coarse=Coarse(np.where(known, values, 0), coarse.factor, known))


@dataclass(frozen=True)
class Scores:
    """The scores of an image or a pair of images.

    NaN stands for what cannot be measured (no valid pixel, no whole window, a constant reference), infinity for
    the PSNR of identical images.
    """

    values: dict[str, float]
    """Over all bands."""
    bands: dict[str, tuple[float, ...]]
    """Band by band, those that exist so."""
    pixels: int
    """Valid samples: pixels times bands."""

    def __getitem__(self, name: str) -> float:
        return self.values[name]


def scores(statistics: Statistics, convention: Convention | None = None) -> Scores:
    """Turn sums into scores: the one place where roots and logarithms are taken.

    Parameters
    ----------
    statistics : Statistics
        The sum over all blocks of a scene, or over all images of a set.
    convention : Convention, optional
        The one the statistics were made with.
    """
    convention = convention or Convention()
    measured = [score for score in convention.scores() if score.keys(statistics.paired, statistics.with_input)]
    each = {score.name: score.bands(statistics, convention) for score in measured}
    return Scores(
        {score.name: float(score.value(statistics, convention)) for score in measured},
        {name: tuple(map(float, values)) for name, values in each.items() if values is not None},
        statistics.samples,
    )
