"""One image, degraded by rule, enhanced by every method, scored against itself."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scenelift.models.catalog import find, load, load_spec, shipped, with_settings
from scenelift.models.classical.classical import CLASSICAL, classical
from scenelift.models.degradations import SENTINEL2_MTF, mtf_decimate
from scenelift.models.networks.perception import distances
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scores.scores import Convention, block_statistics, scores
from scenelift.workflows.evaluation_images import LEVEL, Image, enhance_image, with_noise
from scenelift.workflows.evidence.samples import Sample, read_sample

DENOISE, SHARPEN = "denoise", "super-resolution"
INPUT, TRUTH = "noisy input", "the truth itself"
FILTERS = ("bilateral", "wavelet", "nlm", "tv", "wiener", "median")
RESAMPLERS = ("nearest", "bilinear", "bicubic", "lanczos", "ibp")


@dataclass(frozen=True)
class Case:
    """A way to spoil an image."""

    task: str
    """``DENOISE`` or ``SHARPEN``."""
    amount: int
    """Levels of white noise (8-bit), or the scale."""

    @property
    def key(self) -> str:
        """Short name, e.g. "noise 25" or "x4"."""
        return f"noise {self.amount}" if self.task == DENOISE else f"x{self.amount}"

    @property
    def title(self) -> str:
        """Name for people."""
        if self.task == DENOISE:
            return f"White noise, {self.amount} levels of 255 ({self.amount * LEVEL:.4f} reflectance)"
        return f"Super-resolution x{self.amount} (blurred by the sensor's MTF, decimated)"

    @property
    def scale(self) -> int:
        """Output pixels per input pixel."""
        return self.amount if self.task == SHARPEN else 1


@dataclass(frozen=True)
class TrialJob:
    """What a worker must know to try one image; small and picklable."""

    data: Path | None
    each: int
    seed: int
    cases: tuple[Case, ...]
    networks: tuple[str, ...]
    """Shipped models and checkpoints; each is tried on the cases it is for."""


@dataclass(frozen=True)
class Trial:
    """One image's scores for every case and method."""

    index: int
    values: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    """(case's key, method) to scores by name."""


@functools.cache
def networks_for(case: Case, names: tuple[str, ...], bands: int) -> tuple[str, ...]:
    """Return those of the networks that are made for a case and for images of so many bands."""
    specs = {name: load_spec(find(name)) for name in names}
    fitting = {n: s for n, s in specs.items() if s.bands in (None, bands) and s.out_bands is None}
    return tuple(n for n, s in fitting.items() if (s.task, s.scale) == (case.task, case.scale))


def shipped_networks() -> tuple[str, ...]:
    """Return the names of the shipped networks that denoise or sharpen."""
    return tuple(name for name in shipped() if load_spec(find(name)).task in (DENOISE, SHARPEN))


@functools.lru_cache(maxsize=1)
def sample_of(data: Path | None, each: int, seed: int) -> Sample:
    """Return the images, read once a process."""
    return read_sample(data, each, seed)


def try_image(job: TrialJob, index: int) -> Trial:
    """Spoil image number ``index`` in every way of the job, mend it by every method, and score."""
    torch.set_num_threads(1)  # images are tried side by side, one a worker; more threads would only wait
    sample = sample_of(job.data, job.each, job.seed)
    trial = Trial(index)
    for case in job.cases:
        height, width = (n - n % case.scale for n in sample.images.shape[2:])
        truth = sample.images[index][:, :height, :width]
        spoilt = degrade(case, truth, sample, seed=job.seed * 1_000_003 + index)
        for method, answer in _answers(case, truth, spoilt, job.networks, sample.level):
            trial.values[case.key, method] = measure(truth, answer, case, sample.peak)
    return trial


def degrade(case: Case, truth: Image, sample: Sample, seed: int) -> Image:
    """Return what a worse sensor would have seen: noise added, or blurred by the MTF and decimated."""
    if case.task == DENOISE:
        return with_noise(truth, case.amount * sample.level, seed)
    mtf = [SENTINEL2_MTF.get(band, 0.26) for band in sample.bands]
    low: Image = mtf_decimate(torch.from_numpy(truth.copy())[None], case.scale, mtf)[0].numpy()
    return low


def _answers(
    case: Case, truth: Image, spoilt: Image, networks: tuple[str, ...], level: float
) -> list[tuple[str, Image]]:
    if case.task == DENOISE:
        answers = [(INPUT, spoilt)]
        methods: tuple[str, ...] = FILTERS
    else:
        answers, methods = [], RESAMPLERS
    for name in (*methods, *networks_for(case, networks, len(truth))):
        answers.append((name, enhance_image(_enhancer(name, case, len(truth), level), spoilt)))
    return [*answers, (TRUTH, truth)]


@functools.lru_cache(maxsize=64)
def _enhancer(name: str, case: Case, bands: int, level: float) -> Any:
    sigma = case.amount * level if case.task == DENOISE else None
    if name in CLASSICAL:
        return classical(name, case.scale, sigma)
    ref = find(name)
    noise = (sigma,) * bands if sigma is not None else None
    return load(with_settings(ref, noise=noise))


def measure(truth: Image, answer: Image, case: Case, peak: float) -> dict[str, float]:
    """Return an image's scores, ``scale`` pixels cropped at every side; see `scenelift.pipeline.scores.scores`."""
    border = case.scale if case.task == SHARPEN else 0
    inner = (slice(None), slice(border, truth.shape[1] - border), slice(border, truth.shape[2] - border))
    convention = Convention(peak, ratio=case.scale)
    found = scores(block_statistics(truth[inner], answer[inner], convention=convention), convention).as_dict()
    values = {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
    if len(truth) == 3:
        a, t = (torch.from_numpy(np.ascontiguousarray(x[inner]))[None] for x in (answer, truth))
        values |= {name: float(distance(a, t)) for name, distance in distances().items()}
    return values


def digest_of(job: TrialJob) -> str:
    """Return a short digest of everything that decides a comparison."""
    models = [find(name).digest for name in job.networks]
    return hashlib.sha256(repr((job, models)).encode()).hexdigest()[:12]


def check_cases(cases: Sequence[Case]) -> None:
    """Refuse a comparison of nothing.

    Raises
    ------
    UsageError
        If there is no case, or one of a size that makes no sense.
    """
    if not cases:
        raise UsageError("nothing to compare: give at least one noise level or scale")
    for case in cases:
        if not 1 <= case.amount <= 255 or (case.task == SHARPEN and not 2 <= case.amount <= 8):
            raise UsageError(f"cannot compare {case.key!r}: noise is 1 to 255 levels, scales are 2 to 8")
