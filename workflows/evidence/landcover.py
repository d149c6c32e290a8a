"""`scenelift evaluate landcover`: what degradation costs a classifier, and how much of it each method wins back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from scenelift.models.errors import ModelError
from scenelift.models.networks.classifier import Classifier
from scenelift.models.shipped import CLASSIFIER, load_classifier, shipped
from scenelift.models.training.confusion import Confusion
from scenelift.models.whole import Images
from scenelift.pipeline.scores.bootstrap import Interval
from scenelift.workflows.evidence.cases import CLASSICAL, DEHAZE, DENOISE, SHARPEN, Degradation, networks_for, restore
from scenelift.workflows.evidence.retrain import Budget, retrained
from scenelift.workflows.evidence.samples import data_folder
from scenelift.workflows.evidence.statistics import McNemar, balanced_interval, macro_auc, mcnemar, recovery
from scenelift.workflows.training.classifier import probabilities
from scenelift.workflows.training.images import RGB
from scenelift.workflows.training.labelled_images import LabelledImages, read_labelled

INTACT = "HR"
"""Name of the arm whose images were not degraded."""
TRIED = {DENOISE: CLASSICAL[DENOISE][:3], SHARPEN: CLASSICAL[SHARPEN][3:], DEHAZE: CLASSICAL[DEHAZE]}
"""Methods without learning that are tried: the others take long for little."""
CASES = ("x2", "x4", "noise5", "noise15", "noise25", "noise50", "sensor")
PREFERRED = {
    "x2": (("sr-x2-rgb", "sr-x2"), ("sr-x2-rgb-taught",)),
    "x4": (("sr-x4-rgb-deep", "sr-x4"), ("sr-x4-rgb-taught",), ("sr-x4-gan",)),
    "x1": (("denoise-rgb-deep", "denoise"), ("denoise-rgb-taught",), ("dehaze",)),
}
"""Shipped networks by scale: those with the smallest error, driven by a classifier, adversarial; the first of each that
fits is taken."""


@dataclass(frozen=True)
class LandcoverSettings:
    """What is tried."""

    data: Path | None = None
    """Images in EuroSAT's layout; None: EuroSAT's validation split below SCENELIFT_DATA."""
    each: int = 100
    """Images of every class; 0: all."""
    seed: int = 0
    """Of the draw of images and of the noise."""
    cases: tuple[str, ...] = CASES
    networks: tuple[str, ...] | None = None
    """Networks and checkpoints; None: those that ship."""
    classifiers: tuple[str, ...] = (CLASSIFIER,)
    """Shipped classifiers and checkpoints, of the same classes."""
    retrain: Path | None = None
    """Labelled training images: then the first classifier is also tuned on each arm's own kind of images."""
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        if self.each < 0:
            raise ModelError(f"--each must not be below 0, got {self.each}")
        if not self.cases:
            raise ModelError("nothing to try: give at least one of --cases")
        for name in self.cases:
            Degradation.parse(name)


@dataclass(frozen=True)
class Arm:
    """What the classifier made of one arm's images."""

    name: str
    shares: NDArray[np.float32]
    """(n, K) probabilities."""
    confusion: Confusion
    auc: float
    balanced: Interval
    """Balanced accuracy, with its interval over images, or over the scenes that haze is found in."""
    gain: Interval | None
    """Its paired difference to the unrestored images; None for these and the intact ones, as is the next."""
    recovery: Interval | None

    @property
    def named(self) -> NDArray[np.int64]:
        """(n,) classes named."""
        return self.shares.argmax(1)


