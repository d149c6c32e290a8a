"""`scenelift compare`: every method on the same images, with intervals (the paper's Table 1 on named data)."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scenelift.models.catalog import find
from scenelift.models.networks.features import trunk_available
from scenelift.models.whole import Images
from scenelift.pipeline.cluster import ClusterSettings, open_cluster
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scores.bootstrap import Interval, interval
from scenelift.workflows.evidence.cases import (
    CLASSICAL,
    DENOISE,
    INPUT,
    REFERENCE,
    SHARPEN,
    Degradation,
    networks_for,
    restore,
    shipped_networks,
)
from scenelift.workflows.evidence.metrics import measure
from scenelift.workflows.evidence.samples import Sample, read_sample

CASES = (*(Degradation(noise=level) for level in (5, 15, 25, 50)), Degradation(2), Degradation(4))
QUICK = (Degradation(noise=25), Degradation(2), Degradation(4))
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
    cases: tuple[Degradation, ...] = CASES
    networks: tuple[str, ...] | None = None
    """Shipped names or checkpoints; None: all that ship."""
    mask: str | None = None
    """What hides pixels of scenes, see `SceneSource`: no image has any of them."""
    mask_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.cases:
            raise UsageError("nothing to compare: give at least one noise level or scale")
        if hazy := [case.name for case in self.cases if case.haze]:
            raise UsageError(
                f"compare tries images one by one, but {hazy[0]} is taken off whole scenes: use scenelift evaluate haze"
            )
        if self.each < 1:
            raise UsageError(f"--each must be at least 1, got {self.each}")
        if self.seed < 0:
            raise UsageError(f"--seed must be from 0 up, got {self.seed}")

    def digest(self) -> str:
        """Return a short digest of everything that decides a comparison."""
        models = [find(name).digest for name in self.networks or ()]
        return hashlib.sha256(repr((self, models)).encode()).hexdigest()[:12]


Trial = dict[tuple[str, str], dict[str, float]]
"""One image's scores: (case's name, method) to scores by name."""


@functools.lru_cache(maxsize=1)
def _sample_of(
    data: Path | None, each: int, seed: int, mask: str | None = None, mask_classes: tuple[str, ...] = ()
) -> Sample:
    """Return the images, read once a process."""
    return read_sample(data, each, seed, mask=mask, mask_classes=mask_classes)


def _images_of(job: CompareSettings) -> Sample:
    return _sample_of(job.data, job.each, job.seed, job.mask, job.mask_classes)


@functools.lru_cache(maxsize=32)
def _degraded(job: CompareSettings, case: Degradation) -> tuple[Images, Images, NDArray[np.float32]]:
    """Return all images, degraded, and their noise, made once a process: the draw of noise is that of `evaluate`."""
    sample = _images_of(job)
    reference = case.cut(sample.images)
    return reference, *case.apply(reference, sample.bands, sample.level, job.seed)


def _try_image(job: CompareSettings, index: int) -> tuple[int, Trial]:
    """Degrade image number ``index`` in every way of the job, restore it by every method, and score it."""
    torch.set_num_threads(1)  # images are tried side by side, one a worker; more threads would only wait
    peak, found = _images_of(job).peak, Trial()
    for case in job.cases:
        reference, low, sigma = (values[index : index + 1] for values in _degraded(job, case))
        methods = _methods_for(case, job.networks or (), reference.shape[1])
        for method, images in (*restore(case, low, sigma, methods[:-1]), (REFERENCE, reference)):
            coarse = low[0] if case.scale > 1 else None
            found[case.name, method] = measure(reference[0], images[0], case.scale, peak, coarse=coarse)
    return index, found


def _methods_for(case: Degradation, networks: tuple[str, ...], bands: int) -> tuple[str, ...]:
    """Return a case's methods in the order shown, the reference last."""
    unrestored = (INPUT,) if case.scale == 1 else ()
    return (*unrestored, *CLASSICAL[case.task], *networks_for(case, networks, bands), REFERENCE)


