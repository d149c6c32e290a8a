"""`scenelift ablate`: the paper's study of what matters in the denoiser, at one small budget, three seeds each."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from scenelift.models.networks.features import trunk_available
from scenelift.models.training.tasks import Denoising, Inputs
from scenelift.models.whole import load_method, run_whole
from scenelift.pipeline.scores.bootstrap import Interval, interval
from scenelift.workflows.evidence.cases import Degradation
from scenelift.workflows.evidence.metrics import measure
from scenelift.workflows.evidence.samples import read_sample
from scenelift.workflows.settings import AblateSettings
from scenelift.workflows.training.recipe import Recipe, recipe_from
from scenelift.workflows.training.restoration import Restoration
from scenelift.workflows.training.runs import open_run
from scenelift.workflows.training.train import digest, fit

CASE = Degradation(noise=25)
BASELINE = "baseline"


@dataclass(frozen=True)
class Variant:
    """One change to the baseline."""

    name: str
    arch: tuple[tuple[str, Any], ...] = ()
    loss: str = "mse"
    perceptual: float = 0.0
    """Weight of the feature distance beside the loss."""
    paper: float | None = None
    """Change of PSNR the paper reports, dB."""


VARIANTS = (
    Variant(BASELINE),
    Variant("without skip connections", (("skips", False),), paper=-2.1),
    Variant("without normalisation", (("norm", "none"),), paper=-1.5),
    Variant("leaky ReLU", (("act", "leaky"),), paper=0.5),
    Variant("sigmoid", (("act", "sigmoid"),), paper=-1.8),
    Variant("SSIM loss", loss="ssim"),
    Variant("perceptual loss", perceptual=0.05),
)
"""The baseline is the paper's: residual blocks with batch normalisation, ReLU, mean squared error, Adam."""


@dataclass(frozen=True)
class PlainDenoising(Denoising):
    """Denoising where every error counts alike, as in the paper, so that variants differ in their loss alone."""

    def weight(self, inputs: Inputs) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Outcome:
    """What one variant scored, all its seeds."""

    variant: Variant
    psnr: NDArray[np.float64]
    """dB, shape (seeds, images)."""
    ssim: NDArray[np.float64]
    """Shape (seeds, images)."""

    def gain(self, baseline: Outcome, score: str = "psnr") -> Interval:
        """Return the paired difference to the baseline: means over seeds, interval over images."""
        return interval((getattr(self, score) - getattr(baseline, score)).mean(axis=0))

    def spread(self, baseline: Outcome) -> float:
        """Return the standard deviation over seeds of the difference to the baseline, dB."""
        gaps = (self.psnr - baseline.psnr).mean(axis=1)
        return float(gaps.std(ddof=1)) if len(gaps) > 1 else float("nan")


def recipe_of(variant: Variant, settings: AblateSettings, seed: int) -> Recipe:
    """Return the recipe that trains a variant."""
    arch = {"kind": "denoiser", "channels": settings.channels, "blocks": settings.blocks, "norm": "batch"}
    phase = {"steps": settings.steps, "rate": 1e-3, "loss": variant.loss}
    plan = {"batch": settings.batch, "optimizer": "adam", "ema": 0.99, "precision": "fp32", "seed": seed}
    values = {
        "name": "ablation",
        "task": "denoise",
        "arch": arch | dict(variant.arch),
        "degradation": {"sigma_max": 0.06, "power": 1.0},
        "data": {"train": [{"path": "eurosat_rgb_train.zip"}], "validation": [{"path": "eurosat_rgb_val.zip"}]},
        "plan": plan | {"phases": [phase], "validate_every": settings.steps},
    }
    if variant.perceptual:  # no discriminator: its weight is zero, the features alone join the loss
        values["adversarial"] = {"weight": 0.0, "perceptual": variant.perceptual}
    return cast(Recipe, recipe_from(values, f"ablation, {variant.name}"))


def ablate(
    settings: AblateSettings,
    folder: Path,
    progress: Callable[[str, int], None] | None = None,
    variants: Sequence[Variant] | None = None,
) -> list[Outcome]:
    """Train and score every variant with every seed; what is already in the folder is not trained again.

    Parameters
    ----------
    settings : AblateSettings
    folder : Path
        Gets a folder a training, and its scores.
    progress : callable, optional
        Called with the variant and seed that start, and how many are done.
    variants : sequence of Variant, optional
        The baseline first; default: all that can be trained here.

    Raises
    ------
    ModelError, UsageError
        If there is no data, or a loss does not stay finite.
    """
    outcomes, done = [], 0
    for variant in usable_variants() if variants is None else variants:
        rows = []
        for seed in range(settings.seeds):
            if progress:
                progress(f"{variant.name}, seed {seed}", done)
            rows.append(_scores(variant, settings, seed, folder))
            done += 1
        psnr, ssim = (np.array([row[name] for row in rows]) for name in ("psnr", "ssim"))
        outcomes.append(Outcome(variant, psnr, ssim))
    return outcomes


def usable_variants() -> list[Variant]:
    """Return the variants that can be trained here: the perceptual loss needs its trunk's weights."""
    return [variant for variant in VARIANTS if not variant.perceptual or trunk_available()]


def _scores(variant: Variant, settings: AblateSettings, seed: int, folder: Path) -> dict[str, list[float]]:
    recipe = recipe_of(variant, settings, seed)
    key = hashlib.sha256(repr((digest(recipe), variant, settings.each)).encode()).hexdigest()[:16]
    run = folder / f"{variant.name.replace(' ', '-')}-{seed}-{key}"
    stored = run / "scores.json"
    if stored.exists():
        found: dict[str, list[float]] = json.loads(stored.read_text(encoding="utf-8"))
        return found
    checkpoint = _train(recipe, settings, run)
    sample = read_sample(settings.data and settings.data / "eurosat_rgb_val.zip", settings.each)
    noisy, sigma = CASE.apply(sample.images, sample.bands, sample.level)
    restored = run_whole(load_method(str(checkpoint)), noisy, sigma)
    names = ("psnr", "ssim", "vif")
    rows = [measure(x, y, 1, sample.peak, names) for x, y in zip(sample.images, restored, strict=True)]
    found = {name: [row[name] for row in rows] for name in names}
    stored.write_text(json.dumps(found))
    return found


@functools.lru_cache(maxsize=1)
def _data(data: Path | None) -> Restoration:
    """Return the training patches, read once for all variants."""
    return Restoration.read(recipe_of(VARIANTS[0], AblateSettings(), 0), data)


def _train(recipe: Recipe, settings: AblateSettings, run: Path) -> Path:
    """Train for the whole budget, keep the last (averaged) weights, and return the checkpoint."""
    open_run(run, None)
    task = PlainDenoising(**recipe.degradation)
    return fit(dataclasses.replace(_data(settings.data), recipe=recipe, task=task), run)