@dataclass(frozen=True)
class Trial:
    """One case: all arms, and the network against the best method without learning."""

    case: Degradation
    classifier: str
    tuned: bool
    """Whether every arm had a classifier tuned on its own kind of images."""
    arms: tuple[Arm, ...]
    best_classical: str
    """By balanced accuracy on these very images: the choice flatters it."""
    tests: dict[str, McNemar]
    """Network to its exact test against the best classical method; b: right by the network alone."""

    def arm(self, name: str) -> Arm:
        """Return the arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)


@dataclass(frozen=True)
class Experiment:
    """Everything that was tried."""

    title: str
    classes: tuple[str, ...]
    count: int
    trials: tuple[Trial, ...]


Progress = Callable[[str], None]


def run_experiment(settings: LandcoverSettings, progress: Progress | None = None) -> Experiment:
    """Degrade, restore and classify.

    Raises
    ------
    ModelError
        If images, classes, networks or the classifier do not fit together.
    """
    say = progress or (lambda text: None)
    modules = load_classifiers(settings.classifiers)
    first = next(iter(modules.values()))
    path = existing(settings.data or Path("eurosat_rgb_val.zip"))
    images = read_labelled(path, first.classes)
    sample = images.balanced(settings.each, settings.seed) if settings.each else images
    intact = sample.reflectance().numpy()
    if intact.shape[1] != first.bands:
        raise ModelError(
            f"{path} has {intact.shape[1]} bands, {settings.classifiers[0]} takes {first.bands}: choose images that fit"
        )
    trials = []
    for name in settings.cases:
        case = Degradation.parse(name)
        if any(side % case.scale for side in intact.shape[2:]):
            raise ModelError(f"{path}: image sides must be multiples of {case.scale}, got {intact.shape[2:]}")
        wanted = settings.networks
        networks = preferred(case, intact.shape[1]) if wanted is None else networks_for(case, wanted, intact.shape[1])
        say(f"{case.name}: {', '.join(networks) or 'no network'}")
        arms = make_arms(case, intact, networks, settings.seed)
        for title, module in modules.items():
            shares = {arm: probabilities(module, torch.from_numpy(values)).numpy() for arm, values in arms.items()}
            trials.append(_trial_of(case, shares, sample, networks, title))
        if settings.retrain is not None:
            trials.append(_tuned_trial(case, settings, first, sample, arms, networks, say))
    count = f"{len(sample)} images" + (f", {settings.each} a class" if settings.each else "")
    title = f"{path.name}, {count}, seed {settings.seed}"
    return Experiment(title, first.classes, len(sample), tuple(trials))


def preferred(case: Degradation, bands: int) -> tuple[str, ...]:
    """Return a shipped network of each training objective that undoes a degradation of images of so many bands."""
    choices = (
        networks_for(case, tuple(n for n in names if n in shipped()), bands)
        for names in PREFERRED.get(f"x{case.scale}", ())
    )
    return tuple(fitting[0] for fitting in choices if fitting)


def make_arms(case: Degradation, images: Images, networks: Sequence[str], seed: int = 0) -> dict[str, Images]:
    """Return each arm's images (N, C, H, W), on the grid of the intact ones.

    Parameters
    ----------
    case : Degradation
    images : ndarray of float32, shape (N, C, H, W)
        Reflectance; sides multiples of the scale.
    networks : sequence of str
    seed : int
        Of the noise.

    Returns
    -------
    dict
        "HR", the unrestored images, the classical methods, the networks.
    """
    bands = RGB if images.shape[1] == len(RGB) else ("",) * images.shape[1]
    low, sigma = case.apply(images, bands, seed=seed)
    return {INTACT: images, **dict(restore(case, low, sigma, (case.unrestored, *TRIED[case.task], *networks)))}


def shipped_classifiers() -> tuple[str, ...]:
    """Return the names of EuroSAT's classifiers that ship: the one trained on clean images first."""
    return tuple(sorted(name for name in shipped() if name.startswith(CLASSIFIER)))


def load_classifiers(names: Sequence[str]) -> dict[str, Classifier]:
    """Load classifiers of the same classes and bands.

    Raises
    ------
    ModelError
        If one cannot be loaded, or their classes or bands differ.
    """
    modules = {name: load_classifier(name)[0] for name in names}
    first = next(iter(modules.values()), None)
    if first is None:
        raise ModelError("nothing to classify with: give at least one --classifier")
    for name, module in modules.items():
        if (module.classes, module.bands) != (first.classes, first.bands):
            raise ModelError(f"{name} knows other classes or bands than {names[0]}: try them one by one")
    return modules


def _tuned_trial(
    case: Degradation,
    settings: LandcoverSettings,
    module: Classifier,
    sample: LabelledImages,
    arms: dict[str, Images],
    networks: Sequence[str],
    say: Progress,
) -> Trial:
    """Tune the classifier on each arm's kind of training images, then classify that arm."""
    budget = settings.budget
    known = read_labelled(existing(settings.retrain or Path()), module.classes).balanced(budget.each, settings.seed)
    learned = make_arms(case, known.reflectance().numpy(), networks, settings.seed + 1)
    classify = {}
    for name, values in learned.items():
        say(f"{case.name}: tuning on {name}")
        own = retrained(module, values, known.labels, budget)
        classify[name] = probabilities(own, torch.from_numpy(arms[name])).numpy()
    return _trial_of(case, classify, sample, networks, settings.classifiers[0], tuned=True)


def _trial_of(
    case: Degradation,
    shares: dict[str, NDArray[np.float32]],
    sample: LabelledImages,
    networks: Sequence[str],
    classifier: str,
    tuned: bool = False,
) -> Trial:
    """Score every arm of a case."""
    labels, scenes = sample.labels, case.scenes(len(sample))
    right = {name: values.argmax(1) == labels for name, values in shares.items()}
    arms, worst = [], right[case.unrestored]
    for name, values in shares.items():
        restored = name not in (INTACT, case.unrestored)
        arms.append(
            Arm(
                name,
                values,
                Confusion.of(labels, values.argmax(1), sample.classes),
                macro_auc(labels, values),
                balanced_interval(labels, right[name].astype(np.float64), scenes),
                balanced_interval(labels, right[name].astype(np.float64) - worst, scenes) if restored else None,
                recovery(labels, right[INTACT], worst, right[name], scenes) if restored else None,
            )
        )
    scores = {arm.name: arm.confusion.scores()["balanced_accuracy"] for arm in arms}
    best = max((case.unrestored, *TRIED[case.task]), key=lambda name: scores[name])
    tests = {name: mcnemar(right[name], right[best]) for name in networks}
    return Trial(case, classifier, tuned, tuple(arms), best, tests)


def existing(path: Path) -> Path:
    """Return the path, or the one below SCENELIFT_DATA where nothing lies there.

    Raises
    ------
    ModelError
        If neither is there.
    """
    if path.exists() or path.is_absolute():
        return path
    below = data_folder() / path
    if not below.exists():
        raise ModelError(f"no images at {path}, nor at {below}")
    return below
