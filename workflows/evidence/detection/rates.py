"""Sensitivity, specificity, ROC curve and the area under it, with intervals over places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scores.bootstrap import CHUNK, DRAWS, Interval, draws
from scenelift.pipeline.scores.sums import ratio

STEPS = 512
"""Different scores that are told apart; more are put together by quantiles."""
RATES = ("auc", "sensitivity", "specificity")

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Detections:
    """How one detector's scores are spread, place by place."""

    edges: Values
    """Ascending, shape (B - 1,): bin k holds scores above edge k - 1 and up to edge k."""
    present: Values
    """Samples that show what is looked for, shape (places, B)."""
    absent: Values
    """The others."""

    def above(self, threshold: float) -> int:
        """Return the first bin of scores above a threshold, which must be one of the edges."""
        return int(np.searchsorted(self.edges, threshold)) + 1


@dataclass(frozen=True)
class Rates:
    """What a detector is worth, each with its 95 % interval over places."""

    auc: Interval
    """Probability that a sample with what is looked for has a higher score than one without; ties count half."""
    sensitivity: Interval
    """Share of the samples with it whose score is above the threshold."""
    specificity: Interval
    """Share of the samples without it whose score is not."""
    gains: dict[str, Interval]
    """Of each of the three, the difference to the first detector in the same draws; empty for the first."""


def edges_of(scores: Values, threshold: float | None = None) -> Values:
    """Return edges of up to ``STEPS`` bins, with the threshold among them."""
    found = np.unique(scores)
    if len(found) > STEPS:
        found = np.unique(np.quantile(scores, np.linspace(0, 1, STEPS)))
    return found if threshold is None else np.unique(np.append(found, threshold))


def count(scores: Values, truth: NDArray[np.bool_], places: NDArray[np.int64], edges: Values, most: int) -> Detections:
    """Count samples (n,) by place (below ``most``) and bin."""
    at = places * (len(edges) + 1) + np.searchsorted(edges, scores)
    shape = most, len(edges) + 1
    found = (np.bincount(at[chosen], minlength=shape[0] * shape[1]).reshape(shape) for chosen in (truth, ~truth))
    present, absent = (values.astype(np.float64) for values in found)
    return Detections(edges, present, absent)


def best_threshold(scores: Values, truth: NDArray[np.bool_]) -> float:
    """Return the threshold with the largest sum of sensitivity and specificity (Youden 1950), of equal ones the lowest.

    Raises
    ------
    UsageError
        If nothing or everything is what is looked for.
    """
    check_both(int(truth.sum()), int((~truth).sum()))
    found = count(scores, truth, np.zeros(len(scores), np.int64), edges_of(scores), 1)
    missed, spared = (np.cumsum(values[0]) / values.sum() for values in (found.present, found.absent))
    return float(found.edges[np.argmax((spared - missed)[:-1])])


def check_both(present: int, absent: int) -> None:
    """Refuse labels that leave nothing to tell apart."""
    if not present or not absent:
        kind = "nothing" if not present else "everything"
        raise UsageError(
            f"the labels call {kind} positive ({present} positive, {absent} negative samples): there is nothing to "
            "tell apart; see --positive"
        )


def roc(found: Detections) -> NDArray[np.float64]:
    """Return the ROC curve: (B + 1, 2), false and true positive rates as the threshold falls."""
    columns = [np.append(0.0, np.cumsum(v.sum(axis=0)[::-1])) / v.sum() for v in (found.absent, found.present)]
    return np.stack(columns, axis=1)


def rate(arms: Mapping[str, Detections], threshold: float, seed: int = 0) -> dict[str, Rates]:
    """Return what each detector is worth, and its gain over the first.

    Parameters
    ----------
    arms : mapping of str to Detections
        Of the same samples, and so of the same places; the threshold is an edge of each.
    threshold : float
        Scores above it detect.
    seed : int

    Notes
    -----
    Places are drawn with replacement (Efron and Tibshirani 1993), for all detectors the same ones, so differences are
    paired. The area is Mann and Whitney's U over the number of pairs, exact for up to ``STEPS`` different scores.
    """
    (first, base), *_ = arms.items()
    places = len(base.present)
    values = {name: np.concatenate(list(_drawn(found, threshold, places, seed))) for name, found in arms.items()}
    point = {name: _values(found, threshold, np.ones((1, places)))[0] for name, found in arms.items()}
    rates = {}
    for name, drawn in values.items():
        auc, sensitivity, specificity = (_interval(point[name][k], drawn[:, k]) for k in range(len(RATES)))
        gains = {
            rate: _interval(point[name][k] - point[first][k], drawn[:, k] - values[first][:, k])
            for k, rate in enumerate(RATES)
            if name != first
        }
        rates[name] = Rates(auc, sensitivity, specificity, gains)
    return rates


def _drawn(found: Detections, threshold: float, places: int, seed: int) -> Iterator[Values]:
    drawn = draws(places, seed)
    for start in range(0, DRAWS, CHUNK):
        yield _values(found, threshold, drawn[start : start + CHUNK].astype(np.float64))


def _values(found: Detections, threshold: float, weights: Values) -> Values:
    """Return the three rates for weights (draws, places) of the places, shape (draws, 3)."""
    present, absent = weights @ found.present, weights @ found.absent
    positives, negatives = present.sum(axis=1), absent.sum(axis=1)
    wins = (present * (np.cumsum(absent, axis=1) - absent / 2)).sum(axis=1)
    first = found.above(threshold)
    return np.stack(
        [
            ratio(wins, positives * negatives),
            ratio(present[:, first:].sum(axis=1), positives),
            ratio(absent[:, :first].sum(axis=1), negatives),
        ],
        axis=1,
    )


def _interval(mean: float, drawn: Values) -> Interval:
    known = drawn[~np.isnan(drawn)]  # a draw may hold no place with what is looked for
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return Interval(float(mean), float(low), float(high))
