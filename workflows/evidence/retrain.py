"""A classifier tuned on the very kind of images it will see, on a small stated budget."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenelift.models.errors import ModelError
from scenelift.models.networks.classifier import Classifier
from scenelift.models.training.labelled import Augment, CrossEntropy
from scenelift.models.training.schedule import Phase, Schedule
from scenelift.models.training.trainer import Trainer
from scenelift.models.whole import Images
from scenelift.workflows.training.labelled_images import ClassBalancedSampler


@dataclass(frozen=True)
class Budget:
    """How long a classifier is tuned on an arm; every arm, the intact one too, gets the same."""

    each: int = 150
    """Training images of every class."""
    steps: int = 120
    batch: int = 32
    rate: float = 3e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.each, self.steps, self.batch) < 1:
            raise ModelError(
                f"each, steps and batch must be at least 1, got {self.each}, {self.steps} and {self.batch}"
            )

    def describe(self) -> str:
        """Return the budget in words."""
        return f"{self.steps} steps of {self.batch} images, {self.each} training images a class, seed {self.seed}"


def retrained(module: Classifier, images: Images, labels: NDArray[np.int64], budget: Budget) -> Classifier:
    """Return a copy of a classifier tuned on images (N, C, H, W) reflectance, drawn class by class."""
    phase = Phase(budget.steps, rate=budget.rate, warmup=10, loss="cross-entropy")
    schedule = Schedule(
        (phase,),
        batch=budget.batch,
        seed=budget.seed,
        optimizer="adamw",
        ema=0.98,
        precision="fp32",
        clip=5.0,
        validate_every=budget.steps,
    )
    sampler = ClassBalancedSampler(images, labels, len(module.classes), gain=1.0)
    tuned = copy.deepcopy(module)
    augment = Augment(gains=(0.9, 1.1), tint=0.04, smoothing=0.1)
    tuned.load_state_dict(Trainer(tuned, CrossEntropy(sampler, augment), schedule).train())
    return tuned.eval()