@dataclass(frozen=True)
class Comparison:
    """Scores of every image, case and method."""

    title: str
    """What the images are."""
    count: int
    peak: float
    """Full scale of PSNR and SSIM, reflectance."""
    cases: tuple[Degradation, ...]
    methods: dict[str, tuple[str, ...]]
    """Case's name to its methods, in the order shown; the networks come before the reference."""
    networks: tuple[str, ...]
    values: dict[tuple[str, str, str], NDArray[np.float64]]
    """(case's name, method, score) to one value an image."""
    digest: str
    seconds: float
    command: str = "scenelift compare"
    """What a reader types to make it again."""

    def mean(self, case: Degradation, method: str, score: str) -> Interval:
        """Return a method's mean over images."""
        return interval(self.values[case.name, method, score])

    def difference(self, case: Degradation, method: str, other: str, score: str) -> Interval:
        """Return the mean paired difference of two methods."""
        return interval(self.values[case.name, method, score] - self.values[case.name, other, score])

    def scores(self, case: Degradation) -> list[str]:
        """Return the names of the scores a case has."""
        methods = self.methods[case.name]
        return [s for k, m, s in self.values if k == case.name and m == methods[0]]

    def best_classical(self, case: Degradation, score: str = "psnr") -> str:
        """Return the classical method with the highest mean."""
        return max(CLASSICAL[case.task], key=lambda m: float(np.nanmean(self.values[case.name, m, score])))

    def best_network(self, case: Degradation, score: str = "psnr") -> str | None:
        """Return the network with the highest mean; None if none is made for the case."""
        own = [m for m in self.methods[case.name] if m in self.networks]
        return max(own, key=lambda m: float(np.nanmean(self.values[case.name, m, score]))) if own else None


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
    job, started = settings or CompareSettings(), time.perf_counter()
    networks = shipped_networks() if job.networks is None else job.networks
    job = replace(job, networks=networks)
    sample = _images_of(job)
    count = len(sample.images)
    trials: dict[int, Trial] = {}
    with open_cluster(cluster or ClusterSettings(0)) as place:
        for index, trial in place.run(functools.partial(_try_image, job), range(count)):
            trials[index] = trial
            if progress:
                progress(len(trials), count)
    return Comparison(
        title=sample.title,
        count=count,
        peak=sample.peak,
        cases=job.cases,
        methods={case.name: _methods_for(case, networks, sample.images.shape[1]) for case in job.cases},
        networks=networks,
        values=_columns([trials[i] for i in range(count)]),
        digest=job.digest(),
        seconds=round(time.perf_counter() - started, 1),
    )


def _columns(trials: list[Trial]) -> dict[tuple[str, str, str], NDArray[np.float64]]:
    first = trials[0]
    return {
        (key, method, score): np.array([t[key, method].get(score, np.nan) for t in trials])
        for key, method in first
        for score in first[key, method]
    }


def table_rows(found: Comparison, case: Degradation) -> list[dict[str, Any]]:
    """Return a case's table: one row a method, means, and PSNR differences to the two yardsticks with intervals."""
    baseline, best = BASELINES[case.task], found.best_classical(case)
    rows = []
    for method in found.methods[case.name]:
        row: dict[str, Any] = {"method": method}
        row |= {score: found.mean(case, method, score) for score in found.scores(case)}
        row["over_baseline"] = (
            None if method in (baseline, REFERENCE) else found.difference(case, method, baseline, "psnr")
        )
        row["over_best"] = None if method in (best, REFERENCE) else found.difference(case, method, best, "psnr")
        rows.append(row)
    return rows


def write_images_csv(found: Comparison, path: Path) -> None:
    """Write every image's scores: case, method, image, one column a score."""
    names = list(dict.fromkeys(score for _, _, score in found.values))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "method", "image", *names])
        for case in found.cases:
            for method in found.methods[case.name]:
                columns = [found.values.get((case.name, method, name)) for name in names]
                for index in range(found.count):
                    cells = ["" if column is None else f"{column[index]:.6g}" for column in columns]
                    writer.writerow([case.name, method, index, *cells])


def to_json(found: Comparison) -> str:
    """Return the tables as JSON; infinite and unmeasurable figures are null."""

    def plain(value: Any) -> Any:
        if isinstance(value, Interval):
            return [x if np.isfinite(x) else None for x in (value.mean, value.low, value.high)]
        return value

    tables = {
        case.name: [{k: plain(v) for k, v in row.items()} for row in table_rows(found, case)] for case in found.cases
    }
    facts = {"images": found.title, "count": found.count, "peak": found.peak, "digest": found.digest}
    facts |= {"features": trunk_available(), "seconds": found.seconds, "tables": tables}
    return json.dumps(facts)
