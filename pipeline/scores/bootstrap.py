"""Means with intervals, by drawing the images again and again."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.scores.registry import Score
from scenelift.pipeline.scores.scores import Convention, Statistics

DRAWS = 10_000
CHUNK = 500
"""Draws in memory at once."""


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return self.text(".2f")

    def text(self, form: str) -> str:
        """Return mean and interval, each in the given format."""
        return f"{self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]"


@functools.lru_cache(maxsize=2)
def draws(count: int, seed: int) -> NDArray[np.uint8]:
    """Return how often each of ``count`` clusters is in each draw, shape (DRAWS, count); counts saturate at 255."""
    rng, shares = np.random.default_rng(seed), np.full(count, 1 / count)
    drawn = np.empty((DRAWS, count), np.uint8)
    for start in range(0, DRAWS, CHUNK):
        drawn[start : start + CHUNK] = rng.multinomial(count, shares, size=CHUNK).clip(max=255)
    return drawn


def sums(count: int, seed: int, *columns: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return, for each of some (count,) or (count, bands) columns, its sum over the clusters of each draw."""
    drawn = draws(count, seed)
    chunks = (drawn[start : start + CHUNK].astype(np.float64) for start in range(0, DRAWS, CHUNK))
    parts = [[chunk @ column for column in columns] for chunk in chunks]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def interval(values: NDArray[np.float64], clusters: NDArray[np.int64] | None = None, seed: int = 0) -> Interval:
    """Return the mean and its 95 % percentile interval over ``DRAWS`` draws of whole clusters.

    Parameters
    ----------
    values : ndarray, shape (n,)
        One figure an image; an infinite one makes the mean infinite, images without a figure (NaN) are left out.
    clusters : ndarray of int, shape (n,), optional
        Which images belong together (one scene, one place); by default every image is drawn by itself.
    seed : int

    Notes
    -----
    Efron and Tibshirani (1993). Clusters are drawn with replacement; a draw's mean is over all images in it.
    For paired differences give the differences image by image.
    """
    known = ~np.isnan(values)
    values = values[known]
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    if np.isinf(values).any():
        mean = float(values.mean())
        return Interval(mean, mean, mean)
    groups = np.arange(len(values)) if clusters is None else np.unique(clusters[known], return_inverse=True)[1]
    count = int(groups.max()) + 1
    totals = np.bincount(groups, weights=values, minlength=count).astype(np.float64)
    sizes = np.bincount(groups, minlength=count).astype(np.float64)
    tops, bottoms = sums(count, seed, totals, sizes)
    low, high = np.percentile(tops / bottoms, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))


def ratio_interval(tops: NDArray[np.float64], bottoms: NDArray[np.float64], seed: int = 0) -> Interval:
    """Return a ratio of sums over blocks, mean over bands, with its 95 % interval over draws of blocks.

    Parameters
    ----------
    tops, bottoms : ndarray, shape (blocks, bands)
        What each block adds to numerator and denominator. A band without a denominator is left out.
    seed : int
    """
    kept = bottoms.sum(axis=0) > 0
    tops, bottoms = tops[:, kept], bottoms[:, kept]
    if not tops.size:
        return Interval(float("nan"), float("nan"), float("nan"))
    count = len(tops)
    upper, lower = sums(count, seed, tops, bottoms)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = upper / lower
        known = ~np.isnan(ratios)  # a draw may hold no block with a denominator
        means = np.where(known, ratios, 0).sum(axis=1) / known.sum(axis=1)
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return Interval(float((tops.sum(axis=0) / bottoms.sum(axis=0)).mean()), float(low), float(high))


def score_intervals(
    parts: Sequence[Statistics], scores: Sequence[Score], convention: Convention, seed: int = 0
) -> dict[str, Interval]:
    """Return scores of a scene, each with its 95 % interval over draws of the scene's blocks.

    Parameters
    ----------
    parts : sequence of Statistics
        Those of each block.
    scores : sequence of Score
    convention : Convention
        The one the statistics were made with.
    seed : int
    """
    drawn = draws(len(parts), seed)
    whole = Statistics.weighted(parts, np.ones((1, len(parts))))
    values: dict[str, list[NDArray[np.float64]]] = {score.name: [] for score in scores}
    for at in range(0, DRAWS, CHUNK):
        chunk = Statistics.weighted(parts, drawn[at : at + CHUNK].astype(np.float64))
        for score in scores:
            values[score.name].append(score.value(chunk, convention))
    found = {}
    for score in scores:
        mean = float(score.value(whole, convention)[0])
        ends = np.nanpercentile(np.concatenate(values[score.name]), [2.5, 97.5]) if np.isfinite(mean) else (mean, mean)
        found[score.name] = Interval(mean, *map(float, ends))
    return found
