"""Learning the class of land cover of each pixel: `scenelift landcover train --scene X --labels Y`, or a recipe."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from scenelift.models.enhancer import TorchEnhancer
from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.networks.segmenter import STRIDE, start_segmenter_from_imagenet
from scenelift.models.receptive import seam_error
from scenelift.models.spec import ModelSpec
from scenelift.models.training.confusion import Confusion
from scenelift.models.training.labelled import CrossEntropy
from scenelift.models.training.objectives import Objective
from scenelift.models.training.schedule import Phase, Schedule
from scenelift.models.training.trainer import Weights
from scenelift.models.whole import run_whole
from scenelift.workflows.training.pixels import LabelledImage, LabelledPixelSampler, read_arrays, read_rasters
from scenelift.workflows.training.recipe import Labelled, LandcoverRecipe
from scenelift.workflows.training.sources import DATA_VARIABLE


@dataclass(frozen=True)
class Segmentation:
    """A `Problem` of `scenelift.workflows.training.train`."""

    recipe: LandcoverRecipe
    images: list[LabelledImage]
    validation: list[LabelledImage]
    classes: tuple[str, ...]
    column = "validation_miou"
    limits = "Knows the classes, sensor, place and season it was trained on; validated on a strip of the same images."

    @classmethod
    def read(cls, recipe: LandcoverRecipe, data: Path | None, run: Path | None = None) -> Segmentation:
        """Read the recipe's rasters or arrays; the last quarter of each image's columns is for validation."""
        folder = data or Path(os.environ.get(DATA_VARIABLE, "."))
        values, names = _values(recipe.classes)
        path = folder / recipe.data.train
        if recipe.data.train.endswith(".npz"):
            files = sorted(folder.glob(recipe.data.train)) if "*" in recipe.data.train else [path]
            image, _, labels = (recipe.data.labels or "image:labels").partition(":")
            images, known = read_arrays(files, image, labels, values)
        else:
            if not recipe.data.labels:
                raise ModelError(
                    f"recipe {recipe.name!r}: a raster needs the raster of its labels: name it in data.labels"
                )
            one, known = read_rasters(path, folder / recipe.data.labels, values)
            images = [one]
        bands = len(images[0].values)
        if recipe.arch.get("bands", bands) != bands:
            raise ModelError(f"recipe {recipe.name!r} is for {recipe.arch['bands']} bands, the images have {bands}")
        halves = [image.split() for image in images]
        return cls(recipe, [a for a, _ in halves], [b for _, b in halves], names or tuple(map(str, known)))

    @property
    def arch(self) -> dict[str, Any]:
        """The recipe's architecture with classes and bands of the data."""
        return self.recipe.arch | {"classes": list(self.classes), "bands": len(self.images[0].values)}

    @property
    def licence(self) -> str:
        """The recipe's."""
        return self.recipe.licence

    @property
    def samples(self) -> int:
        """Number of patches that cover the images."""
        return max(1, sum(image.labels.size for image in self.images) // self._side**2)

    @functools.cached_property
    def _side(self) -> int:
        """Side of the training patches, a multiple of the encoder's stride if an image is smaller than wanted."""
        side = min(min(image.labels.shape) for image in self.images) // STRIDE * STRIDE
        if side < STRIDE:
            raise ModelError(f"images must be at least {STRIDE} pixels a side after a quarter is kept for validation")
        return min(self.recipe.data.side, side)

    def arrays(self) -> Iterable[NDArray[np.generic]]:
        """Return all images and labels."""
        return (array for image in (*self.images, *self.validation) for array in (image.values, image.labels))

    def begin(self, module: Any) -> None:
        """Start the encoder from ImageNet's weights, or from random ones."""
        if self.recipe.start == "imagenet":
            start_segmenter_from_imagenet(module)

    @functools.cached_property
    def _twin(self) -> nn.Module:
        return build(self.arch).eval()

    def validate(self, state: Weights) -> float:
        """Return the mean intersection over union."""
        return self._confusion(state).scores()["miou"]

    def scores(self, state: Weights) -> dict[str, float]:
        """Return every score over the validation strips."""
        return {k: round(v, 4) for k, v in self._confusion(state).scores().items()}

    def _confusion(self, state: Weights) -> Confusion:
        self._twin.load_state_dict(state)
        return _segmented(self._twin, self.validation, self.classes)

    def finished(self, state: Weights) -> Weights:
        """Return them as they are."""
        return state

    def objective(self, schedule: Schedule, device: str) -> Objective:
        """Return the cross-entropy of labelled pixels."""
        return CrossEntropy(LabelledPixelSampler(self.images, self._side, len(self.classes)), self.recipe.augment)

    def spec(self, module: nn.Module, record: dict[str, Any]) -> ModelSpec:
        """Return the spec, with the error of the halo measured on the trained weights."""
        tiled: Any = build(self.arch, valid=True)
        tiled.load_state_dict(module.state_dict())
        spec = ModelSpec(
            name=self.recipe.name,
            task="landcover",
            halo=int(tiled.halo),
            halo_kind="measured",
            seam_error=0.0,
            bands=int(self.arch["bands"]),
            out_bands=len(self.classes),
            multiple_of=STRIDE,
            patch=max(STRIDE, self.recipe.patch // STRIDE * STRIDE),
            labels=self.classes,
            record=record,
        )
        return replace(spec, seam_error=seam_error(tiled.eval(), spec))

    def facts(self) -> dict[str, Any]:
        """Return source and split."""
        return {
            "trained_on": [Path(self.recipe.data.train).name],
            "validated_on": "the last quarter of every image's columns, never trained on, beside what was",
        }


def own_scene(scene: Path, labels: Path, steps: int, classes: tuple[str, ...] = ()) -> LandcoverRecipe:
    """Return a recipe for a raster and labels of the user's own."""
    return LandcoverRecipe(
        name=f"landcover-{scene.stem}",
        arch={"kind": "landcover-segmenter"},
        data=Labelled(str(scene.absolute()), labels=str(labels.absolute())),
        plan=Schedule(
            (Phase(steps, rate=1e-3, warmup=20),), batch=8, optimizer="adamw", precision="fp32", ema=0.98, clip=5.0,
            validate_every=max(1, min(50, steps)),
        ),
        classes=classes,
        start="imagenet",
        note=f"Trained on {scene.name} and its labels {labels.name}.",
    )  # fmt: skip


def _values(classes: tuple[str, ...]) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """Split "5=forest" into the label's number and the class's name; nothing given: what the labels hold."""
    if not classes:
        return None, ()
    pairs = [name.partition("=") for name in classes]
    if not all(sign and number.strip().lstrip("-").isdigit() and name.strip() for number, sign, name in pairs):
        raise ModelError(f"classes of labels must be NUMBER=NAME, got {', '.join(classes)}")
    return tuple(int(number) for number, _, _ in pairs), tuple(name.strip() for _, _, name in pairs)


def classes_of(module: nn.Module, values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the most probable class of each pixel (H, W) of an image (C, H, W), continued to whole strides."""
    spec = ModelSpec("segmenter", "landcover", bands=len(values), out_bands=2, multiple_of=STRIDE)
    found: NDArray[np.int64] = run_whole(TorchEnhancer(module, spec), values[None])[0].argmax(0)
    return found


def _segmented(module: nn.Module, images: list[LabelledImage], classes: tuple[str, ...]) -> Confusion:
    """Segment labelled images and count."""
    total = Confusion.empty(classes)
    for image in images:
        total += Confusion.of(image.labels, classes_of(module, image.values), classes)
    return total
