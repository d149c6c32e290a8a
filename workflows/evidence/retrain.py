"""A classifier tuned on the very kind of images it will see, on a small stated budget."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scenelift.models.errors import ModelError
from scenelift.models.networks.classifier import Classifier
from scenelift.models.training.labelled import Augment, LabelledTrainer, turned
from scenelift.models.training.schedule import Phase, Plan
from scenelift.models.whole import Images


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
            raise ModelError("a budget needs at least one image of every class, one step and one image a step")

    def describe(self) -> str:
        """Return the budget in words."""
        return f"{self.steps} steps of {self.batch} images, {self.each} training images a class, seed {self.seed}"


def retrained(module: Classifier, images: Images, labels: NDArray[np.int64], budget: Budget) -> Classifier:
    """Return a copy of a classifier tuned on images (N, C, H, W) reflectance, drawn class by class."""
    groups = [group for k in range(len(module.classes)) if len(group := np.flatnonzero(labels == k))]

    def draw(count: int, subset: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        draws = torch.rand(count, 3, generator=generator, dtype=torch.float64).tolist()
        chosen = [groups[int(which * len(groups))] for which, _, _ in draws]
        at = [int(group[int(draw[1] * len(group))]) for group, draw in zip(chosen, draws, strict=True)]
        kept = [turned(torch.from_numpy(images[i]), int(draw[2] * 8)) for i, draw in zip(at, draws, strict=True)]
        return torch.stack(kept), torch.from_numpy(labels[at])

    phase = Phase(budget.steps, rate=budget.rate, warmup=10, loss="cross-entropy")
    plan = Plan(
        (phase,),
        batch=budget.batch,
        seed=budget.seed,
        optimizer="adamw",
        ema=0.98,
        precision="fp32",
        clip=5.0,
        validate_every=budget.steps,
        keep="last",
    )
    tuned = copy.deepcopy(module)
    with tempfile.TemporaryDirectory() as folder:
        augment = Augment(gains=(0.9, 1.1), tint=0.04, smoothing=0.1)
        trainer = LabelledTrainer(tuned, draw, plan, Path(folder), lambda state: 0.0, "retrain", augment)
        tuned.load_state_dict(trainer.run())
    return tuned.eval()
