"""A classifier of images as a detector of one kind of land cover, on images degraded and restored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from scenelift.models.errors import ModelError
from scenelift.models.shipped import CLASSIFIER
from scenelift.workflows.evidence.cases import Degradation, networks_for
from scenelift.workflows.evidence.detection.rates import check_both, count, edges_of
from scenelift.workflows.evidence.detection.scenes import Detected
from scenelift.workflows.evidence.landcover import INTACT, existing, load_classifiers, make_arms, preferred
from scenelift.workflows.training.classifier import probabilities
from scenelift.workflows.training.labelled_images import read_labelled


@dataclass(frozen=True)
class DetectedClasses:
    """Which classes of which images are looked for, and what is done to the images."""

    positive: tuple[str, ...]
    """Classes that count as what is looked for; the number is the sum of their probabilities."""
    data: Path | None = None
    """Images in EuroSAT's layout; None: EuroSAT's validation split below SCENELIFT_DATA."""
    each: int = 100
    """Images of every class; 0: all."""
    seed: int = 0
    case: str = "x2"
    """Degradation, as `Degradation.parse` reads it."""
    networks: tuple[str, ...] | None = None
    """None: those that ship."""
    classifier: str = CLASSIFIER
    threshold: float = 0.5
    """Probabilities above it detect."""


def detect_classes(settings: DetectedClasses) -> Detected:
    """Degrade images, restore them by every method, and detect classes in each; the degraded ones come first.

    Raises
    ------
    ModelError
        If images, classes, networks and the classifier do not fit together.
    """
    module = load_classifiers((settings.classifier,))[settings.classifier]
    if unknown := sorted(set(settings.positive) - set(module.classes)):
        raise ModelError(f"{settings.classifier} knows no class {unknown[0]!r}; it knows {', '.join(module.classes)}")
    if not settings.positive:
        raise ModelError(f"name what is looked for by --positive: one or more of {', '.join(module.classes)}")
    if settings.each < 0:
        raise ModelError(f"--each must not be below 0, got {settings.each}")
    images = read_labelled(existing(settings.data or Path("eurosat_rgb_val.zip")), module.classes)
    sample = images.balanced(settings.each, settings.seed) if settings.each else images
    intact, case = sample.reflectance().numpy(), Degradation.parse(settings.case)
    bands = intact.shape[1]
    if bands != module.bands or any(side % case.scale for side in intact.shape[2:]):
        raise ModelError(
            f"images must have {module.bands} bands and sides that are multiples of {case.scale}, got {bands} bands of "
            f"{intact.shape[2]} x {intact.shape[3]}"
        )
    networks = preferred(case, bands) if settings.networks is None else networks_for(case, settings.networks, bands)
    arms = make_arms(case, intact, networks, settings.seed)
    order: Sequence[str] = [*(name for name in arms if name != INTACT), INTACT]
    wanted = [module.classes.index(name) for name in settings.positive]
    truth, places = np.isin(sample.labels, wanted), np.arange(len(sample))
    check_both(int(truth.sum()), int((~truth).sum()))
    found = {}
    for name in order:
        shares = probabilities(module, torch.from_numpy(arms[name])).numpy()[:, wanted].sum(axis=1).astype(np.float64)
        found[name] = count(shares, truth, places, edges_of(shares, settings.threshold), len(places))
    return Detected(found, settings.threshold, len(sample), len(sample))
