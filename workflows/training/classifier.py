"""Learning which class of land cover an image shows."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.networks.classifier import Classifier, start_from_imagenet
from scenelift.models.spec import ModelSpec
from scenelift.models.training.calibration import calibration_error, temperature
from scenelift.models.training.confusion import Confusion
from scenelift.models.training.initialization import start_weights, take_over
from scenelift.models.training.labelled import CrossEntropy
from scenelift.models.training.objectives import Objective
from scenelift.models.training.schedule import Schedule
from scenelift.models.training.trainer import Weights
from scenelift.workflows.training.labelled_images import ClassBalancedSampler, LabelledImages, read_labelled
from scenelift.workflows.training.recipe import LandcoverRecipe
from scenelift.workflows.training.sources import DATA_VARIABLE

BATCH = 50
"""Images classified at once."""


@dataclass(frozen=True)
class Classification:
    """A `Problem` of `scenelift.workflows.training.train`."""

    recipe: LandcoverRecipe
    images: LabelledImages
    held_out: LabelledImages
    column = "validation_balanced_accuracy"
    limits = (
        "Knows the classes, places and seasons it was trained on and names one of them whatever it is shown. "
        "Its probabilities are calibrated on its validation places, and elsewhere they may be too sure."
    )

    @classmethod
    def read(cls, recipe: LandcoverRecipe, data: Path | None, run: Path | None = None) -> Classification:
        """Read the recipe's images; without validation images, a tenth of each class is kept aside."""
        folder = data or Path(os.environ.get(DATA_VARIABLE, "."))
        images = read_labelled(folder / recipe.data.train, recipe.classes or None)
        if recipe.data.validation:
            return cls(recipe, images, read_labelled(folder / recipe.data.validation, images.classes))
        aside = np.zeros(len(images), bool)
        for k in range(len(images.classes)):
            group = np.flatnonzero(images.labels == k)
            aside[group[-max(1, len(group) // 10) :]] = True
        return cls(recipe, images.select(np.flatnonzero(~aside)), images.select(np.flatnonzero(aside)))

    @property
    def arch(self) -> dict[str, Any]:
        """The recipe's architecture with the classes of the data."""
        return self.recipe.arch | {"classes": list(self.images.classes)}

    @property
    def licence(self) -> str:
        """The recipe's."""
        return self.recipe.licence

    @property
    def samples(self) -> int:
        """Number of training images."""
        return len(self.images)

    def arrays(self) -> Iterable[NDArray[np.generic]]:
        """Return all images and labels."""
        return (array for part in (self.images, self.held_out) for array in (part.values, part.labels))

    def begin(self, module: nn.Module) -> None:
        """Start from ImageNet's weights, another checkpoint's, or random ones."""
        if self.recipe.start == "imagenet":
            if not isinstance(module, Classifier):
                raise ModelError(
                    f"recipe {self.recipe.name!r}: only classifiers start from 'imagenet' here: leave start out"
                )
            start_from_imagenet(module)
        elif self.recipe.start:
            take_over(module, start_weights(self.recipe.start))
        if self.recipe.frozen:
            for part in (module.stem, *module.stages[: self.recipe.frozen]):  # type: ignore[index]
                part.requires_grad_(False)

    @functools.cached_property
    def _twin(self) -> nn.Module:
        return build(self.arch).eval()

    @functools.cached_property
    def _some(self) -> LabelledImages:
        return self.held_out.balanced(self.recipe.data.each)

    def validate(self, state: Weights) -> float:
        """Return the balanced accuracy over some of the validation images."""
        return _confusion(self._logits(state, self._some), self._some).scores()["balanced_accuracy"]

    def scores(self, state: Weights) -> dict[str, float]:
        """Return every score over all validation images, and the expected calibration error."""
        found = self._logits(state, self.held_out)
        error = calibration_error(found.softmax(1), torch.from_numpy(self.held_out.labels))
        scores = _confusion(found, self.held_out).scores() | {"calibration_error": error}
        return {k: round(v, 4) for k, v in scores.items()}

    def finished(self, state: Weights) -> Weights:
        """Return weights whose last layer is divided by the temperature of the validation images."""
        by = temperature(self._logits(state, self.held_out), torch.from_numpy(self.held_out.labels))
        return state | {name: state[name] / by for name in ("head.weight", "head.bias")}

    def _logits(self, state: Weights, images: LabelledImages) -> Tensor:
        self._twin.load_state_dict(state)
        parts = [slice(at, at + 10 * BATCH) for at in range(0, len(images), 10 * BATCH)]
        return torch.cat([_logits(self._twin, images.reflectance(part)) for part in parts])

    def objective(self, schedule: Schedule, device: str) -> Objective:
        """Return the cross-entropy of images drawn class by class."""
        sampler = ClassBalancedSampler(self.images.values, self.images.labels, len(self.images.classes))
        return CrossEntropy(sampler, self.recipe.augment)

    def spec(self, module: Any, record: dict[str, Any]) -> ModelSpec:
        """Return the spec of the map form."""
        return ModelSpec(
            name=self.recipe.name,
            task="landcover",
            halo=int(module.halo),
            bands=int(self.arch.get("bands", 3)),
            out_bands=len(module.classes),
            multiple_of=int(module.step),
            patch=self.recipe.patch,
            record=record,
        )

    def facts(self) -> dict[str, Any]:
        """Return sources and number of images."""
        return {
            "trained_on": [self.recipe.data.train],
            "validated_on": [self.recipe.data.validation or "a tenth of the training images"],
            "images": len(self.images),
        }


def probabilities(module: nn.Module, images: Tensor) -> Tensor:
    """Return (n, classes) for (n, C, H, W) reflectance."""
    return _logits(module, images).softmax(1)


@torch.inference_mode()
def _logits(module: nn.Module, images: Tensor) -> Tensor:
    starts = range(0, len(images), BATCH)
    batches = (images[at : at + BATCH].contiguous(memory_format=torch.channels_last) for at in starts)
    return torch.cat([module(batch) for batch in batches])


def _confusion(logits: Tensor, images: LabelledImages) -> Confusion:
    return Confusion.of(images.labels, logits.argmax(1).numpy(), images.classes)
