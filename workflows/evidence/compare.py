"""`scenelift compare`: every method on the same images, with intervals (the paper's Table 1 on named data)."""

from __future__ import annotations

import csv
import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenelift.models.networks.features import trunk_available
from scenelift.pipeline.cluster import ClusterSettings, open_cluster
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scores.bootstrap import Interval, interval
from scenelift.workflows.evidence.cases import (
    DENOISE,
    FILTERS,
    INPUT,
    RESAMPLERS,
    SHARPEN,
    TRUTH,
    Case,
    Trial,
    TrialJob,
    check_cases,
    digest_of,
    networks_for,
    sample_of,
    shipped_networks,
    try_image,
)

CASES = (*(Case(DENOISE, level) for level in (5, 15, 25, 50)), Case(SHARPEN, 2), Case(SHARPEN, 4))
QUICK = (Case(DENOISE, 25), Case(SHARPEN, 2), Case(SHARPEN, 4))
QUICK_EACH = 10
"""Images of every class in the quick comparison."""
BASELINES = {DENOISE: "bilateral", SHARPEN: "bicubic"}
"""What the paper compares with."""


@dataclass(frozen=True)
class CompareSettings:
    """What is compared."""

    data: Path | None = None
    """A zip of images in class folders or a raster; None: EuroSAT's validation split below SCENELIFT_DATA."""
    each: int = 20
    """Images of every class."""
    seed: int = 0
    cases: tuple[Case, ...] = CASES
    networks: tuple[str, ...] | None = None
    """Shipped names or checkpoints; None: all that ship."""

    def __post_init__(self) -> None:
        check_cases(self.cases)
        if self.each < 1:
            raise UsageError(f"--each must be at least 1, got {self.each}")


@dataclass(frozen=True)
class Comparison:
    """Scores of every image, case and method."""

    title: str
    """What the images are."""
    count: int
    peak: float
    """Full scale of PSNR and SSIM, reflectance."""
    cases: tuple[Case, ...]
    methods: dict[str, tuple[str, ...]]
    """Case's key to its methods, in the order shown; the networks come before the truth."""
    networks: tuple[str, ...]
    values: dict[tuple[str, str, str], NDArray[np.float64]]
    """(case's key, method, score) to one value an image."""
    digest: str
    seconds: float
    command: str = "scenelift compare"
    """What a reader types to make it again."""

    def mean(self, case: Case, method: str, score: str) -> Interval:
        """Return a method's mean over images."""
        return interval(self.values[case.key, method, score])

    def difference(self, case: Case, method: str, other: str, score: str) -> Interval:
        """Return the mean paired difference of two methods."""
        return interval(self.values[case.key, method, score] - self.values[case.key, other, score])

    def scores(self, case: Case) -> list[str]:
        """Return the names of the scores a case has."""
        methods = self.methods[case.key]
        return [s for k, m, s in self.values if k == case.key and m == methods[0]]

    def best_classical(self, case: Case, score: str = "psnr") -> str:
        """Return the classical method with the highest mean."""
        known = FILTERS if case.task == DENOISE else RESAMPLERS
        return max(known, key=lambda m: float(np.nanmean(self.values[case.key, m, score])))

    def best_network(self, case: Case, score: str = "psnr") -> str | None:
        """Return the network with the highest mean; None if none is made for the case."""
        own = [m for m in self.methods[case.key] if m in self.networks]
        return max(own, key=lambda m: float(np.nanmean(self.values[case.key, m, score]))) if own else None


Progress = Callable[[int, int], None]
"""Called with the number of images tried, and of all."""


def compare(
    settings: CompareSettings | None = None,
    cluster: ClusterSettings | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Try every method on every image.

    Parameters
    ----------
    settings : CompareSettings, optional
    cluster : ClusterSettings, optional
        Images are tried side by side; the result does not depend on by whom.
    progress : callable, optional

    Raises
    ------
    UsageError, ModelError
        If there are no images, or a network cannot be used.
    """
    settings, started = settings or CompareSettings(), time.perf_counter()
    networks = shipped_networks() if settings.networks is None else settings.networks
    sample = sample_of(settings.data, settings.each, settings.seed)
    job = TrialJob(settings.data, settings.each, settings.seed, settings.cases, networks)
    count = len(sample.images)
    trials: dict[int, Trial] = {}
    with open_cluster(cluster or ClusterSettings(0)) as place:
        for trial in place.run(functools.partial(try_image, job), range(count)):
            trials[trial.index] = trial
            if progress:
                progress(len(trials), count)
    return Comparison(
        title=sample.title,
        count=count,
        peak=sample.peak,
        cases=settings.cases,
        methods={case.key: _methods(case, networks, sample.images.shape[1]) for case in settings.cases},
        networks=networks,
        values=_columns([trials[i] for i in range(count)]),
        digest=digest_of(job),
        seconds=round(time.perf_counter() - started, 1),
    )


def _methods(case: Case, networks: tuple[str, ...], bands: int) -> tuple[str, ...]:
    own = networks_for(case, networks, bands)
    return (INPUT, *FILTERS, *own, TRUTH) if case.task == DENOISE else (*RESAMPLERS, *own, TRUTH)


def _columns(trials: list[Trial]) -> dict[tuple[str, str, str], NDArray[np.float64]]:
    first = trials[0].values
    return {
        (key, method, score): np.array([t.values[key, method].get(score, np.nan) for t in trials])
        for key, method in first
        for score in first[key, method]
    }


def table_rows(found: Comparison, case: Case) -> list[dict[str, Any]]:
    """Return a case's table: one row a method, means, and PSNR differences to the two yardsticks with intervals."""
    baseline, best = BASELINES[case.task], found.best_classical(case)
    rows = []
    for method in found.methods[case.key]:
        row: dict[str, Any] = {"method": method}
        row |= {score: found.mean(case, method, score) for score in found.scores(case) if score != "pixels"}
        row["over_baseline"] = None if method in (baseline, TRUTH) else found.difference(case, method, baseline, "psnr")
        row["over_best"] = None if method in (best, TRUTH) else found.difference(case, method, best, "psnr")
        rows.append(row)
    return rows


def write_images_csv(found: Comparison, path: Path) -> None:
    """Write every image's scores: case, method, image, one column a score."""
    names = list(dict.fromkeys(score for _, _, score in found.values))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "method", "image", *names])
        for case in found.cases:
            for method in found.methods[case.key]:
                columns = [found.values.get((case.key, method, name)) for name in names]
                for index in range(found.count):
                    cells = ["" if column is None else f"{column[index]:.6g}" for column in columns]
                    writer.writerow([case.key, method, index, *cells])


def to_json(found: Comparison) -> str:
    """Return the tables as JSON; infinite and unmeasurable figures are null."""

    def plain(value: Any) -> Any:
        if isinstance(value, Interval):
            return [x if np.isfinite(x) else None for x in (value.mean, value.low, value.high)]
        return value

    tables = {
        case.key: [{k: plain(v) for k, v in row.items()} for row in table_rows(found, case)] for case in found.cases
    }
    facts = {"images": found.title, "count": found.count, "peak": found.peak, "digest": found.digest}
    facts |= {"features": trunk_available(), "seconds": found.seconds, "tables": tables}
    return json.dumps(facts)
