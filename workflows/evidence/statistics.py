"""Whether two classifications differ: areas under curves, exact tests, and how much of a loss was won back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, rankdata

from scenelift.pipeline.scores.bootstrap import Interval, interval, ratio_interval


@dataclass(frozen=True)
class McNemar:
    """The exact test on the images that exactly one of two classifications got right."""

    b: int
    """Right by the first alone."""
    c: int
    """Right by the second alone."""
    p: float
    """Two-sided binomial probability; 1 where they never differ."""


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Return the exact McNemar test of two columns of right (True) and wrong predictions of the same images."""
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    return McNemar(b, c, float(binomtest(b, b + c).pvalue) if b + c else 1.0)


def macro_auc(labels: NDArray[np.int64], shares: NDArray[np.floating]) -> float:
    """Return the area under the ROC curve of each class against the rest, mean over the classes that occur.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
    shares : ndarray, shape (n, K)
        Probability of each class.
    """
    areas = []
    for k in range(shares.shape[1]):
        own = labels == k
        n, m = int(own.sum()), int((~own).sum())
        if n and m:  # Mann and Whitney's U over n·m is the area; ties count half
            areas.append((rankdata(shares[:, k])[own].sum() - n * (n + 1) / 2) / (n * m))
    return float(np.mean(areas)) if areas else float("nan")


def class_weights(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (n,) weights that make a weighted share of right predictions the balanced accuracy; they sum to 1."""
    counts = np.bincount(labels)
    return 1.0 / (counts[labels] * (counts > 0).sum())


def recovery(
    labels: NDArray[np.int64],
    best: NDArray[np.bool_],
    worst: NDArray[np.bool_],
    restored: NDArray[np.bool_],
    scenes: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> Interval:
    """Return (restored - worst) / (best - worst) of the balanced accuracies, with its 95 % interval over scenes.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
    best, worst, restored : ndarray of bool, shape (n,)
        Which images were named rightly from the intact, the degraded and the restored image.
    scenes : ndarray of int, shape (n,), optional
        Which scene each image is of; default: each is one by itself.
    seed : int

    Notes
    -----
    NaN where the loss itself may be chance (its interval holds zero): a share of nothing says nothing.
    """
    weights = class_weights(labels)
    lost = weights * (best.astype(float) - worst)
    if not interval(lost, scenes, seed).low > 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    won = weights * (restored.astype(float) - worst)
    return ratio_interval(_sums(won, scenes), _sums(lost, scenes), seed)


def balanced_interval(
    labels: NDArray[np.int64], values: NDArray[np.floating], scenes: NDArray[np.int64] | None = None, seed: int = 0
) -> Interval:
    """Return the mean of values over classes that count alike, with its 95 % interval over scenes.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
    values : ndarray, shape (n,)
        1 for an image named rightly makes the balanced accuracy; differences of two such columns make its paired
        difference.
    scenes : ndarray of int, shape (n,), optional
        Which scene each image is of; default: each is one by itself.
    seed : int
    """
    weights = class_weights(labels)
    return ratio_interval(_sums(weights * values, scenes), _sums(weights, scenes), seed)


def _sums(values: NDArray[np.float64], scenes: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """Return the sum of each scene's values, (scenes, 1)."""
    if scenes is None:
        return values[:, None]
    found = np.bincount(np.unique(scenes, return_inverse=True)[1], weights=values)
    return found[:, None].astype(np.float64)
